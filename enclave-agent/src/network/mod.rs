//! The network of an enclave: loopback, and, for a workload that may connect out, what looks to its
//! programs like an ordinary network.
//!
//! [`link`] joins the workload's [`Namespace`] with the agent's, [`names`] answers for the names of
//! the measured spec, [`gateway`] ends TCP connections and hands them to the host. Nothing else is
//! behind the link, so nothing else gets out.

mod gateway;
mod link;
mod names;
mod namespace;
mod netlink;
mod refusals;
mod resolver;

pub(crate) use namespace::Namespace;
pub(crate) use refusals::Refusals;

use crate::capacity::Capacity;
use crate::error::BootError;
use crate::sys;
use names::Names;
use nix::libc::{IFF_RUNNING, IFF_UP, c_short};
use std::io;
use std::path::Path;
use std::sync::Arc;
use wire::control::AbortReason;
use wire::spec::NetworkRules;

pub(crate) fn raise_loopback() -> io::Result<()> {
    let flags = c_short::try_from(IFF_UP | IFF_RUNNING).map_err(io::Error::other)?;
    sys::set_interface_flags(&sys::inet_socket()?, "lo", flags)
}

/// Gives the workload a network, if the spec lets it connect anywhere. The image's root must be
/// mounted.
pub(crate) async fn open(
    rules: &NetworkRules,
    workload: &Namespace,
    refusals: Refusals,
    capacity: Capacity,
    give_to_root: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), BootError> {
    if rules.egress.is_empty() {
        return Ok(());
    }
    let failed = |doing: &'static str| BootError::of(AbortReason::Network, doing);
    link::connect(workload, rules).map_err(failed("cannot link the workload's network"))?;
    resolver::write(give_to_root).map_err(failed("cannot write /etc/resolv.conf"))?;
    let refusals = Arc::new(refusals);
    let names = Arc::new(Names::new(rules.clone(), refusals.clone()));
    let serving = names.clone().serve().await;
    serving.map_err(failed("cannot listen for questions for names"))?;
    gateway::serve(rules, names, refusals, capacity)
        .map_err(failed("cannot listen for connections out"))
}
