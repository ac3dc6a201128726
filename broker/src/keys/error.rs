//! Why the keys of tokens cannot be used.

use crate::watched::WatchedFileError;
use explain::{Code, Explain};
use oci::https::HttpsError;
use std::borrow::Cow;

/// The keys of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file of `[broker]`.
    #[error(transparent)]
    File(#[from] WatchedFileError),
    /// `broker.jwks_url` is not acceptable.
    #[error(transparent)]
    Address(#[from] HttpsError),
    /// The issuer's keys cannot be fetched.
    #[error("{url}: {problem}")]
    Fetch {
        /// `broker.jwks_url`.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// None, or more than one, is named.
    #[error("name one of broker.jwt_secret_file, broker.jwks_file and broker.jwks_url")]
    NoKeys,
    /// The configuration has none.
    #[error("broker.audience is empty: tokens for other services would be accepted")]
    NoAudience,
}

impl Explain for KeyError {
    fn code(&self) -> Code {
        Code::ConfigurationInvalid
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            KeyError::File(error) => return error.next_step(),
            KeyError::Address(_) => "Correct broker.jwks_url.",
            KeyError::Fetch { .. } => {
                "Check broker.jwks_url, and that the issuer publishes its keys there."
            }
            KeyError::NoKeys => {
                "Set exactly one of broker.jwt_secret_file, broker.jwks_file and broker.jwks_url."
            }
            KeyError::NoAudience => "Set broker.audience to the 'aud' of the tokens.",
        }
        .into()
    }
}
