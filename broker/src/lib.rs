//! The credential broker: CI jobs and developers show a token and get credentials for one project's images, for a short while.
//!
//! [`server`] speaks HTTP and reads the [`question`]; [`token`] says who asks and for what he may, by [`keys`] and [`rules`]; [`project`]
//! checks the name; [`issuer`] gives what it has until that is about to expire, and then asks a [`provider`], which has the registry's own
//! service make credentials for that project alone.
//! Every credential that is given out is a line of the audit log, without the credential. [`client`] is the other end of it all.

mod issuer;
mod keys;
mod limits;
mod metrics;
pub mod provider;
mod rules;
mod server;
mod tls;
mod token;
mod watch;

pub use issuer::Issuer;
pub use keys::KeyError;
pub use metrics::{MEDIA_TYPE, Metrics};
pub use provider::RegistryConfig;
pub use server::{Broker, StartError};

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `[broker]`. Without `listen` there is no broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// `127.0.0.1:9443`; anything but loopback needs TLS.
    #[serde(with = "optional_address")]
    pub listen: Option<SocketAddr>,
    /// PEM; both or none.
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    /// A shared secret for HS256, 32 bytes or more.
    pub jwt_secret_file: PathBuf,
    /// Public keys of the issuer (JWKS) for RS256, ES256 and EdDSA.
    pub jwks_file: PathBuf,
    /// Where the issuer publishes them: `https://token.actions.githubusercontent.com/.well-known/jwks`.
    pub jwks_url: String,
    /// What a token's `aud` must be.
    pub audience: String,
    /// What its `iss` must be, if anything.
    pub issuer: String,
    /// Which subjects may ask for which projects, beside what their tokens say.
    pub rules_file: PathBuf,
    /// Questions a minute, for each subject.
    pub rate_per_minute: u32,
}

/// The configuration has no null: an empty string is none.
mod optional_address {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::net::SocketAddr;

    pub(super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(
            &address
                .map(|address| address.to_string())
                .unwrap_or_default(),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                serde::de::Error::custom(format!(
                    "broker.listen is ADDRESS:PORT, like 127.0.0.1:9443, and not '{text}'"
                ))
            }),
        }
    }
}
