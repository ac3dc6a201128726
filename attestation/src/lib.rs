//! What a Nitro Enclave attestation document says, and the measurements it is compared with.
//! No I/O, no clock, no threads: bytes and values in, values out.
//!
//! This crate reads documents with the rules of [`document`]; [`sandbox`] is the only way to the fields of a document
//! that nobody signed, and only for enclaves that run in QEMU. Checking AWS's signature and certificate chain is not
//! part of it yet: until then nothing here can say that a document comes from real hardware.
#![forbid(unsafe_code)]

mod cbor;
pub mod document;
mod pcr;
pub mod sandbox;

pub use pcr::{HashAlgorithm, Measurements, Mismatch, Pcr, PcrError, Pcrs};
