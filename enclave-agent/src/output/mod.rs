//! The workload's output, on its way to the host: two pipes, and a task for each that cuts what
//! arrives into [`lines`] and puts those into the [`queue`].

mod lines;
mod queue;

pub(crate) use queue::{Batch, LogQueue};

use crate::error::BootError;
use crate::user::User;
use lines::LineCutter;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use wire::control::{AbortReason, OutputLine, OutputStream};

/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;
/// How long a line may be without its line feed before it is sent as it is: prompts have none.
const FLUSH: Duration = Duration::from_millis(250);

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

    /// Puts what arrives into `queue`, in the background, until the last process has closed the
    /// workload's ends.
    pub(crate) fn forward(self, queue: &Arc<LogQueue>) -> Result<(), BootError> {
        let failed = |error: io::Error| {
            BootError::of(
                AbortReason::NotExecutable,
                "cannot read the workload's output",
            )(error)
        };
        let stdout = receiver(self.stdout).map_err(failed)?;
        let stderr = receiver(self.stderr).map_err(failed)?;
        for (stream, pipe) in [
            (OutputStream::Stdout, stdout),
            (OutputStream::Stderr, stderr),
        ] {
            queue.begin();
            tokio::spawn(pump(stream, pipe, queue.clone()));
        }
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

async fn pump(stream: OutputStream, mut pipe: pipe::Receiver, queue: Arc<LogQueue>) {
    let mut cutter = LineCutter::new(stream);
    let mut piece = vec![0; PIECE];
    loop {
        let read = pipe.read(&mut piece);
        let n = if cutter.is_pending() {
            match timeout(FLUSH, read).await {
                Ok(read) => read.unwrap_or(0),
                Err(_) => {
                    push(&queue, cutter.flush()).await;
                    continue;
                }
            }
        } else {
            read.await.unwrap_or(0)
        };
        match piece.get(..n).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => push(&queue, cutter.push(bytes, now_ms())).await,
            None => break,
        }
    }
    push(&queue, cutter.flush()).await;
    queue.end();
}

async fn push(queue: &LogQueue, lines: impl IntoIterator<Item = OutputLine>) {
    for line in lines {
        queue.push(line).await;
    }
}

/// A line of the agent's own, among the workload's.
pub(crate) fn own_line(text: &str) -> OutputLine {
    OutputLine {
        stream: OutputStream::Stderr,
        time_ms: now_ms(),
        bytes: format!("enclave-agent: {text}").into_bytes(),
        partial: false,
    }
}

/// By the clock that the hypervisor's time keeps, see [`gates`](crate::gates).
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
