//! What stands between the workload and the agent, from `[security]` of the measured spec.
//!
//! ```text
//! agent       PID 1 of the enclave, in the namespaces and with the users that the kernel booted with
//!  └ init     PID 1 of the workload's namespaces, this same program started anew: builds the
//!     │       workload's view of the machine, passes signals on, reports how it ended, starts it
//!     │       once more or checks its health if the spec says so
//!     └ workload   another user namespace, few capabilities, filtered system calls, limited memory
//! ```
//!
//! [`init`] runs none of the workload's code and has nothing of the agent's memory, since it was
//! started by exec. The workload cannot touch it: it is another user, of an outer user namespace,
//! and cannot be traced or dumped.

mod capabilities;
mod cgroup;
mod devices;
mod enter;
mod filter;
mod init;
mod plan;
mod retire;
mod root;
mod spawn;
mod stage;
mod supervise;
mod sys;
mod users;

pub(crate) use devices::populate;
pub(crate) use enter::{IDENTITY_FAILED, WORKING_DIR_FAILED};
pub(crate) use init::{ARGUMENT_ZERO as INIT, run as run_init};
pub(crate) use plan::{Event, Order, Plan};
pub(crate) use retire::retire;
pub(crate) use root::TARGETS;
pub(crate) use spawn::{Init, spawn};
pub(crate) use sys::map_owners;
pub(crate) use users::Users;

use crate::network::Namespace;
use cgroup::Group;
use std::io;
use std::sync::Arc;
use wire::spec::SecurityRules;

/// The parts that exist before the workload does.
pub(crate) struct Boundary {
    users: Users,
    network: Arc<Namespace>,
    group: Group,
}

impl Boundary {
    /// Makes the namespaces that the agent works with itself, and the workload's limits. After
    /// this no process can make another user namespace.
    pub(crate) fn prepare(rules: &SecurityRules) -> io::Result<Boundary> {
        let named = |what: &'static str| {
            move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
        };
        Ok(Boundary {
            users: Users::create(rules.privileged).map_err(named("the user namespace"))?,
            network: Arc::new(Namespace::create().map_err(named("the network namespace"))?),
            group: Group::create(rules).map_err(named("the control group"))?,
        })
    }

    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    /// How much the files may take that the workload writes, in bytes: half of its memory, so that
    /// a full disk is an error and not the end of a process.
    pub(crate) fn disk(&self) -> u64 {
        self.group.memory / 2
    }

    pub(crate) fn network(&self) -> &Arc<Namespace> {
        &self.network
    }
}
