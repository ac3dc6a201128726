//! The switch's thread, and the handle that guests are attached by.

use crate::device::Device;
use crate::error::SwitchError;
use crate::guest::Guest;
use crate::muxer::{HostSide as Host, Muxer};
use crate::poller::Poller;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The token of the inbox's descriptor.
const INBOX: u64 = 0;

/// One guest's place in the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// The guest's CID, 3 at least. No other attached guest may have it.
    pub cid: u32,
    /// The vhost-user socket that QEMU connects to. It is made, and must not exist.
    pub socket: PathBuf,
    /// The host, for a guest that may connect to it. Without one there are only siblings.
    pub host: Option<HostSide>,
}

/// The host, as one guest reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSide {
    /// What the guest calls the host, beside 0 and 2. Connections of the host come from it.
    pub cid: u32,
    /// The unix socket that connects in: `CONNECT <port>\n` is answered with `OK <port>\n`, or with
    /// a close. It is made, and must not exist. What the guest connects to on port `P` is the socket
    /// `<path>_P`, at which somebody else listens.
    pub path: PathBuf,
}

/// Switches vsock connections between guests, and to unix sockets of the host. Guests come and go
/// while others run. The thread ends when the switch and all its guests are dropped.
#[derive(Debug, Clone)]
pub struct Switch(Arc<Running>);

/// The thread.
#[derive(Debug)]
struct Running {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Attach(u32, Option<Host>, Sender<Result<(), SwitchError>>),
    Detach(u32, Sender<()>),
    /// QEMU's device has its queues.
    Plugged(u32, Box<Device>),
    /// QEMU is gone.
    Unplugged(u32),
    /// The guest's driver does not use the device any more.
    Stopped(u32),
    /// The guest has news. The flag is cleared before they are looked at.
    Woken(u32, Arc<AtomicBool>),
    End,
}

/// Where commands go. Sending never blocks.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
}

impl Inbox {
    /// A thread that has ended needs no commands.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok()
            && let Err(error) = self.bell.write(1)
        {
            tracing::error!(%error, "the vsock switch cannot be woken");
        }
    }
}

impl Switch {
    /// Starts a switch without guests.
    ///
    /// # Errors
    /// [`SwitchError::Start`] if the system refuses the thread or a descriptor.
    pub fn new() -> Result<Switch, SwitchError> {
        Switch::start().map_err(SwitchError::Start)
    }

    fn start() -> io::Result<Switch> {
        let bell = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let poller = Poller::new()?;
        poller.add(&*bell, INBOX)?;
        let (commands, received) = channel();
        let inbox = Inbox {
            commands,
            bell: bell.clone(),
        };
        let work = Loop {
            muxer: Muxer::new(poller, INBOX),
            commands: received,
            bell,
        };
        let thread = std::thread::Builder::new().name("vsock-switch".to_owned());
        let thread = Some(thread.spawn(move || work.run())?);
        Ok(Switch(Arc::new(Running { inbox, thread })))
    }

    /// Gives a guest its place. When this returns, its sockets are there and QEMU may connect. Blocks
    /// for as long as the switch's thread is busy, which is never long.
    ///
    /// # Errors
    /// A CID that is reserved or taken, a socket that cannot be made, or a thread that the system
    /// refuses. Nothing is left behind then.
    pub fn attach(&self, config: GuestConfig) -> Result<Guest, SwitchError> {
        Guest::attach(self.clone(), config)
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.0.inbox
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inbox.send(Command::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the vsock switch panicked");
        }
    }
}

/// What the thread owns.
struct Loop {
    muxer: Muxer<Device>,
    commands: Receiver<Command>,
    bell: Arc<EventFd>,
}

impl Loop {
    fn run(mut self) {
        let mut is_busy = false;
        while let Some(now) = self.poll(is_busy) {
            if !self.obey(now) {
                return;
            }
            self.muxer.tick(now);
            is_busy = self.muxer.turn(now);
        }
    }

    /// Waits for news and hands them out. None if that is impossible for good.
    fn poll(&mut self, is_busy: bool) -> Option<Instant> {
        let timeout = if is_busy {
            Some(Duration::ZERO)
        } else {
            self.muxer.idle(Instant::now())
        };
        match self.muxer.wait(timeout) {
            Ok(news) => {
                let now = Instant::now();
                for ready in news.into_iter().filter(|ready| ready.token != INBOX) {
                    self.muxer.ready(ready, now);
                }
                Some(now)
            }
            Err(error) => {
                tracing::error!(%error, "the vsock switch cannot wait for events");
                None
            }
        }
    }

    /// False at the end.
    fn obey(&mut self, now: Instant) -> bool {
        // Read before the commands: one that is sent now rings again. Nothing to read is no error.
        self.bell.read().ok();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach(cid, host, reply) => {
                    let attached = match self.muxer.attach(cid, host) {
                        Ok(true) => Ok(()),
                        Ok(false) => Err(SwitchError::CidTaken(cid)),
                        Err(error) => Err(SwitchError::Start(error)),
                    };
                    // One who does not wait for it any more needs no answer.
                    reply.send(attached).ok();
                }
                Command::Detach(cid, reply) => {
                    self.muxer.detach(cid, now);
                    reply.send(()).ok();
                }
                Command::Plugged(cid, device) => self.muxer.plug(cid, *device),
                Command::Unplugged(cid) => self.muxer.unplug(cid, now),
                Command::Stopped(cid) => self.muxer.forget_connections(cid, now),
                Command::Woken(cid, flag) => {
                    flag.store(false, Ordering::Release);
                    self.muxer.wake(cid);
                }
                Command::End => return false,
            }
        }
        true
    }
}
