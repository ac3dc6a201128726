//! What runs behind the boundary: the workload's program, and the program that checks its health.
//! Both start from the same plan and give up the same.

use super::capabilities::Set;
use super::enter::{self, Boundaries};
use super::plan::{Event, Plan};
use crate::sys::spawn_after;
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Holds the program's environment, which a sealed config may be in, for as long as it exists.
pub(super) struct Stage {
    plan: Arc<Plan>,
    boundaries: Arc<Boundaries>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

pub(super) fn not_run(error: &io::Error) -> Event {
    Event::NotRun {
        errno: error.raw_os_error().unwrap_or_default(),
    }
}

impl Stage {
    /// With this process's own output as the program's.
    pub(super) fn new(plan: Plan, boundaries: Boundaries) -> io::Result<Stage> {
        Ok(Stage {
            plan: Arc::new(plan),
            boundaries: Arc::new(boundaries),
            stdout: io::stdout().as_fd().try_clone_to_owned()?,
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
        })
    }

    /// Gives the program's process number here.
    pub(super) fn start(&self) -> Result<i32, Event> {
        let started = || {
            let output = (self.stdout.try_clone()?, self.stderr.try_clone()?);
            self.spawn(&self.plan.program, &self.plan.arguments, output)
        };
        started().map_err(|error| not_run(&error))
    }

    /// Runs the program that checks the workload's health: its process number, and its output.
    pub(super) fn check(&self) -> io::Result<(i32, PipeReader)> {
        let (program, arguments) = self
            .plan
            .check
            .split_first()
            .ok_or(io::ErrorKind::NotFound)?;
        let (output, theirs) = io::pipe()?;
        let theirs = OwnedFd::from(theirs);
        let ends = (theirs.try_clone()?, theirs);
        Ok((self.spawn(program, arguments, ends)?, output))
    }

    fn spawn(
        &self,
        program: &str,
        arguments: &[String],
        (stdout, stderr): (OwnedFd, OwnedFd),
    ) -> io::Result<i32> {
        let (plan, boundaries) = (self.plan.clone(), self.boundaries.clone());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(self.plan.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        let child = spawn_after(&mut command, move || enter::enter(&plan, &boundaries))?;
        i32::try_from(child.id()).map_err(io::Error::other)
    }

    /// Gives up what init does not need once the program runs: its output, and all capabilities but
    /// these; `None` keeps them all.
    pub(super) fn give_up(&self, but: Option<Set>) -> io::Result<()> {
        let nothing = File::options().write(true).open("/dev/null")?;
        nix::unistd::dup2_stdout(nothing.as_fd())?;
        nix::unistd::dup2_stderr(nothing.as_fd())?;
        match but {
            Some(needed) => needed.bound().and_then(|()| needed.take()),
            // A privileged program has what init has.
            None => Ok(()),
        }
    }
}
