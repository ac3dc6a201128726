//! The daemon's API as both ends see it: what is asked, what is answered, and the client.
//!
//! [`CreateEnclave`] is an order; a [`Record`] is what the daemon knows of an enclave, with its
//! [`State`] and, if it failed, the [`DeployError`] that says why; an [`EnclaveEvent`] is one thing
//! that happened. [`client`] speaks to the daemon's socket. [`credentials`] is the other API, that
//! of the credential broker, with the client that CI jobs use.
//!
//! Nothing here runs a daemon: a command line links this crate and no more.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod client;
pub mod credentials;
mod deploy_error;
mod doctor;
mod error;
mod event;
mod fix_plan;
mod log;
mod record;
mod release;
mod request;
mod stage;
mod state;
mod time;
mod workload;

pub use deploy_error::DeployError;
pub use doctor::{Finding, Outcome};
pub use error::{ApiError, ErrorBody};
pub use event::EnclaveEvent;
pub use fix_plan::{FixPlan, FixStep};
pub use log::{LogEntry, LogStream};
pub use record::{ConfigRecord, EnclaveId, Ingress, ParseIdError, Provider, Record, SourceType};
pub use release::Release;
pub use request::{CreateEnclave, RedeployEnclave, ReplaceConfig};
pub use stage::Stage;
pub use state::{IncompleteState, State, Status};
pub use time::{at_milliseconds, now};
pub use workload::{ExitRecord, HealthRecord, HealthState, WorkloadRecord};
