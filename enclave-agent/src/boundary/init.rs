//! PID 1 of the workload's process namespace.
//!
//! A program that is PID 1 ignores the signals that it has no handler for (pid_namespaces(7)), and
//! inherits every orphan: neither is what programs expect. So init is this one, and the program its
//! child. It ends when the program does, and the kernel then ends what is left of the namespace.

use super::capabilities::Set;
use super::enter::{self, Boundaries};
use super::plan::{Event, MAX_LEN, Plan};
use super::{filter, root, sys};
use crate::sys::{reap, signal, spawn_after};
use nix::libc::SIGCHLD;
use nix::sys::signal::SigSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use wire::control::WorkloadExit;
use zeroize::Zeroizing;

/// How the agent calls itself when it is to be init. The kernel calls PID 1 by its path.
pub(crate) const ARGUMENT_ZERO: &str = "workload-init";

/// Standard input is the agent: the plan comes in, and events go out. The arguments are the numbers
/// of inherited descriptors: of the workload's control group and of its user namespace.
pub(crate) fn run(group: Option<&str>, users: Option<&str>) {
    let event = match prepare(group, users) {
        Ok((plan, boundaries)) => start(plan, boundaries),
        Err(error) => Err(Event::NoBoundary {
            detail: error.to_string(),
        }),
    };
    match event {
        Ok(program) => {
            tell(&Event::Started);
            tell(&Event::Exited {
                status: supervise(program),
            });
        }
        Err(event) => tell(&event),
    }
}

/// The agent is there as long as this process is: an error has no one else to go to.
fn tell(event: &Event) {
    let bytes = wire::frame::encode(event).unwrap_or_default();
    nix::unistd::write(io::stdin(), &bytes).ok();
}

fn prepare(group: Option<&str>, users: Option<&str>) -> io::Result<(Plan, Boundaries)> {
    sys::forbid_dumps()?;
    std::fs::write("/proc/self/oom_score_adj", "-1000")?;
    let mut bytes = Zeroizing::new(Vec::new());
    io::stdin().take(MAX_LEN).read_to_end(&mut bytes)?;
    let plan: Plan = minicbor::decode(&bytes).map_err(io::Error::other)?;
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

/// Gives the program's process number here.
fn start(plan: Plan, boundaries: Boundaries) -> Result<i32, Event> {
    let not_run = |error: io::Error| Event::NotRun {
        errno: error.raw_os_error().unwrap_or_default(),
    };
    // From here on signals wait until they are asked for.
    SigSet::all()
        .thread_block()
        .map_err(|error| not_run(error.into()))?;
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.arguments)
        .env_clear()
        .envs(plan.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    let child =
        spawn_after(&mut command, move || enter::enter(&plan, &boundaries)).map_err(not_run)?;
    let give_up = || {
        let nothing = File::options().write(true).open("/dev/null")?;
        nix::unistd::dup2_stdout(nothing.as_fd())?;
        nix::unistd::dup2_stderr(nothing.as_fd())?;
        Set::init().bound()?;
        Set::init().take()
    };
    give_up().map_err(|error| Event::NoBoundary {
        detail: error.to_string(),
    })?;
    i32::try_from(child.id()).map_err(|error| not_run(io::Error::other(error)))
}

/// Passes signals on and collects the dead, until the program is among them.
fn supervise(program: i32) -> WorkloadExit {
    loop {
        match sys::next_signal() {
            Ok(SIGCHLD) => {
                if let Some(status) = collect(program) {
                    return status;
                }
            }
            // One that has ended just now is signalled in vain.
            Ok(number) => drop(signal(program, u8::try_from(number).unwrap_or_default())),
            Err(_) => {}
        }
    }
}

/// Collects every child that has ended; gives the program's end.
fn collect(program: i32) -> Option<WorkloadExit> {
    let mut own = None;
    loop {
        match reap() {
            Ok(Some((pid, exit))) if pid == program => own = Some(exit),
            Ok(Some(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(None) | Err(_) => return own,
        }
    }
}
