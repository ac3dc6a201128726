//! Runs the program of the measured spec as the user of the spec, inside the image's root; reaps
//! whatever dies.

use crate::config::Variables;
use crate::control::Report;
use crate::error::BootError;
use crate::network::Namespace;
use crate::output::Output;
use crate::rootfs::{self, ROOT, read_bounded};
use crate::sys;
use crate::user::{self, User};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chdir, chroot, setgid, setgroups, setsid, setuid};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::control::{AbortReason, WorkloadExit};
use wire::spec::{MeasuredSpec, Run};

/// What container engines set where an image does not.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest `/etc/passwd` or `/etc/group` of an image, in bytes.
const MAX_ACCOUNTS: usize = 1024 * 1024;

pub(crate) struct Workload {
    pid: Pid,
    stop_signal: u8,
}

/// Starts the program. Its output goes to `reports` if the spec lets it leave, and nowhere
/// otherwise.
pub(crate) fn start(
    spec: &MeasuredSpec,
    user: User,
    secrets: &Variables,
    network: Arc<Namespace>,
    reports: &mpsc::Sender<Report>,
) -> Result<Workload, BootError> {
    let Run {
        command: line,
        env,
        user: _,
        working_dir: _,
        stop_signal,
    } = &spec.run;
    let (program, arguments) = line
        .split_first()
        .ok_or_else(|| BootError::new(AbortReason::Spec, "the spec names no program"))?;

    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .env("HOME", &user.home)
        .envs(env.iter().filter_map(|entry| entry.split_once('=')))
        .envs(secrets.iter().map(|(name, value)| (name, value.as_str())))
        .stdin(Stdio::null());
    let output = if spec.logs.forward {
        Some(Output::of(&mut command)?)
    } else {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        None
    };
    let pid = spawn(command, &spec.run, user, network)?;
    if let Some(output) = output {
        output.forward(reports)?;
    }
    Ok(Workload {
        pid,
        stop_signal: stop_signal.number(),
    })
}

fn spawn(
    mut command: Command,
    run: &Run,
    user: User,
    network: Arc<Namespace>,
) -> Result<Pid, BootError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let directory = run.working_dir.clone();
    let spawned = sys::spawn_after(&mut command, move || enter(&directory, &user, &network));
    // The parent's ends of the pipes must close, or their readers never see an end.
    drop(command);
    let child = spawned.map_err(|error| explain(&program, &run.working_dir, &error))?;
    let pid = i32::try_from(child.id()).map_err(BootError::of(
        AbortReason::NotExecutable,
        "the process number",
    ))?;
    Ok(Pid::from_raw(pid))
}

/// The user of the spec, by the image's own files.
pub(crate) fn user(named: &str) -> Result<User, BootError> {
    user::resolve(named, &image_file("/etc/passwd"), &image_file("/etc/group"))
}

/// A file of the image; symbolic links are not followed, since they would be resolved outside of
/// the image's root.
fn image_file(path: &str) -> String {
    let inside = format!("{ROOT}{path}");
    let plain = rootfs::is_below_root(Path::new(path)) && Path::new(&inside).is_file();
    let bytes = if plain {
        read_bounded(&inside, MAX_ACCOUNTS).unwrap_or_default()
    } else {
        Vec::new()
    };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Errors of [`enter`] travel to the parent as one number; these two tell its steps apart from
/// those of exec.
const WORKING_DIR_FAILED: i32 = nix::errno::Errno::EUCLEAN as i32;
const IDENTITY_FAILED: i32 = nix::errno::Errno::EUSERS as i32;

/// Runs in the child: into its own network and the image's root, into the working directory, away from root.
fn enter(directory: &str, user: &User, network: &Namespace) -> io::Result<()> {
    let User {
        uid,
        gid,
        groups,
        home: _,
    } = user;
    setsid()?;
    setns(network, CloneFlags::CLONE_NEWNET)?;
    chroot(ROOT)?;
    // Made inside the root, so that links in its path stay inside too.
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory);
    made.and_then(|()| Ok(chdir(directory)?))
        .map_err(|_| io::Error::from_raw_os_error(WORKING_DIR_FAILED))?;
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let identity = setgroups(&groups)
        .and_then(|()| setgid(Gid::from_raw(*gid)))
        .and_then(|()| setuid(Uid::from_raw(*uid)));
    identity.map_err(|_| io::Error::from_raw_os_error(IDENTITY_FAILED))
}

fn explain(program: &str, working_dir: &str, error: &io::Error) -> BootError {
    let inside = Path::new(ROOT).join(program.trim_start_matches('/'));
    match error.raw_os_error() {
        Some(WORKING_DIR_FAILED) => BootError::new(
            AbortReason::WorkingDir,
            format!("the working directory '{working_dir}' cannot be created or entered"),
        ),
        Some(IDENTITY_FAILED) => {
            BootError::new(AbortReason::User, "the kernel refused the user or group")
        }
        _ if error.kind() == io::ErrorKind::NotFound
            && program.contains('/')
            && inside.exists() =>
        {
            BootError::new(
                AbortReason::NotExecutable,
                format!(
                    "'{program}' is in the image, but the interpreter or dynamic linker it needs is not"
                ),
            )
        }
        _ if error.kind() == io::ErrorKind::NotFound => BootError::new(
            AbortReason::NotFound,
            format!("'{program}' is not in the image"),
        ),
        _ => BootError::new(
            AbortReason::NotExecutable,
            format!("'{program}' cannot be started: {error}"),
        ),
    }
}

impl Workload {
    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw()).unwrap_or_default()
    }

    /// Collects every child that has ended; gives the workload's own end.
    pub(crate) fn reap(&mut self) -> Option<WorkloadExit> {
        let mut own = None;
        loop {
            match sys::reap() {
                Ok(Some((pid, exit))) if pid == self.pid.as_raw() => own = Some(exit),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(None) | Err(_) => return own,
            }
        }
    }

    /// Asks the workload to end, with the signal of the spec. One that has ended just now is asked
    /// in vain.
    pub(crate) fn stop(&self) {
        sys::signal(self.pid.as_raw(), self.stop_signal).ok();
    }

    /// Ends everything but PID 1. The one error is that there is nothing else (kill(2), ESRCH).
    pub(crate) fn kill_all() {
        kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
    }
}
