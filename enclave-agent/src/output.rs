//! The workload's output, on its way to the host: two pipes, and a task for each.

use crate::control::Report;
use crate::error::BootError;
use crate::user::User;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use wire::control::{AbortReason, OutputStream};

/// How long output may wait for a slow host before it is dropped; the workload waits as long.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// The agent's ends of the workload's stdout and stderr.
pub(crate) struct Output {
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Output {
    /// New pipes, and the workload's ends of them: its stdout and stderr, which `owner` may open
    /// again by name (`/dev/stdout`).
    pub(crate) fn new(owner: &User) -> Result<(Output, (Stdio, Stdio)), BootError> {
        let failed = |error: io::Error| {
            BootError::of(AbortReason::NotExecutable, "cannot create pipes")(error)
        };
        let (stdout, stdout_in) = io::pipe().map_err(failed)?;
        let (stderr, stderr_in) = io::pipe().map_err(failed)?;
        for end in [&stdout_in, &stderr_in] {
            fchown(end, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        }
        Ok((
            Output { stdout, stderr },
            (stdout_in.into(), stderr_in.into()),
        ))
    }

    /// Sends what arrives to `reports`, in the background, until the workload closes its ends.
    pub(crate) fn forward(self, reports: &mpsc::Sender<Report>) -> Result<(), BootError> {
        let failed = |error: io::Error| {
            BootError::of(
                AbortReason::NotExecutable,
                "cannot read the workload's output",
            )(error)
        };
        let stdout = receiver(self.stdout).map_err(failed)?;
        let stderr = receiver(self.stderr).map_err(failed)?;
        tokio::spawn(pump(OutputStream::Stdout, stdout, reports.clone()));
        tokio::spawn(pump(OutputStream::Stderr, stderr, reports.clone()));
        Ok(())
    }
}

fn receiver(pipe: PipeReader) -> io::Result<pipe::Receiver> {
    let fd = OwnedFd::from(pipe);
    // The descriptor is blocking when made; tokio wants the other kind and checks that it is a
    // pipe.
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    pipe::Receiver::from_owned_fd(fd)
}

async fn pump(stream: OutputStream, mut pipe: pipe::Receiver, reports: mpsc::Sender<Report>) {
    let mut piece = vec![0; wire::MAX_WRITE / 2];
    let mut dropped: usize = 0;
    while let Ok(n) = pipe.read(&mut piece).await {
        let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        let mut message = Vec::new();
        if dropped > 0 {
            message.extend(format!("[{dropped} bytes of output were dropped here]\n").into_bytes());
        }
        message.extend_from_slice(bytes);
        let report = Report::Log(stream, message);
        match reports.send_timeout(report, LOG_PATIENCE).await {
            Ok(()) => dropped = 0,
            Err(_) => dropped += n,
        }
    }
}
