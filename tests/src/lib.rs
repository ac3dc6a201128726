//! The kit of the journeys: images made entry by entry, a real registry, a registry that
//! misbehaves, the daemon as a process. Everything is per test: folders, ports, sockets. Whatever a
//! value started ends with it.
#![allow(
    missing_debug_implementations,
    clippy::let_underscore_must_use,
    clippy::match_bool,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    reason = "a kit for tests: what goes wrong here is to end the test with a backtrace"
)]

pub mod aws_library;
pub mod broker;
pub mod daemon;
pub mod eif;
pub mod files;
pub mod hostile;
pub mod image;
pub mod kms;
pub mod launcher;
pub mod layout;
pub mod metadata;
pub mod ministack;
pub mod names;
pub mod parent;
pub mod programs;
pub mod registry;
pub mod scene;
pub mod services;
pub mod tcp;
pub mod workloads;

/// A TCP port of 127.0.0.1 that nobody uses at this moment.
#[must_use]
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits for a condition, and says what it was if it never came.
pub fn wait_for(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !holds() {
        assert!(
            std::time::Instant::now() < give_up,
            "waited {seconds} seconds for {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
