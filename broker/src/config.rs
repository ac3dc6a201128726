//! `[broker]` of the daemon's configuration.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `[broker]`. Without `listen` there is no broker. Exactly one of `jwt_secret_file`, `jwks_file`
/// and `jwks_url` names the keys of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Like `127.0.0.1:9443`; anything but a loopback address needs TLS.
    #[serde(with = "optional_address")]
    pub listen: Option<SocketAddr>,
    /// The certificate chain in PEM, leaf first. Goes with `tls_key`.
    pub tls_cert: PathBuf,
    /// The private key in PEM. Goes with `tls_cert`.
    pub tls_key: PathBuf,
    /// A shared secret for HS256, 32 bytes or more.
    pub jwt_secret_file: PathBuf,
    /// Public keys of the issuer (JWKS, RFC 7517) for RS256, ES256 and EdDSA.
    pub jwks_file: PathBuf,
    /// Where the issuer publishes them, like `https://issuer.example/.well-known/jwks`.
    pub jwks_url: String,
    /// What a token's `aud` must be; required.
    pub audience: String,
    /// What a token's `iss` must be; empty for any.
    pub issuer: String,
    /// Rules that allow projects to subjects, beside those that their tokens name; empty for none.
    pub rules_file: PathBuf,
    /// Requests per minute for each subject; not 0.
    pub rate_per_minute: u32,
}

/// The configuration has no null: an empty string means none.
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
                    "broker.listen must be ADDRESS:PORT, like 127.0.0.1:9443, not '{text}'"
                ))
            }),
        }
    }
}
