//! Carries what enters and leaves an enclave while it runs: [`ingress`] connections from clients,
//! [`egress`] connections that its measured spec allows, and the [`control`] connection that its
//! agent reports on.
//!
//! Nothing here launches an enclave or knows of its record. An enclave is a stranger: nothing that
//! it says is trusted further than its measured spec allows.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod control;
pub mod egress;
pub mod ingress;
