//! Verifies attestation documents of AWS Nitro Enclaves: genuine, fresh, from the code you expect?
//!
//! No I/O, no clock, no threads: bytes and values in, values out. Only [`verify`] and
//! [`Verifier::verify`] give access to the fields of a document, as [`Verified`]. The feature
//! `emulated` adds a module for documents without a signature, and reads no others.
//!
//! ```
//! use attestation::{Conditions, Measurements, Policy, Time, TrustAnchor, verify};
//! use std::time::SystemTime;
//!
//! # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
//! # fn example(document: &[u8], nonce: Vec<u8>, measurements: Measurements) -> Result {
//! let policy = Policy::new(Conditions {
//!     measurements: Some(measurements),   // the output of `eif-builder build --json`
//!     nonce: Some(nonce),                 // random, made for this request
//!     ..Conditions::default()
//! })?;
//! let verified = verify(document, &TrustAnchor::aws(), Time::from(SystemTime::now()), &policy)?;
//! println!("{} attests {:?}", verified.module_id, verified.public_key);
//! # Ok(())
//! # }
//! ```
//!
//! # What a verified document proves
//!
//! When it was made, a Nitro Enclave ran code that measures to `pcrs`, and that code requested this
//! document with this `nonce`, `public_key` and `user_data`. If the nonce is random and yours, it
//! was made after you sent the nonce.
//!
//! # What it does not prove
//!
//! - That the code is good. If you pin PCR0 you must know what is in the image: build it, and
//!   compare.
//! - That the enclave still runs, or that a connection ends in it. Have its code put the hash of
//!   its TLS key into `user_data` or `public_key`, and compare that.
//! - That its memory is private: in debug mode ([`Verified::debug`]) the parent instance can read
//!   it. Debug mode is refused unless [`Conditions::allow_debug`] is set.
//! - Anything by PCR1 alone: a later ramdisk replaces files of an earlier one. Pin PCR0, or PCR1
//!   and PCR2, or PCR8.
//! - That your code runs, if the policy names PCR3 or PCR4 alone: the owner of the role or the
//!   instance chooses the code ([`Policy::fixes_code`]).
//! - That its bytes are the only form: a leading tag, or the other ECDSA signature with the same r
//!   (n - s), verify too. Do not tell documents apart, or detect replays, by their bytes; the nonce
//!   is for that.
//! - That no certificate was revoked: AWS asks verifiers not to check revocation.
//!
//! # Clocks
//!
//! The caller gives the time. Certificates must be valid then, give or take
//! [`Conditions::clock_skew_seconds`]; a document must not be from later. It may be as old as the
//! enclave's certificate (three hours) unless [`Conditions::max_age_seconds`] is less.
//! [`ValidityTime::Document`] takes the time from the document, which any old document can supply:
//! it requires a nonce.
//!
//! A field that AWS adds to documents in future is refused until this crate knows it: ignoring what
//! a document says would be worse.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `cli` | the command `attest`, and the module `unverified` that it prints documents with |
//! | `emulated` | the module `emulated`, which reads the unsigned documents of QEMU's emulated NSM; only for the host that started that QEMU |
//!
//! # Mistakes of other verifiers
//!
//! Each is a test in `tests/journeys`, in `rules/` unless another place is named.
//!
//! | mistake | test |
//! |---|---|
//! | trusts the root that the document brings, or one by name | `the_root_is_the_pinned_one_and_the_order_is_the_given_one` |
//! | builds paths, skips links, or goes on after a broken one | `every_link_is_signed_by_the_one_before` |
//! | no basicConstraints, pathLen or keyUsage; pathLen cut to a byte | `only_cas_sign_and_only_as_deep_as_they_may` |
//! | a CA as the enclave's certificate | `the_enclaves_certificate_signs_documents_only` |
//! | critical extensions ignored | `refuses_critical_extensions_that_it_does_not_know` |
//! | takes the algorithm from the key, panics on a curve | `refuses_other_keys_and_other_signatures` |
//! | takes DER signatures, or r and s outside of the group | `refuses_signatures_of_another_form` |
//! | trailing bytes, wrong tags, dates that do not exist | `certificates_are_exactly_der` |
//! | an unprotected header, extra elements, other algorithms | `refuses_envelopes_that_are_not_exactly_cose_sign1_with_es384` |
//! | last of two equal keys wins; chunked strings; text for bytes | `refuses_payloads_that_are_not_a_nitro_document`, `refuses_cbor_that_can_be_read_in_two_ways` |
//! | takes an EC2 instance's `nitrotpm_pcrs` for an enclave | `refuses_payloads_that_are_not_a_nitro_document` |
//! | cannot read what hardware writes: open maps, empty user data, 1024 bytes | `accepts_every_form_that_hardware_writes` |
//! | a missing register counts as zero, or as a match | `each_condition_is_held_against_the_document` |
//! | debug mode known by all registers being zero, or not at all | `age_and_debug_mode_are_conditions`; real ones in `documents.rs` |
//! | documents from the future, expired links behind a cache | `times_are_looked_at_in_every_place`, `documents.rs` |
//! | the document's own time without a nonce | `the_documents_own_time_decides_only_with_a_nonce` |
//! | a policy that asks for nothing | `policy/mod.rs` in this crate |
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod authenticate;
mod cache;
mod cbor;
mod certificate;
mod chain;
mod check;
mod conditions;
mod crypto;
mod der;
pub mod document;
#[cfg(any(test, feature = "emulated"))]
pub mod emulated;
mod error;
mod limits;
mod pcr;
mod policy;
mod time;
#[cfg(feature = "cli")]
pub mod unverified;
mod verify;

pub use cbor::CborError;
pub use chain::{AnchorError, TrustAnchor};
pub use check::{Check, Subject};
pub use conditions::{Conditions, ValidityTime};
pub use error::{Error, Malformed, Part, Untrusted};
pub use pcr::{HashAlgorithm, Measurements, Pcr, PcrError, PcrMismatch, Pcrs};
pub use policy::{Policy, PolicyError};
pub use time::{Time, TimeError};
pub use verify::{Verified, Verifier, verify};
