//! Runs the program of the measured spec as the user of the spec, behind the [`boundary`]; reaps
//! whatever dies.

use crate::boundary::{
    self, Boundary, Event, IDENTITY_FAILED, Init, Order, Plan, WORKING_DIR_FAILED,
};
use crate::config::Variables;
use crate::error::BootError;
use crate::output::{LogQueue, Output};
use crate::rootfs::{self, ROOT, read_bounded};
use crate::sys;
use crate::user::{self, User};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use wire::control::{AbortReason, WorkloadExit};
use wire::spec::{MeasuredSpec, Run};

/// What container engines set where an image does not.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest `/etc/passwd` or `/etc/group` of an image, in bytes.
const MAX_ACCOUNTS: usize = 1024 * 1024;

pub(crate) struct Workload {
    init: Init,
    stop_signal: u8,
}

/// Starts the program. Its output goes into the queue, or nowhere without one.
pub(crate) fn start(
    spec: &MeasuredSpec,
    user: User,
    secrets: &Variables,
    boundary: Boundary,
    logs: Option<&Arc<LogQueue>>,
) -> Result<Workload, BootError> {
    let Run {
        command: line,
        env: env_of_spec,
        user: _,
        working_dir: _,
        stop_signal,
        restart: _,
    } = &spec.run;
    let (program, arguments) = line
        .split_first()
        .ok_or_else(|| BootError::new(AbortReason::Spec, "the spec names no program"))?;

    let output = logs.map(|_| Output::new(&boundary.users().owner(&user)));
    let (output, ends) = match output.transpose()? {
        Some((output, ends)) => (Some(output), ends),
        None => (None, (Stdio::null(), Stdio::null())),
    };
    let mut env = vec![
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), user.home.clone()),
    ];
    let own = env_of_spec.iter().filter_map(|entry| entry.split_once('='));
    env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let secret = secrets.iter();
    env.extend(secret.map(|(name, value)| (name.clone(), value.as_str().to_owned())));
    let plan = Plan::new(spec, (program, arguments), env, user);
    let init = run(boundary, &plan, ends)?;
    if let (Some(output), Some(logs)) = (output, logs) {
        output.forward(logs)?;
    }
    Ok(Workload {
        init,
        stop_signal: stop_signal.number(),
    })
}

/// Init, once the program runs.
fn run(boundary: Boundary, plan: &Plan, output: (Stdio, Stdio)) -> Result<Init, BootError> {
    let failed = |detail: String| {
        let detail = format!("cannot build the boundary around the workload: {detail}");
        BootError::new(AbortReason::RootFs, detail)
    };
    let spawned = boundary::spawn(boundary, plan, output);
    let (init, event) = spawned.map_err(|error| failed(error.to_string()))?;
    match event {
        Event::Started => Ok(init),
        Event::NoBoundary { detail } => Err(failed(detail)),
        Event::NotRun { errno } => {
            let error = io::Error::from_raw_os_error(errno);
            Err(explain(&plan.program, &plan.directory, &error))
        }
        Event::Exited { .. } | Event::Checked { .. } => {
            Err(failed("init reports an end before a start".to_owned()))
        }
    }
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
        u32::try_from(self.init.pid()).unwrap_or_default()
    }

    /// Collects every child that has ended; gives init's own end, which is the last of the workload's
    /// processes.
    pub(crate) fn reap(&mut self) -> Option<WorkloadExit> {
        let mut own = None;
        loop {
            match sys::reap() {
                Ok(Some((pid, exit))) if pid == self.init.pid() => own = Some(exit),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(None) | Err(_) => return own,
            }
        }
    }

    /// What init reports next; never returns once it has hung up. Cancel-safe.
    pub(crate) async fn event(&mut self) -> Event {
        match self.init.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// What init, which is gone, reported before.
    pub(crate) async fn last_event(&mut self) -> Option<Event> {
        self.init.next().await
    }

    pub(crate) async fn order(&mut self, order: Order) {
        self.init.order(order).await;
    }

    /// Nothing is started any more: init ends, and all that is left of the workload.
    pub(crate) async fn leave(&mut self) {
        self.init.leave().await;
    }

    /// Asks the workload to end, with the signal of the spec. One that has ended just now is asked
    /// in vain.
    pub(crate) fn stop(&self) {
        sys::signal(self.init.pid(), self.stop_signal).ok();
    }

    /// Ends everything but PID 1. The one error is that there is nothing else (kill(2), ESRCH).
    pub(crate) fn kill_all() {
        kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
    }
}
