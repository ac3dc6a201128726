//! Fields of `[registry]` that several providers have.

use api::credentials::project::Prefix;
use oci::reference::is_registry_host;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// `host[:port]`, as in an image's name.
pub(super) fn registry_host<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    let host = String::deserialize(deserializer)?;
    if is_registry_host(&host) {
        return Ok(host);
    }
    Err(Error::custom(format!(
        "registry_url must be host or host:port, without https://, not '{host}'"
    )))
}

/// The same for a field that may be left out.
pub(super) fn optional_registry_host<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    registry_host(deserializer).map(Some)
}

/// `my-org/apps`, with or without a slash at its end.
pub(super) fn namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    let namespace = String::deserialize(deserializer)?;
    Prefix::of_namespace(&namespace).map_err(|_| {
        Error::custom(
            "namespace is lower-case letters and digits, with single '.', '_', '-' or '/' between them",
        )
    })
}
