//! Is this attestation document genuine, fresh, and from the code that I expect? One function answers: [`verify`].
//!
//! No I/O, no clock, no threads: bytes and values in, values out. [`Verified`] is the only way to the fields of an enclave's document;
//! [`sandbox`] reads documents that claim no signature, and no other.
//!
//! ```
//! use attestation::{Conditions, Measurements, Policy, Time, TrustAnchor, verify};
//! use std::time::SystemTime;
//!
//! # fn example(document: &[u8], nonce: Vec<u8>, measurements: Measurements) -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::new(Conditions {
//!     measurements: Some(measurements),   // what `eif-builder build --json` printed
//!     nonce: Some(nonce),                 // random, made for this question
//!     ..Conditions::default()
//! })?;
//! let verified = verify(document, &TrustAnchor::aws(), Time::from(SystemTime::now()), &policy)?;
//! println!("{} vouches for {:?}", verified.module_id, verified.public_key);
//! # Ok(())
//! # }
//! ```
//!
//! # What a verified document proves
//!
//! When it was made, a Nitro Enclave ran code that measures to `pcrs`, and that code asked for this document with this
//! `nonce`, `public_key` and `user_data`. If the nonce is random and yours, it was made after you asked.
//!
//! # What it does not
//!
//! - That the code is good. Who pins PCR0 must know what is in the image: build it, and compare.
//! - That the enclave still runs, or that a connection ends in it. Have its code put the hash of its TLS key into `user_data` or
//!   `public_key`, and compare that.
//! - That nobody sees its memory: with debug mode ([`Verified::debug`]) the parent does. It is refused unless
//!   [`Conditions::allow_debug`] is set.
//! - Anything by PCR1 alone: a later ramdisk replaces files of an earlier one. Pin PCR0, or PCR1 and PCR2, or PCR8.
//! - That your code runs, if the policy names PCR3 or PCR4 alone: whoever owns the role or the instance chooses the code
//!   ([`Policy::names_code`]).
//! - That its bytes are the only form: a tag in front, or the other root of the same signature, verify too. Do not tell documents
//!   apart, or replays from others, by their bytes; that is what the nonce is for.
//! - That a certificate was not revoked: AWS says that revocation must not be checked.
//!
//! # Clocks
//!
//! The caller gives the time. Certificates must be valid then, give or take [`Conditions::clock_skew_seconds`]; a document must not be
//! from later. It may be as old as the enclave's certificate (three hours) unless [`Conditions::max_age_seconds`] is less.
//! [`Clock::Document`] takes the document's word for the time, which anybody with an old document can give: it needs a nonce.
//!
//! A field that AWS adds to documents one day is refused until this crate knows it: silence about what a document says would be worse.
//!
//! # Mistakes of other verifiers
//!
//! Each is a test in `tests/journeys`, in `rules.rs` unless said otherwise.
//!
//! | mistake | test |
//! |---|---|
//! | trusts the root that the document brings, or one by name | `the_root_is_the_pinned_one_and_the_order_is_the_given_one` |
//! | builds paths, skips links, or goes on after a broken one | `every_link_is_signed_by_the_one_before` |
//! | no basicConstraints, pathLen or keyUsage; pathLen cut to a byte | `only_cas_sign_and_only_as_deep_as_they_may` |
//! | a CA as the enclave's certificate | `the_enclaves_certificate_signs_documents_only` |
//! | critical extensions passed over | `refuses_critical_extensions_that_it_does_not_know` |
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
//! | a policy that asks for nothing | `policy/conditions.rs` in this crate |
#![forbid(unsafe_code)]

mod cbor;
mod certificate;
mod chain;
mod crypto;
mod der;
pub mod document;
mod pcr;
mod policy;
pub mod emulated;
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
