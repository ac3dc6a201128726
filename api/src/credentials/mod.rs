//! The credential broker's API: requests and responses as they go over HTTP. Both ends read and
//! write them here; [`client`] is the end that asks.

pub mod client;
pub mod project;

use oci::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize, Serializer};

/// How the message of a 404 starts, whether a project does not exist or belongs to others.
pub const UNKNOWN: &str = "there is no such project";

/// What the credentials are for: a project by its name, or whichever project an image belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialScope {
    /// The project's name, not checked yet.
    Project(String),
    /// An image reference, not checked yet.
    Image(String),
}

/// A request for credentials: the query of `GET /registry/credentials`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRequest {
    /// What they are for.
    pub scope: CredentialScope,
    /// What they must allow.
    pub action: Action,
}

/// A query that is not a [`CredentialRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the query must be ?project=NAME or ?image=HOST/PATH, with &action=pull or &action=push")]
pub struct ParseRequestError;

/// All but the characters that RFC 3986 (section 3.4) allows in a query and that are not separators
/// here.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@');

impl CredentialRequest {
    /// Reads a query: exactly one of `project` and `image`, and at most one `action` (`push` if
    /// left out). Values are percent-decoded; names are not checked any further.
    ///
    /// # Errors
    /// Another key, a key that stands twice, a value that is not UTF-8, or an unknown action.
    pub fn parse(query: &str) -> Result<CredentialRequest, ParseRequestError> {
        let (mut scope, mut action) = (None, None);
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').ok_or(ParseRequestError)?;
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| ParseRequestError)?
                .into_owned();
            let earlier = match (key, value.as_str()) {
                ("project", _) => scope.replace(CredentialScope::Project(value)).is_some(),
                ("image", _) => scope.replace(CredentialScope::Image(value)).is_some(),
                ("action", "pull") => action.replace(Action::Pull).is_some(),
                ("action", "push") => action.replace(Action::Push).is_some(),
                _ => return Err(ParseRequestError),
            };
            if earlier {
                return Err(ParseRequestError);
            }
        }
        Ok(CredentialRequest {
            scope: scope.ok_or(ParseRequestError)?,
            action: action.unwrap_or_default(),
        })
    }

    /// The query without `?`, percent-encoded: what [`CredentialRequest::parse`] reads.
    pub fn query(&self) -> String {
        let (key, value) = match &self.scope {
            CredentialScope::Project(name) => ("project", name),
            CredentialScope::Image(name) => ("image", name),
        };
        format!(
            "{key}={}&action={}",
            utf8_percent_encode(value, &ESCAPED),
            self.action.as_str()
        )
    }
}

/// The JSON body of a 200.
#[derive(Debug, Serialize, Deserialize)]
pub struct CredentialResponse {
    /// What the registry is to be asked with.
    pub credentials: GrantedCredentials,
    /// The project's name.
    pub repository: String,
}

/// Credentials for one project. An empty user name and password mean that the registry's users log
/// in themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct GrantedCredentials {
    /// `host` or `host:port`.
    pub registry_url: String,
    /// Empty if the registry's users log in themselves.
    pub username: String,
    /// Empty if the registry's users log in themselves.
    #[serde(serialize_with = "exposed")]
    pub password: Secret,
    /// Seconds from now; null for what does not expire.
    pub expires_in: Option<u64>,
}

/// The one place where a password is written out: into the body of an answer.
fn exposed<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// What credentials allow.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Push and pull.
    #[default]
    Push,
    /// Pull only.
    Pull,
}

impl Action {
    /// `push` or `pull`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Push => "push",
            Action::Pull => "pull",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<(CredentialScope, Action), ParseRequestError> {
        CredentialRequest::parse(query).map(|CredentialRequest { scope, action }| (scope, action))
    }

    #[test]
    fn a_request_has_one_project_and_one_action() {
        let project = |name: &str| CredentialScope::Project(name.to_owned());
        assert_eq!(
            parse("project=my-app"),
            Ok((project("my-app"), Action::Push))
        );
        assert_eq!(
            parse("action=pull&project=a%2Fb"),
            Ok((project("a/b"), Action::Pull))
        );
        assert_eq!(
            parse("image=r:1/a%40b"),
            Ok((CredentialScope::Image("r:1/a@b".to_owned()), Action::Push))
        );
        for bad in [
            "",
            "project",
            "action=pull",
            "project=a&project=b",
            "project=a&image=b",
            "project=a&action=delete",
            "project=a&x=1",
            "project=%ff",
        ] {
            assert_eq!(parse(bad), Err(ParseRequestError), "{bad}");
        }
    }

    #[test]
    fn what_is_asked_arrives() {
        for name in [
            "my-app",
            "team/my-app",
            "a&action=push",
            "ä b%2f#?",
            "r:5000/a@sha256:1",
        ] {
            for scope in [
                CredentialScope::Project(name.to_owned()),
                CredentialScope::Image(name.to_owned()),
            ] {
                let request = CredentialRequest {
                    scope,
                    action: Action::Pull,
                };
                assert_eq!(CredentialRequest::parse(&request.query()), Ok(request));
            }
        }
    }
}
