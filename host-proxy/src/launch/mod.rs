//! Starts enclaves and reaches into them.
//!
//! ```text
//! Launcher ── reserve(resources) ──► Reservation ── launch(request, reservation) ──► Instance + Listeners
//!     └───── evidence() ──► Evidence: how a document of such an enclave is checked
//! ```
//!
//! One directory each way of launching; [`from_config`] names them, and nothing outside this module does.

mod console;
mod error;
mod evidence;
mod instance;
mod launcher;
pub mod memory;
mod qemu;
mod vsock;

pub use console::Console;
pub use error::LaunchError;
pub use evidence::{Evidence, EvidenceError, Expected};
pub use instance::{Instance, Machine};
pub use launcher::{LaunchRequest, Launcher, Launching};
pub use memory::{MemoryPool, Reservation};
pub use qemu::{Accel, QemuConfig};
pub use vsock::{Listener, Listeners, Stream, Vsock};

use crate::config::DaemonConfig;
use api::Provider;
use std::sync::Arc;

/// The launcher that the configuration names.
pub fn from_config(config: &DaemonConfig) -> Arc<dyn Launcher> {
    match config.launcher {
        Provider::Qemu => Arc::new(qemu::Qemu::new(config.qemu.clone())),
    }
}
