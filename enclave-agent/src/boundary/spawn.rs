//! Starts init in the workload's namespaces, and listens to it.

use super::plan::{Event, MAX_LEN, Order, Plan};
use super::{Boundary, init, sys};
use crate::sys::spawn_after;
use nix::sched::{CloneFlags, setns, unshare};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use wire::frame::Reader;
use zeroize::Zeroizing;

/// How long init may take to start the program.
const PATIENCE: Duration = Duration::from_secs(60);

/// The agent's end of the line to init.
pub(crate) struct Init {
    pid: i32,
    /// Until init has hung up.
    line: Option<tokio::net::UnixStream>,
    reader: Reader,
}

/// Starts init, whose output the workload's is, and hands it the plan. Blocks until the program runs
/// or cannot.
pub(crate) fn spawn(
    boundary: Boundary,
    plan: &Plan,
    output: (Stdio, Stdio),
) -> io::Result<(Init, Event)> {
    let (mut line, theirs) = UnixStream::pair()?;
    line.set_read_timeout(Some(PATIENCE))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(init::ARGUMENT_ZERO)
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(output.0)
        .stderr(output.1);
    command.arg(boundary.group.inside.as_raw_fd().to_string());
    if let Some(users) = boundary.users.namespace() {
        command.arg(users.as_raw_fd().to_string());
    }
    let child = spawn_after(&mut command, move || enter(&boundary))?;
    // The child of this name has ended already and is collected with all others.
    drop((child, command));
    let mut number = [0; 4];
    line.read_exact(&mut number)?;
    let pid = i32::from_ne_bytes(number);
    let bytes = Zeroizing::new(minicbor::to_vec(plan).map_err(io::Error::other)?);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if bytes.len() > MAX_LEN {
        return Err(io::Error::other("the plan is too long"));
    }
    line.write_all(&length.to_be_bytes())?;
    line.write_all(&bytes)?;
    let mut reader = Reader::default();
    let event = first(&mut line, &mut reader)?;
    line.set_nonblocking(true)?;
    let line = Some(tokio::net::UnixStream::from_std(line)?);
    Ok((Init { pid, line, reader }, event))
}

/// The first event; blocks until it is there.
fn first(line: &mut UnixStream, reader: &mut Reader) -> io::Result<Event> {
    let mut piece = [0; 512];
    loop {
        if let Some(event) = reader.message().map_err(io::Error::other)? {
            return Ok(event);
        }
        let n = match line.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        match piece.get(..n).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => reader.push(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Runs in the child, whose standard input is the line. Namespaces of processes begin with the next
/// child, so this one has init as its child, says which process that is, and ends.
fn enter(boundary: &Boundary) -> io::Result<()> {
    let Boundary {
        users,
        network,
        group,
    } = boundary;
    setns(network.as_ref(), CloneFlags::CLONE_NEWNET)?;
    // The namespace of control groups begins at the group that its first process is in. Init itself
    // is not limited: when the workload has used up its memory, someone must be able to say so.
    nix::unistd::write(&group.inside, b"0")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    nix::unistd::write(&group.outside, b"0")?;
    sys::keep_on_exec(&group.inside)?;
    if let Some(users) = users.namespace() {
        sys::keep_on_exec(users)?;
    }
    sys::go_on_as_child()
}

impl Init {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The next event; `None` once init has hung up. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let event = match &mut self.line {
            Some(line) => wire::io::read(line, &mut self.reader).await.ok().flatten(),
            None => None,
        };
        if event.is_none() {
            self.line = None;
        }
        event
    }

    /// Orders are small: they never wait for init. One that has ended needs none.
    pub(crate) async fn order(&mut self, order: Order) {
        if let Some(line) = &mut self.line {
            wire::io::write(line, &order).await.ok();
        }
    }

    /// Hangs up: init ends, and everything in its namespace.
    pub(crate) async fn leave(&mut self) {
        if let Some(line) = &mut self.line {
            line.shutdown().await.ok();
        }
    }
}
