//! Starts enclaves and reaches into them.
//!
//! ```text
//! Launcher ── reserve(resources) ──► Reservation ── launch(request, reservation) ──► Instance + Listeners
//!     └───── evidence() ──► Evidence: how a document of such an enclave is checked
//! ```
//!
//! One directory each way of launching; [`Launchers`] knows them all, and nothing outside this crate
//! does.

pub mod attest;
mod console;
mod error;
mod evidence;
mod heartbeat;
mod instance;
mod launcher;
mod launchers;
mod limited;
mod logs;
pub mod memory;
mod nitro;
mod qemu;
mod reservation;
mod sys;
mod vsock;

pub use console::Console;
pub use error::LaunchError;
pub use evidence::{Evidence, EvidenceError, Expected};
pub use heartbeat::heartbeat;
pub use instance::{Instance, Machine};
pub use launcher::{LaunchRequest, Launcher, Launching};
pub use launchers::{Launchers, default_provider};
pub use limited::{LineLimiter, LineVerdict};
pub use logs::{LogReader, Logs};
pub use memory::MemoryPool;
pub use nitro::{DriverError, DriverStep};
pub use qemu::{Accel, QemuConfig};
pub use reservation::Reservation;
pub use vsock::{Listener, Listeners, Stream, Vsock};
