//! Builds enclave images.
//!
//! The crate `oci` fetches and verifies a container image, [`rootfs`] merges its layers into one
//! tree and writes it as a squashfs, and [`eif`] puts kernel, command line and ramdisks into one
//! file and computes what the Nitro hypervisor will measure of it. [`build`] does all of this in
//! one call; [`artifacts`] finds the kernel and the agent for it, and [`store`] keeps what was built.
//!
//! [`seal`] and [`key_policy`] stand apart: one encrypts a config for the enclave that an image
//! becomes, the other writes and checks the policy of the key that it is encrypted with.
//!
//! Nothing here needs Docker, root, or a mount. The same inputs give the same bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod artifacts;
pub mod build;
pub mod eif;
pub mod key_policy;
pub mod rootfs;
pub mod seal;
pub mod store;
