//! What every way of launching has in common.

use super::error::LaunchError;
use super::evidence::Evidence;
use super::instance::Instance;
use super::reservation::Reservation;
use super::vsock::Listeners;
use api::{EnclaveId, Finding};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use wire::spec::Resources;

/// A launch under way.
pub type Launching<'a> =
    Pin<Box<dyn Future<Output = Result<(Instance, Listeners), LaunchError>> + Send + 'a>>;

/// What is to be launched.
#[derive(Debug, Clone, Copy)]
pub struct LaunchRequest<'a> {
    /// The enclave that it is for; only shown.
    pub id: &'a EnclaveId,
    /// The enclave image.
    pub eif: &'a Path,
    /// What the enclave gets.
    pub resources: Resources,
    /// A short path in which sockets may be made.
    pub run_dir: &'a Path,
    /// In debug mode this host can read the enclave's console and memory, and its PCR0, 1 and 2 are
    /// zero. For tests only.
    pub debug: bool,
}

/// One way to run enclaves on this machine.
pub trait Launcher: std::fmt::Debug + Send + Sync {
    /// Looks for what a launch needs, before anything is downloaded.
    ///
    /// # Errors
    /// Names what is missing, and where it was looked for.
    fn preflight(&self) -> Result<Finding, LaunchError>;

    /// Looks at everything that launches need, one finding each, in the order in which it has to be
    /// fixed. Changes nothing. Blocks for 5 seconds at most.
    fn examine(&self) -> Vec<Finding> {
        let found = self.preflight();
        vec![found.unwrap_or_else(|error| Finding::failed("launcher", &error))]
    }

    /// Sets resources aside for an enclave. They are given back when the reservation, or the
    /// instance that took it over, is dropped.
    ///
    /// # Errors
    /// There is too little memory beside what other enclaves were promised.
    fn reserve(&self, resources: Resources) -> Result<Reservation, LaunchError>;

    /// Starts an enclave. Its listeners exist before it does. Cancelling kills what was started.
    fn launch<'a>(&'a self, request: LaunchRequest<'a>, reservation: Reservation) -> Launching<'a>;

    /// How attestation documents of these enclaves are to be checked.
    fn evidence(&self) -> &Evidence;
}
