//! The steps of a deploy.

use serde::{Deserialize, Serialize};

/// The steps of a deploy, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Fetching the registry credentials.
    Credentials,
    /// Asking the registry what the reference means.
    Resolve,
    /// Downloading layers.
    Pull,
    /// Comparing every layer with its digests.
    Verify,
    /// Writing the enclave image.
    Build,
    /// Reserving memory for the enclave.
    Allocate,
    /// Starting the enclave.
    Launch,
    /// Waiting for the first byte of the agent.
    Heartbeat,
    /// Starting the workload, with its sealed config if it has one.
    Configure,
    /// Comparing a fresh attestation document with the build.
    Attest,
}

impl Stage {
    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Credentials => "credentials",
            Stage::Resolve => "resolve",
            Stage::Pull => "pull",
            Stage::Verify => "verify",
            Stage::Build => "build",
            Stage::Allocate => "allocate",
            Stage::Launch => "launch",
            Stage::Heartbeat => "heartbeat",
            Stage::Configure => "configure",
            Stage::Attest => "attest",
        }
    }

    /// What happens in it, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Stage::Credentials => "fetching the registry credentials",
            Stage::Resolve => "resolving the image reference",
            Stage::Pull => "pulling the image",
            Stage::Verify => "verifying every layer",
            Stage::Build => "building the enclave image",
            Stage::Allocate => "reserving memory",
            Stage::Launch => "launching the enclave",
            Stage::Heartbeat => "waiting for the heartbeat",
            Stage::Configure => "starting the workload",
            Stage::Attest => "checking the attestation document",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
