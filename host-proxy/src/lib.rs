//! The daemon on the parent instance.
//!
//! The way of the data: [`api`] takes an order and [`secrets`] keeps its credentials; [`enclave`] owns one enclave's record and asks
//! [`lifecycle`] what may happen next; [`deploy`] pulls, builds and launches; the crate `relay` carries what goes in and out
//! while it runs; [`store`] remembers.
//!
//! An enclave is as foreign here as a registry: nothing that it says is trusted further than its measured spec allows.

#![forbid(unsafe_code)]

pub mod config;
pub mod daemon;
pub mod deploy;
pub mod doctor;
pub mod enclave;
pub mod lifecycle;
pub mod sealed;
pub mod server;
pub mod store;
