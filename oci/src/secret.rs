//! Secrets that cannot be printed, and the two kinds of credentials that a registry takes.

use base64::Engine as _;
use serde::Deserialize;
use zeroize::Zeroizing;

/// A string that is wiped when dropped and has no way into a log: `Debug` prints `…`, and there is
/// no `Display`.
///
/// ```
/// use oci::{Credentials, Secret};
///
/// let password = Secret::new("hunter2");
/// assert_eq!(password.expose(), "hunter2");
/// let credentials = Credentials::Password { username: "me".to_owned(), password };
/// assert_eq!(format!("{credentials:?}"), r#"Password { username: "me", password: … }"#);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over. A `String` is not copied; the caller wipes what a `&str` points to.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    /// The only way to the text. The caller answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// What a registry is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For Basic authentication, or to exchange for a token.
    Password {
        /// The account's name at the registry.
        username: String,
        /// Its password, or a token that the registry takes in place of one.
        password: Secret,
    },
    /// An OAuth2 refresh token, as `docker login` keeps for Azure.
    IdentityToken(Secret),
}

/// The value of a Basic `Authorization` header (RFC 7617).
pub(crate) fn basic(username: &str, password: &Secret) -> Secret {
    let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair.as_bytes());
    let encoded = Zeroizing::new(encoded);
    Secret::new(format!("Basic {}", encoded.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let credentials = Credentials::Password {
            username: "user".to_owned(),
            password: Secret::new("hunter2"),
        };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
