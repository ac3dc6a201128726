//! What the API is asked for, as JSON.

use crate::{Provider, SourceType};
use oci::Secret;
use serde::{Deserialize, Serialize, Serializer};

/// The body of `POST /v1/enclaves`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEnclave {
    /// 1 to 63 lower-case letters, digits and `-`; unique among the enclaves that are not
    /// destroyed.
    pub name: String,
    /// Image reference: `registry-host/namespace/image:tag`.
    pub image: String,
    /// What runs it; the daemon's configuration decides if left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<Provider>,
    /// Debug mode, for tests only: the parent instance can read the enclave's memory.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub debug: bool,
    /// Where credentials for the image come from; derived from what else is here if left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_type: Option<SourceType>,
    /// The registry that the credentials are for. It must be the image's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registry_url: Option<String>,
    /// User name at the registry; goes with the password.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registry_username: Option<String>,
    /// Password or access token; goes with the user name.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        serialize_with = "exposed"
    )]
    pub registry_password: Option<Secret>,
    /// The text of `enclave.toml`; empty for the image as it is.
    #[serde(default)]
    pub spec: String,
    /// The sealed config in base64, if the spec has `[config]`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config: Option<String>,
}

/// The body of `POST /v1/enclaves/{…}/redeploy`. An empty body is the same as `{}`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedeployEnclave {
    /// Image reference to run from now on; the one before if left out. Its tag is resolved again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    /// Build and measure only; an event has the result. Nothing is launched, and nothing changes.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dry_run: bool,
}

/// The body of `PUT /v1/enclaves/{…}/config`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceConfig {
    /// The sealed config in base64.
    pub config: String,
}

/// The one place where a password is written out: into the body of a request on the daemon's
/// socket.
fn exposed<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(serializer)
}
