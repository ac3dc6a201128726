//! A Nitro parent instance on any machine.
//!
//! ```text
//! Machine ── a QEMU guest: Debian, systemd, Linux's nitro_enclaves driver
//!    │ nitro-enclaves-pci (scripts/qemu): each command of the driver is a frame on a socket
//! Hypervisor ── protocol (frames) ── slots (what is allowed when) ── memory (the guest's RAM)
//!    └── Sibling ── an enclave: QEMU's nitro-enclave machine, its documents signed below `pki`'s root
//! Switch ── AF_VSOCK between all of them (crate vsock-switch)
//! shell ── commands of this machine that run in the guest; forward ── its services, seen there
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a tool for tests: every length was checked just before, and a panic ends the machine"
)]

pub mod faults;
pub mod forward;
mod hypervisor;
mod machine;
mod memory;
mod process;
pub mod protocol;
pub mod shell;
mod sibling;
pub mod slots;

pub use hypervisor::{Events, Hypervisor};
pub use machine::{Files, Machine};
