//! Init's loop: passes signals on, collects the dead, and does what the agent orders.

use super::plan::{Event, Order};
use super::stage::{Stage, not_run};
use crate::sys::{reap, signal};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::SIGCHLD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use wire::control::WorkloadExit;
use wire::frame::Reader;

/// How much of a check's output is kept, in bytes: the last of it.
const MAX_OUTPUT: usize = 400;

pub(super) struct Supervisor {
    signals: SignalFd,
    orders: Reader,
    /// To start something once more; absent if nothing ever is.
    stage: Option<Stage>,
    program: Option<i32>,
    /// How the program ended, until its last process is gone.
    exit: Option<WorkloadExit>,
    check: Option<Check>,
}

/// A check under way.
struct Check {
    pid: i32,
    /// Until its end.
    output: Option<PipeReader>,
    tail: Vec<u8>,
}

/// The agent is there as long as this process is: an error has no one else to go to.
pub(super) fn tell(mut line: &UnixStream, event: &Event) {
    let bytes = wire::frame::encode(event).unwrap_or_default();
    line.write_all(&bytes).ok();
}

/// Whether init goes on.
enum Flow {
    On,
    End,
}

impl Supervisor {
    /// Signals are blocked already.
    pub(super) fn new(program: i32, stage: Option<Stage>) -> io::Result<Supervisor> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Supervisor {
            signals: SignalFd::with_flags(&SigSet::all(), flags)?,
            orders: Reader::default(),
            stage,
            program: Some(program),
            exit: None,
            check: None,
        })
    }

    /// Until the program has ended for good, or the agent is gone.
    pub(super) fn run(mut self, line: &UnixStream) {
        while let Ok(Flow::On) = self.turn(line) {}
    }

    fn turn(&mut self, line: &UnixStream) -> io::Result<Flow> {
        let [signals, orders] = self.wait(line)?;
        if let Some(check) = &mut self.check {
            check.read();
        }
        // Signals first: an order is obeyed in view of what has ended before it.
        if signals && let Flow::End = self.take_signals(line)? {
            return Ok(Flow::End);
        }
        if orders {
            self.take_orders(line)
        } else {
            Ok(Flow::On)
        }
    }

    /// Waits for signals, orders, or output of a check; says which of the first two are there.
    fn wait(&self, line: &UnixStream) -> io::Result<[bool; 2]> {
        let mut wanted = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(line.as_fd(), PollFlags::POLLIN),
        ];
        let output = self.check.iter().filter_map(|check| check.output.as_ref());
        wanted.extend(output.map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
        match poll(&mut wanted, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok([false, false]),
            polled => polled?,
        };
        let is_there = |index| wanted.get(index).and_then(PollFd::any).unwrap_or_default();
        Ok([is_there(0), is_there(1)])
    }

    fn take_signals(&mut self, line: &UnixStream) -> io::Result<Flow> {
        while let Some(taken) = self.signals.read_signal()? {
            match i32::try_from(taken.ssi_signo) {
                Ok(SIGCHLD) | Err(_) => {}
                // One that has ended just now is signalled in vain.
                Ok(number) => {
                    let number = u8::try_from(number).unwrap_or_default();
                    self.program.map(|program| signal(program, number).ok());
                }
            }
        }
        Ok(self.collect(line))
    }

    /// Collects every child that has ended. The program's end is reported when nothing is left that
    /// it started; if nothing is started once more, init's own end sees to that.
    fn collect(&mut self, line: &UnixStream) -> Flow {
        loop {
            match reap() {
                Ok(Some((pid, exit))) => self.ended(line, pid, exit),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(None) if self.stage.is_some() => return Flow::On,
                Ok(None) | Err(_) => break,
            }
        }
        match self.exit.take() {
            Some(status) => tell(line, &Event::Exited { status }),
            None => return Flow::On,
        }
        if self.stage.is_some() {
            Flow::On
        } else {
            Flow::End
        }
    }

    fn ended(&mut self, line: &UnixStream, pid: i32, exit: WorkloadExit) {
        if self.program == Some(pid) {
            self.program = None;
            self.exit = Some(exit);
            self.check = None;
            if self.stage.is_some() {
                kill_all();
            }
        } else if let Some(mut check) = self.check.take_if(|check| check.pid == pid) {
            check.kill();
            check.read();
            let output = String::from_utf8_lossy(&check.tail).into_owned();
            let status = exit;
            tell(line, &Event::Checked { status, output });
        }
    }

    fn take_orders(&mut self, mut line: &UnixStream) -> io::Result<Flow> {
        let mut piece = [0; 64];
        let n = line.read(&mut piece)?;
        let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else {
            return Ok(Flow::End);
        };
        self.orders.push(bytes);
        while let Some(order) = self.orders.message().map_err(io::Error::other)? {
            self.obey(order, line);
        }
        Ok(Flow::On)
    }

    fn obey(&mut self, order: Order, line: &UnixStream) {
        let Some(stage) = &self.stage else { return };
        match order {
            Order::Start if self.program.is_none() => match stage.start() {
                Ok(program) => {
                    self.program = Some(program);
                    tell(line, &Event::Started);
                }
                Err(event) => tell(line, &event),
            },
            Order::Check if self.program.is_some() && self.check.is_none() => {
                match stage.check().and_then(Check::new) {
                    Ok(check) => self.check = Some(check),
                    Err(error) => tell(line, &not_checked(&error)),
                }
            }
            Order::EndCheck => {
                if let Some(check) = &self.check {
                    check.kill();
                }
            }
            Order::Kill => kill_all(),
            // For a program that has ended in the meantime.
            Order::Start | Order::Check => {}
        }
    }
}

/// As a shell says it of a program that it cannot run.
fn not_checked(error: &io::Error) -> Event {
    let code = match not_run(error) {
        Event::NotRun { errno } if errno == nix::libc::ENOENT => 127,
        _ => 126,
    };
    Event::Checked {
        status: WorkloadExit::Code(code),
        output: error.to_string(),
    }
}

/// Everything in the namespace but this process (kill(2)). The one error is that there is nothing.
fn kill_all() {
    kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
}

impl Check {
    fn new((pid, output): (i32, PipeReader)) -> io::Result<Check> {
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Check {
            pid,
            output: Some(output),
            tail: Vec::new(),
        })
    }

    /// What is there of its output.
    fn read(&mut self) {
        let mut piece = [0; 4096];
        // As much as a pipe holds and no more: one that writes without end must not keep init.
        for _ in 0..16 {
            let Some(output) = &mut self.output else {
                return;
            };
            match output.read(&mut piece) {
                Ok(n) if n > 0 => {
                    self.tail
                        .extend_from_slice(piece.get(..n).unwrap_or_default());
                    let surplus = self.tail.len().saturating_sub(MAX_OUTPUT);
                    self.tail.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.output = None,
            }
        }
    }

    /// What it left running ends with it.
    fn kill(&self) {
        killpg(Pid::from_raw(self.pid), Signal::SIGKILL).ok();
    }
}
