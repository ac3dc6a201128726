//! The metadata section: JSON that is carried but not measured.

use serde::{Deserialize, Serialize};

/// In the order of nitro-cli.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    pub image_name: String,
    pub image_version: String,
    pub build_metadata: BuildMetadata,
    /// What `docker inspect` would say; ours names reference, digest and platform.
    pub docker_info: serde_json::Value,
    pub custom_metadata: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// RFC 3339.
    pub build_time: String,
    pub build_tool: String,
    pub build_tool_version: String,
    pub operating_system: String,
    pub kernel_version: String,
}
