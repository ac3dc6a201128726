//! `[qemu]` of the daemon's configuration.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where QEMU is, and how it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuConfig {
    /// Where `qemu-system-x86_64`, the directory `firmware` and, unless it is beside the daemon,
    /// `vsock-switch` are; empty to look for them.
    pub directory: PathBuf,
    /// What executes the guest.
    pub accel: Accel,
    /// The socket of a signer that plays AWS for the NSM; empty for none, and unsigned documents.
    /// It takes a QEMU whose `virtio-nsm-device` has the property `signer`. The daemon ignores the
    /// signatures: what it trusts is the QEMU that it started.
    #[serde(default)]
    pub nsm_signer: PathBuf,
}

impl Default for QemuConfig {
    /// What is found in the usual places, emulated, with unsigned documents.
    fn default() -> Self {
        QemuConfig {
            directory: PathBuf::new(),
            accel: Accel::Tcg,
            nsm_signer: PathBuf::new(),
        }
    }
}

/// What executes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// QEMU itself: works everywhere.
    Tcg,
    /// The kernel's virtual machines.
    Kvm,
}
