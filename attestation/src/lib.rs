//! Verifies attestation documents of AWS Nitro Enclaves: genuine, fresh, from the code you expect?
//!
//! No I/O, no clock, no threads: bytes and values in, values out. Only [`verify`] and
//! [`Verifier::verify`] give access to the fields of a document, as [`Verified`]. The feature
//! `emulated` adds a module for documents of an emulated NSM, which prove nothing.
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
//! # For whom a document was made
//!
//! A Redoubt enclave has documents made for others than its workload: its public endpoint answers
//! every client, with the client's nonce. Each document says for whom it was made ([`Origin`]), and
//! [`Verified::origin`] gives it. If you rely on what only the workload supplies, such as the key in
//! `public_key`, demand [`Origin::Workload`] ([`Conditions::origin`]).
//!
//! # Clocks
//!
//! The caller gives the time. Certificates must be valid then, give or take
//! [`Conditions::clock_skew_seconds`]; a document must not be from later. With a
//! nonce it may be as old as the enclave's certificate (three hours), without one 5 minutes;
//! [`Conditions::max_age`] sets another limit.
//! [`ValidityTime::Document`] takes the time from the document, which any old document can supply:
//! it requires a nonce.
//!
//! # Other products of AWS
//!
//! AWS signs documents of other products below the same root. Those of EC2 instances (NitroTPM)
//! have other fields and are refused. The others are known by their module id alone ([`Kind`]). If a
//! product's module ids have the form of an enclave's, its documents cannot be told apart from an
//! enclave's; only registers can. A policy that pins PCR0 of an image you built yourself admits no
//! other product; one that pins PCR3 or PCR4 alone may admit any that runs there.
//!
//! A field that AWS adds to documents in future is refused until this crate knows it: ignoring what
//! a document says would be worse.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `cli` | the command `attest` |
//! | `unverified` | the module `unverified`, which shows what a document says without checking it |
//! | `emulated` | the module `emulated`, which reads the documents of QEMU's emulated NSM and checks no signature; only for the host that started that QEMU |
//!
//! # Mistakes of other verifiers
//!
//! Each is a test: the last one in `src/policy/mod.rs`, the others in `tests/journeys/rules` and
//! `tests/journeys/documents.rs` of the workspace.
//!
//! | mistake | test |
//! |---|---|
//! | trusts the root that the document brings, or one by name | `the_root_is_the_pinned_one` |
//! | builds paths, or skips certificates | `the_order_of_the_chain_is_the_given_one` |
//! | goes on after a certificate that is not signed by the preceding one | `every_certificate_is_signed_by_the_preceding_one` |
//! | no basicConstraints or keyUsage | `only_ca_certificates_sign_certificates` |
//! | no pathLen, or pathLen cut to a byte | `cas_sign_only_as_deep_as_their_path_length_allows`, `a_path_length_of_256_is_not_cut_to_0` |
//! | a CA as the enclave's certificate | `the_enclaves_certificate_signs_documents_only` |
//! | critical extensions ignored | `refuses_unknown_critical_extensions_and_ignores_others` |
//! | takes the algorithm from the key, panics on a curve | `refuses_keys_on_other_curves`, `refuses_other_signature_algorithms` |
//! | takes DER signatures, or r and s outside of the group | `refuses_signatures_of_another_length`, `refuses_signatures_outside_of_the_group` |
//! | trailing bytes in certificates | `nothing_follows_a_certificate_or_one_of_its_elements` |
//! | wrong tags, dates that do not exist | `accepts_generalized_time_and_no_other_tag`, `refuses_dates_that_do_not_exist` |
//! | an unprotected header | `refuses_unprotected_headers` |
//! | extra elements | `refuses_cose_without_exactly_four_elements` |
//! | other algorithms | `refuses_other_algorithms_than_es384` |
//! | last of two equal keys wins | `refuses_payloads_with_a_field_twice` |
//! | chunked strings; text for bytes | `refuses_cbor_that_can_be_read_in_two_ways` |
//! | takes an EC2 instance's `nitrotpm_pcrs` for an enclave's | `refuses_unknown_fields_such_as_an_ec2_instances` |
//! | cannot read open maps | `accepts_a_payload_of_definite_and_of_indefinite_length` |
//! | cannot read empty user data | `accepts_optional_fields_that_are_absent_null_or_empty` |
//! | cannot read fields of 1024 bytes | `accepts_optional_fields_of_1024_bytes_and_not_of_1025` |
//! | a missing register counts as zero, or as a match | `a_missing_register_is_neither_zero_nor_a_match` |
//! | debug mode known by all registers being zero | `one_zero_or_missing_register_of_the_image_suffices_for_debug_mode` |
//! | debug mode not detected | `debug_mode_is_refused_unless_the_policy_allows_it`, `refuses_debug_mode_unless_the_policy_allows_it` |
//! | takes another product's document for an enclave's | `a_document_of_another_product_is_no_enclaves` |
//! | an old document without a nonce | `without_a_nonce_a_document_is_five_minutes_old_at_most` |
//! | documents from the future | `no_document_is_from_later_than_the_clock_skew_allows` |
//! | expired certificates behind a cache | `a_verifier_with_a_cache_decides_like_one_without` |
//! | the document's own time without a nonce | `the_documents_own_time_decides_only_with_a_nonce` |
//! | a policy that restricts nothing | `a_policy_restricts_which_code_may_run` |
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
mod kind;
mod limits;
mod max_age;
mod origin;
mod pcr;
mod policy;
mod time;
#[cfg(feature = "unverified")]
pub mod unverified;
mod verify;

pub use cbor::CborError;
pub use chain::{AnchorError, TrustAnchor};
pub use check::{Check, Subject};
pub use conditions::{Conditions, ValidityTime};
pub use error::{Error, Malformed, Part, Untrusted};
pub use kind::Kind;
pub use max_age::MaxAge;
pub use origin::{Origin, UnknownOrigin};
pub use pcr::{HashAlgorithm, Measurements, Pcr, PcrError, PcrMismatch, Pcrs};
pub use policy::{Policy, PolicyError};
pub use time::{Time, TimeError};
pub use verify::{Verified, Verifier, verify};
