//! The credential broker: CI jobs and developers present a token and get short-lived credentials
//! for the images of one project.
//!
//! [`Broker`] listens and speaks HTTP. It checks the caller's JSON Web Token against the configured
//! keys and rules, and the project's name against the grammar of repositories. [`Issuer`] returns
//! cached credentials until they are about to expire, and then asks a [`provider`], which has the
//! registry's own service issue new ones for that project alone. The daemon's own pulls use the
//! same [`Issuer`].
//!
//! Every credential that is handed out is a line of the audit log first, never with the credential
//! itself; the journal has it too (`target: audit`). The client is `api::credentials::client`.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod config;
mod credential_error;
mod error;
mod issuer;
mod keys;
mod limits;
mod metrics;
pub mod provider;
mod rules;
mod server;
mod service;
mod tls;
mod token;
mod watched;

pub use config::BrokerConfig;
pub use error::BrokerError;
pub use issuer::Issuer;
pub use keys::KeyError;
pub use metrics::{MEDIA_TYPE, Metrics};
pub use provider::RegistryConfig;
pub use server::Broker;
pub use tls::TlsError;
pub use watched::WatchedFileError;
