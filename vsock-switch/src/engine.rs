//! The switch's thread: it waits for events and commands, and gives each guest its turn.

use crate::device::Device;
use crate::error::SwitchError;
use crate::inbox::{Command, Inbox};
use crate::muxer::Muxer;
use crate::poller::Poller;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The token of the inbox's descriptor.
const INBOX: u64 = 0;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(crate) fn start() -> io::Result<Engine> {
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
        Ok(Engine { inbox, thread })
    }
}

impl Drop for Engine {
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
