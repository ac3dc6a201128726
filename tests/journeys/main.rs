//! All journeys in one binary: it is linked once.
#![allow(
    clippy::let_underscore_must_use,
    clippy::match_bool,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: what goes wrong here is to end the test with a backtrace"
)]

mod attest;
mod attested;
mod audit;
mod broker;
mod chaos;
mod credentials;
mod deploy;
mod doctor;
mod documents;
mod egress;
mod eif;
mod escape;
mod failures;
mod gates;
mod house;
mod kernel;
mod key_policy;
mod launch;
mod login;
mod network;
mod parent;
mod pin;
mod providers;
mod pull;
mod rules;
mod sealed;
mod service;
mod tree;
