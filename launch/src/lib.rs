//! Starts enclaves and reaches into them.
//!
//! ```text
//! Launcher ── reserve(resources) ──► Reservation ── launch(request, reservation) ──► Instance + Listeners
//!     └───── evidence() ──► Evidence: how a document of such an enclave is checked
//! ```
//!
//! One directory each way of launching; [`for_provider`] names them, and nothing outside this crate
//! does.

pub mod attest;
mod console;
mod error;
mod evidence;
mod instance;
mod launcher;
pub mod memory;
mod qemu;
mod sys;
mod vsock;

pub use console::Console;
pub use error::LaunchError;
pub use evidence::{Evidence, EvidenceError, Expected};
pub use instance::{Instance, Machine};
pub use launcher::{LaunchRequest, Launcher, Launching};
pub use memory::{MemoryPool, Reservation};
pub use qemu::{Accel, QemuConfig};
pub use vsock::{Listener, Listeners, Stream, Vsock};

use api::Provider;
use std::sync::Arc;

/// The launcher for a provider, with its part of the configuration.
pub fn for_provider(provider: Provider, qemu: &QemuConfig) -> Arc<dyn Launcher> {
    match provider {
        Provider::Qemu => Arc::new(qemu::Qemu::new(qemu.clone())),
    }
}
