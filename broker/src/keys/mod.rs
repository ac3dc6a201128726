//! The keys that tokens are signed with: a shared secret, or the public keys of an issuer. Changed
//! keys take effect without a restart.

mod error;
mod secret;
mod set;

pub use error::KeyError;
pub(super) use secret::SecretFile;
pub(super) use set::{KeyLookupError, KeySet, algorithm_of};

use crate::config::BrokerConfig;
use oci::https::Https;
use std::path::Path;
use std::sync::Arc;

/// What tokens are checked with.
pub(super) enum Keys {
    Secret(SecretFile),
    Set(Arc<KeySet>),
}

impl Keys {
    /// A URL that does not answer is no error here: the daemon may start before its issuer.
    pub(super) async fn open(config: &BrokerConfig, https: &Https) -> Result<Keys, KeyError> {
        let BrokerConfig {
            jwt_secret_file,
            jwks_file,
            jwks_url,
            ..
        } = config;
        let is_set = |path: &Path| !path.as_os_str().is_empty();
        match (
            is_set(jwt_secret_file),
            is_set(jwks_file),
            jwks_url.as_str(),
        ) {
            (true, false, "") => Ok(Keys::Secret(SecretFile::open(jwt_secret_file)?)),
            (false, true, "") => Ok(Keys::Set(Arc::new(KeySet::from_file(jwks_file)?))),
            (false, false, url) if !url.is_empty() => {
                Ok(Keys::Set(Arc::new(KeySet::from_url(url, https).await?)))
            }
            _ => Err(KeyError::NoKeys),
        }
    }
}
