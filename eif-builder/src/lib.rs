//! Builds enclave images.
//!
//! The way of the data: the crate `oci` fetches and verifies a container image, [`rootfs`] merges its layers into one tree and
//! writes it as a squashfs, [`eif`] puts kernel, command line and ramdisks into one file and computes what the
//! Nitro hypervisor will measure of it. [`build`] walks that way from end to end.
//!
//! [`seal`] is beside that way: it encrypts a config for the enclave that an image becomes.
//!
//! Nothing here needs Docker, root, or a mount. The same inputs give the same bytes.
#![forbid(unsafe_code)]

pub mod artifacts;
pub mod build;
pub mod eif;
pub mod rootfs;
pub mod seal;
