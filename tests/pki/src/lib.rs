//! A PKI shaped like AWS's for Nitro attestation, and documents signed with it: good ones, ones
//! that break a single rule, and those of QEMU's NSM.
//!
//! A [`Plan`] starts as a good document; a test changes one thing and mints it. Nothing there
//! checks anything, and certificates are written by hand so that every rule can be broken.
//!
//! A [`Signer`] stands in for AWS: it signs what QEMU's NSM made, below a root of its own. The
//! program `nsm-signer` serves it on a socket. Who trusts its root trusts the machine that it runs
//! on, and learns nothing about an enclave.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod certificates;
pub mod der;
mod documents;
mod signer;

pub use certificates::{
    BASIC_CONSTRAINTS, Certificate, Curve, ECDSA_WITH_SHA256, ECDSA_WITH_SHA384, Extension,
    KEY_USAGE, Key, KeyError, Server, basic_constraints, key_usage, pem, pem_of, server, utc,
};
pub use documents::{
    INSTANCE, LEAF, MADE_AT, MODULE_ID, Minted, Plan, REGIONAL, ROOT, Signature, ZONAL, bytes,
    cbor, pcrs, registers,
};
pub use signer::{OpenError, SignError, Signer};
