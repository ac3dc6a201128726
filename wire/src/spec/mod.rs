//! `enclave.toml`, which an operator writes, and the [`MeasuredSpec`] that it resolves to.
//!
//! The measured spec travels as `/app/enclave.json` in the second ramdisk: every field of it is
//! measured in PCR0 and PCR2. Resolving needs the image's own settings ([`ImageDefaults`]); where
//! those come from is not this module's business.

mod attestation;
mod caution;
mod config;
mod destination;
mod error;
mod file;
mod health;
mod measured;
mod network;
mod resolve;
mod restart;
mod sealer;
mod security;
mod signal;
mod target;
mod variables;
mod written;

pub use attestation::AttestationRules;
pub use caution::Caution;
pub use config::{ConfigSpec, Deliver, MeasuredConfig, RESERVED_CONTEXT};
pub use destination::{Destination, EgressRule, Host, Hosts};
pub use error::{InvalidValue, MAX_LEN, SpecError};
pub use file::SpecFile;
pub use health::{HealthCheck, HealthRules, HealthSpec, ImageHealthcheck};
pub use measured::{LogRules, MeasuredSpec, Run};
pub use network::{Forward, ForwardSpec, IngressSpec, MAX_IDLE_SECONDS, NetworkRules, NetworkSpec};
pub use resolve::ImageDefaults;
pub use restart::RestartPolicy;
pub use sealer::SealerKey;
pub use security::{Capability, SecurityRules};
pub use signal::Signal;
pub use target::HttpTarget;
pub(crate) use variables::is_variable_name;
pub use variables::{MAX_VARIABLES, steers};
pub use written::{Resources, RunOverrides, Spec};
