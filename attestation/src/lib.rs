//! Is this attestation document genuine, fresh, and from the code that I expect?
//! No I/O, no clock, no threads: bytes and values in, values out.
#![forbid(unsafe_code)]

mod cbor;
mod certificate;
mod chain;
mod crypto;
mod der;
pub mod document;
mod pcr;
mod policy;
pub mod sandbox;
mod time;
#[cfg(feature = "cli")]
pub mod unverified;
mod verify;

pub use chain::{AnchorError, TrustAnchor};
pub use document::Malformed;
pub use pcr::{HashAlgorithm, Measurements, Mismatch, Pcr, PcrError, Pcrs};
pub use policy::{Check, Clock, Conditions, Policy, PolicyError, Subject};
pub use time::{Time, TimeError};
pub use verify::{Error, Part, Untrusted, Verified, Verifier, verify};
