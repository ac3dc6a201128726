//! The last steps of the workload's first process before it becomes the program: each gives
//! something up, and none can be undone.

use super::capabilities::Set;
use super::plan::Plan;
use super::sys;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, setgid, setgroups, setresgid, setresuid, setsid, setuid};
use seccompiler::BpfProgram;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;

/// Errors travel to the agent as one number; these two tell their steps apart from those of exec.
pub(crate) const WORKING_DIR_FAILED: i32 = Errno::EUCLEAN as i32;
pub(crate) const IDENTITY_FAILED: i32 = Errno::EUSERS as i32;

/// The workload's limits, its users and the calls it cannot make; nothing of the last two if it is
/// privileged.
pub(super) struct Boundaries {
    pub(super) group: File,
    pub(super) users: Option<File>,
    pub(super) filters: Vec<BpfProgram>,
}

pub(super) fn enter(plan: &Plan, boundaries: &Boundaries) -> io::Result<()> {
    let Boundaries {
        group,
        users,
        filters,
    } = boundaries;
    nix::unistd::write(group, b"0")?;
    setsid()?;
    // Init's mask would be inherited (signal(7)).
    SigSet::all().thread_unblock()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // Init is spared when memory runs out; the workload is not.
    std::fs::write("/proc/self/oom_score_adj", "0")?;
    if let Some(users) = users {
        setns(users, CloneFlags::CLONE_NEWUSER)?;
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
    }
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let failed = |_| io::Error::from_raw_os_error(WORKING_DIR_FAILED);
    working_dir(&plan.directory).map_err(failed)?;
    let capabilities = match plan.uid {
        _ if plan.privileged => None,
        0 => Some(Set::from_bits(plan.capabilities)),
        _ => Some(Set::NONE),
    };
    if let Some(capabilities) = capabilities {
        capabilities.bound()?;
    }
    identity(plan).map_err(|_| io::Error::from_raw_os_error(IDENTITY_FAILED))?;
    if let Some(capabilities) = capabilities {
        capabilities.take()?;
    }
    sys::close_on_exec_from(3)?;
    for filter in filters {
        // Sets no_new_privs too: no program gains rights by being run.
        seccompiler::apply_filter(filter).map_err(io::Error::other)?;
    }
    Ok(())
}

fn working_dir(directory: &str) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    Ok(chdir(directory)?)
}

fn identity(plan: &Plan) -> nix::Result<()> {
    let groups: Vec<Gid> = plan.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setgid(Gid::from_raw(plan.gid))?;
    setuid(Uid::from_raw(plan.uid))
}
