//! Runs the program of the measured spec as the user of the spec, inside the image's root; reaps whatever dies.

use crate::config::Variables;
use crate::control::Report;
use crate::failure::Fatal;
use crate::rootfs::{self, ROOT, read_bounded};
use crate::sys;
use crate::user::{self, User};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chdir, chroot, setgid, setgroups, setsid, setuid};
use std::fs::DirBuilder;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use wire::control::{Exit, AbortReason, Stream};
use wire::spec::{MeasuredSpec, Run};

/// What container engines set where an image does not.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MAX_ACCOUNTS: usize = 1024 * 1024;
/// How long output may wait for a slow host before it is dropped; the workload waits as long.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Workload {
    pid: Pid,
    stop_signal: u8,
}

/// Starts the program. Its output goes to `reports` if the spec lets it leave, and nowhere otherwise.
pub(crate) fn start(
    spec: &MeasuredSpec,
    user: User,
    secrets: &Variables,
    reports: &mpsc::Sender<Report>,
) -> Result<Workload, Fatal> {
    let Run {
        command: line,
        env,
        user: _,
        working_dir,
        stop_signal,
    } = &spec.run;
    let (program, arguments) = line
        .split_first()
        .ok_or_else(|| Fatal::new(AbortReason::Spec, "the spec names no program"))?;

    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .env("HOME", &user.home)
        .stdin(Stdio::null());
    command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
    command.envs(secrets.iter().map(|(name, value)| (name, value.as_str())));
    let output = match spec.logs.forward {
        true => Some(
            pipes(&mut command).map_err(Fatal::of(AbortReason::NotExecutable, "cannot make pipes"))?,
        ),
        false => {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            None
        }
    };
    let folder = working_dir.clone();
    let spawned = sys::spawn_after(&mut command, move || enter(&folder, &user));
    // The parent's ends of the pipes must close, or their readers never see an end.
    drop(command);
    let child = spawned.map_err(|error| explain(program, working_dir, &error))?;
    let pid = i32::try_from(child.id())
        .map_err(Fatal::of(AbortReason::NotExecutable, "the process number"))?;
    if let Some([stdout, stderr]) = output {
        forward_output(Stream::Stdout, stdout, reports.clone())?;
        forward_output(Stream::Stderr, stderr, reports.clone())?;
    }
    Ok(Workload {
        pid: Pid::from_raw(pid),
        stop_signal: stop_signal.number(),
    })
}

/// The user of the spec, by the image's own files.
pub(crate) fn user(named: &str) -> Result<User, Fatal> {
    user::resolve(named, &image_file("/etc/passwd"), &image_file("/etc/group"))
}

/// A file of the image; symbolic links are not followed, since they would be resolved outside of the image's root.
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

fn pipes(command: &mut Command) -> io::Result<[PipeReader; 2]> {
    let (stdout, stdout_in) = io::pipe()?;
    let (stderr, stderr_in) = io::pipe()?;
    command.stdout(stdout_in).stderr(stderr_in);
    Ok([stdout, stderr])
}

/// Errors of [`enter`] travel to the parent as one number; these two tell its steps apart from those of exec.
const WORKING_DIR_FAILED: i32 = nix::errno::Errno::EUCLEAN as i32;
const IDENTITY_FAILED: i32 = nix::errno::Errno::EUSERS as i32;

/// Runs in the child: into the image's root, into the working directory, away from root.
fn enter(folder: &str, user: &User) -> io::Result<()> {
    let User {
        uid,
        gid,
        groups,
        home: _,
    } = user;
    setsid()?;
    chroot(ROOT)?;
    // Made inside the root, so that links in its path stay inside too.
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.and_then(|()| Ok(chdir(folder)?))
        .map_err(|_| io::Error::from_raw_os_error(WORKING_DIR_FAILED))?;
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let identity = setgroups(&groups)
        .and_then(|()| setgid(Gid::from_raw(*gid)))
        .and_then(|()| setuid(Uid::from_raw(*uid)));
    identity.map_err(|_| io::Error::from_raw_os_error(IDENTITY_FAILED))
}

fn explain(program: &str, working_dir: &str, error: &io::Error) -> Fatal {
    let inside = Path::new(ROOT).join(program.trim_start_matches('/'));
    match error.raw_os_error() {
        Some(WORKING_DIR_FAILED) => Fatal::new(
            AbortReason::WorkingDir,
            format!("the working directory '{working_dir}' cannot be made or entered"),
        ),
        Some(IDENTITY_FAILED) => Fatal::new(AbortReason::User, "the kernel refused the user or group"),
        _ if error.kind() == io::ErrorKind::NotFound
            && program.contains('/')
            && inside.exists() =>
        {
            Fatal::new(
                AbortReason::NotExecutable,
                format!(
                    "'{program}' is in the image, but the interpreter or dynamic linker that it needs is not"
                ),
            )
        }
        _ if error.kind() == io::ErrorKind::NotFound => Fatal::new(
            AbortReason::NotFound,
            format!("'{program}' is not in the image"),
        ),
        _ => Fatal::new(
            AbortReason::NotExecutable,
            format!("'{program}' cannot be started: {error}"),
        ),
    }
}

fn forward_output(
    stream: Stream,
    pipe: PipeReader,
    reports: mpsc::Sender<Report>,
) -> Result<(), Fatal> {
    let fd = OwnedFd::from(pipe);
    let fail = Fatal::of(AbortReason::NotExecutable, "cannot read the workload's output");
    // The descriptor is blocking when made; tokio wants the other kind and checks that it is a pipe.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    let _ = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags));
    let mut pipe = pipe::Receiver::from_owned_fd(fd).map_err(fail)?;
    tokio::spawn(async move {
        let mut piece = vec![0; wire::MAX_WRITE / 2];
        let mut dropped: usize = 0;
        while let Ok(n) = pipe.read(&mut piece).await {
            let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else {
                return;
            };
            let mut message = Vec::new();
            if dropped > 0 {
                message.extend(
                    format!("[{dropped} bytes of output were dropped here]\n").into_bytes(),
                );
            }
            message.extend_from_slice(bytes);
            match reports
                .send_timeout(Report::Log(stream, message), LOG_PATIENCE)
                .await
            {
                Ok(()) => dropped = 0,
                Err(_) => dropped += n,
            }
        }
    });
    Ok(())
}

impl Workload {
    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw()).unwrap_or_default()
    }

    /// Collects every child that has ended; gives the workload's own end.
    pub(crate) fn reap(&mut self) -> Option<Exit> {
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

    /// Asks the workload to end, with the signal of the spec.
    pub(crate) fn stop(&self) {
        let _ = sys::signal(self.pid.as_raw(), self.stop_signal);
    }

    /// Ends everything but PID 1.
    pub(crate) fn kill_all() {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
}
