//! What the agent tells init to do, and what init tells it in return.

use super::capabilities::Set;
use crate::user::User;
use minicbor::{Decode, Encode};
use wire::control::WorkloadExit;
use wire::spec::{Capability, HealthCheck, HealthRules, MeasuredSpec, RestartPolicy};
use zeroize::Zeroize as _;

/// The longest plan, in bytes: a spec and a sealed config, twice as long as text may get in CBOR.
pub(super) const MAX_LEN: usize = 1024 * 1024;

/// The program, and what it runs as.
#[derive(Encode, Decode)]
pub(crate) struct Plan {
    #[n(0)]
    pub(crate) program: String,
    #[n(1)]
    pub(crate) arguments: Vec<String>,
    /// Names and values.
    #[n(2)]
    pub(crate) env: Vec<(String, String)>,
    #[n(3)]
    pub(crate) directory: String,
    #[n(4)]
    pub(crate) uid: u32,
    #[n(5)]
    pub(crate) gid: u32,
    #[n(6)]
    pub(crate) groups: Vec<u32>,
    #[n(7)]
    pub(crate) privileged: bool,
    /// Bits of a root workload's capabilities.
    #[n(8)]
    pub(crate) capabilities: u64,
    /// Whether it may attach to processes as a debugger does.
    #[n(9)]
    pub(crate) tracing: bool,
    /// Whether programs may have to be started later: init then keeps this plan.
    #[n(10)]
    pub(crate) resident: bool,
    /// The program that checks the workload's health, and its arguments; empty if none does.
    #[n(11)]
    pub(crate) check: Vec<String>,
}

/// A sealed config may be in the environment.
impl Drop for Plan {
    fn drop(&mut self) {
        for (_, value) in &mut self.env {
            value.zeroize();
        }
    }
}

impl Plan {
    pub(crate) fn new(
        spec: &MeasuredSpec,
        (program, arguments): (&str, &[String]),
        env: Vec<(String, String)>,
        user: User,
    ) -> Plan {
        let rules = &spec.security;
        let check = match &spec.health {
            Some(HealthRules {
                check: HealthCheck::Command(command),
                ..
            }) => command.clone(),
            _ => Vec::new(),
        };
        let User {
            uid,
            gid,
            groups,
            home: _,
        } = user;
        Plan {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            env,
            directory: spec.run.working_dir.clone(),
            uid,
            gid,
            groups,
            privileged: rules.privileged,
            capabilities: Set::of(&rules.capabilities).bits(),
            tracing: rules.capabilities.contains(&Capability::SysPtrace),
            resident: spec.run.restart != RestartPolicy::Never || !check.is_empty(),
            check,
        }
    }
}

/// What init reports: one of the first three, and after `Started` how the program ended. If the plan
/// makes it resident, it then waits for orders; each start has the same reports.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Event {
    #[n(0)]
    Started,
    /// The surroundings could not be built.
    #[n(1)]
    NoBoundary {
        #[n(0)]
        detail: String,
    },
    /// The program could not be run: an error number.
    #[n(2)]
    NotRun {
        #[n(0)]
        errno: i32,
    },
    #[n(3)]
    Exited {
        #[n(0)]
        status: WorkloadExit,
    },
    /// The program that checks the workload's health has ended.
    #[n(4)]
    Checked {
        #[n(0)]
        status: WorkloadExit,
        /// The last of what it wrote.
        #[n(1)]
        output: String,
    },
}

/// What the agent tells a resident init to do. Hanging up tells any init to end.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Order {
    /// Start the program once more; its end was reported.
    #[n(0)]
    Start,
    /// Check the workload's health.
    #[n(1)]
    Check,
    /// End the check.
    #[n(2)]
    EndCheck,
    /// End everything but init.
    #[n(3)]
    Kill,
}
