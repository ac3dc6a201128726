//! What an enclave runs: an image, resolved, built and measured.

use attestation::Measurements;
use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

/// One image as it was resolved once, and what its build measures to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// As it was asked for; its tag may point elsewhere by now.
    pub image: Reference,
    /// Of the manifest that it was resolved to.
    pub digest: Digest,
    /// Of the EIF that was built of it.
    pub measurements: Measurements,
}
