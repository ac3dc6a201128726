//! What the switch's thread is asked to do, and the way to ask it.

use crate::device::Device;
use crate::error::SwitchError;
use crate::muxer::Host;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use vmm_sys_util::eventfd::EventFd;

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
    pub(crate) commands: Sender<Command>,
    pub(crate) bell: Arc<EventFd>,
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
