//! Programs that end with this one.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

type Order = (Command, Sender<io::Result<Child>>);

/// The thread that starts all processes, since they end with the thread that starts them: it lives
/// as long as this program.
static NURSERY: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
    let (sender, orders) = channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in orders {
            // Who gave the order waits for this.
            reply.send(command.spawn()).ok();
        }
    });
    Mutex::new(sender)
});

/// A command whose process the kernel kills when this program ends (setpriv(1), prctl(2)).
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null());
    command
}

/// A process; dropping it kills it, and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: Command) -> io::Result<Process> {
        let (reply, child) = channel();
        let nursery = NURSERY.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = nursery.send((command, reply));
        drop(nursery);
        sent.map_err(io::Error::other)?;
        Ok(Process(child.recv().map_err(io::Error::other)??))
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.0.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // That neither works means that it is gone.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
