//! PID 1 of the workload's process namespace.
//!
//! A program that is PID 1 ignores the signals that it has no handler for (pid_namespaces(7)), and
//! inherits every orphan: neither is what programs expect. So init is this one, and the program its
//! child. When the agent hangs up, or the program has ended and is not to be restarted, init ends,
//! and the kernel then ends what is left of the namespace.

use super::capabilities::Set;
use super::enter::Boundaries;
use super::plan::{Event, MAX_LEN, Plan};
use super::stage::{Stage, not_run};
use super::supervise::{Supervisor, tell};
use super::{filter, root, sys};
use nix::sys::signal::SigSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use zeroize::Zeroizing;

/// How the agent calls itself when it is to be init. The kernel calls PID 1 by its path.
pub(crate) const ARGUMENT_ZERO: &str = "workload-init";

/// Standard input is the agent: the plan and orders come in, and events go out. The arguments are
/// the numbers of inherited descriptors: of the workload's control group and of its user namespace.
pub(crate) fn run(group: Option<&str>, users: Option<&str>) {
    let Ok(line) = io::stdin().as_fd().try_clone_to_owned() else {
        return;
    };
    let line = UnixStream::from(line);
    let event = match prepare(&line, group, users) {
        Ok((plan, boundaries)) => start(plan, boundaries),
        Err(error) => Err(Event::NoBoundary {
            detail: error.to_string(),
        }),
    };
    match event {
        Ok(supervisor) => {
            tell(&line, &Event::Started);
            supervisor.run(&line);
        }
        Err(event) => tell(&line, &event),
    }
}

fn prepare(
    line: &UnixStream,
    group: Option<&str>,
    users: Option<&str>,
) -> io::Result<(Plan, Boundaries)> {
    sys::forbid_dumps()?;
    std::fs::write("/proc/self/oom_score_adj", "-1000")?;
    let plan = read_plan(line)?;
    let path = |number| format!("/proc/self/fd/{number}");
    let group = group.ok_or_else(|| io::Error::other("no control group"))?;
    let group = File::options().write(true).open(path(group))?;
    let users = users.map(|number| File::open(path(number))).transpose()?;
    if users.is_none() != plan.privileged {
        return Err(io::Error::other("the plan does not fit the namespaces"));
    }
    root::enter(plan.privileged)?;
    let filters = if plan.privileged {
        Vec::new()
    } else {
        filter::filters(plan.tracing)?
    };
    Ok((
        plan,
        Boundaries {
            group,
            users,
            filters,
        },
    ))
}

/// Its length comes first, as a big-endian `u32`.
fn read_plan(mut line: &UnixStream) -> io::Result<Plan> {
    let mut length = [0; 4];
    line.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > MAX_LEN {
        return Err(io::Error::other("the plan is too long"));
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    line.read_exact(&mut bytes)?;
    minicbor::decode(&bytes).map_err(io::Error::other)
}

/// The program runs. What is needed to run it once more is kept only if that may happen.
fn start(plan: Plan, boundaries: Boundaries) -> Result<Supervisor, Event> {
    // From here on signals wait until they are asked for.
    SigSet::all()
        .thread_block()
        .map_err(|error| not_run(&error.into()))?;
    let (resident, privileged) = (plan.resident, plan.privileged);
    let stage = Stage::new(plan, boundaries).map_err(|error| not_run(&error))?;
    let program = stage.start()?;
    let needs = match (resident, privileged) {
        (false, _) => Some(Set::init()),
        (true, false) => Some(Set::resident_init()),
        (true, true) => None,
    };
    let prepared = stage.give_up(needs).and_then(|()| {
        let stage = resident.then_some(stage);
        Supervisor::new(program, stage)
    });
    prepared.map_err(|error| Event::NoBoundary {
        detail: error.to_string(),
    })
}
