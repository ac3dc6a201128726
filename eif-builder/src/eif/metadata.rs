//! The metadata section: JSON that is carried but not measured.

use serde::{Deserialize, Serialize};

/// How an EIF was built, with the keys and in the order of nitro-cli. Nothing of it is measured:
/// never trust it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// Registry and repository of the container image.
    pub image_name: String,
    /// Digest of the container image's manifest.
    pub image_version: String,
    /// How the EIF was built.
    pub build_metadata: BuildMetadata,
    /// What `docker inspect` would print; ours names the tag and the digest.
    pub docker_info: serde_json::Value,
    /// What the user of nitro-cli adds; ours is `null`.
    pub custom_metadata: serde_json::Value,
}

/// When and with what an EIF was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// RFC 3339, in UTC.
    pub build_time: String,
    /// The program's name.
    pub build_tool: String,
    /// The program's version.
    pub build_tool_version: String,
    /// Ours is always `Linux`.
    pub operating_system: String,
    /// The version in the kernel's header, or `unknown`.
    pub kernel_version: String,
}
