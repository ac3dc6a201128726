//! The vhost-user device that QEMU connects to, as `vhost-user-backend` wants it. It hands the
//! queues to the switch's thread and touches no packet itself.

use crate::device::{Device, Memory};
use crate::inbox::{Command, Inbox};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringMutex};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// Receive, send, events (virtio 1.2, 5.10.2). Nothing is ever sent on the last.
const QUEUES: usize = 3;
const RECEIVE: usize = 0;
const SEND: usize = 1;
const MAX_QUEUE_SIZE: usize = 1024;

/// One connection of QEMU's.
#[derive(Debug)]
pub(crate) struct Backend {
    cid: u32,
    inbox: Inbox,
    memory: Memory,
    /// The queues were handed to the switch.
    is_plugged: AtomicBool,
    /// The switch was told of the guest's news, and has not looked yet.
    is_woken: Arc<AtomicBool>,
    exit: Mutex<Option<(EventConsumer, EventNotifier)>>,
    worker: RawFd,
}

/// The descriptor that ends the crate's worker, of which `vhost-user-backend` 0.24.0 forgets to
/// close its end (event_loop.rs, `consumer.into_raw_fd()`).
#[derive(Debug)]
pub(crate) struct WorkerDescriptor(RawFd);

impl WorkerDescriptor {
    /// Closes it. The worker must have ended.
    pub(crate) fn close(self) {
        if let Err(error) = nix::unistd::close(self.0) {
            tracing::warn!(%error, "cannot close a descriptor");
        }
    }
}

impl Backend {
    pub(crate) fn new(cid: u32, inbox: Inbox, memory: Memory) -> io::Result<Backend> {
        let exit = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        Ok(Backend {
            cid,
            inbox,
            memory,
            is_plugged: AtomicBool::new(false),
            is_woken: Arc::default(),
            worker: exit.0.as_raw_fd(),
            exit: Mutex::new(Some(exit)),
        })
    }

    pub(crate) fn worker_descriptor(&self) -> WorkerDescriptor {
        WorkerDescriptor(self.worker)
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        // QEMU reads the CID out of the device's configuration.
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The queues know.
    }

    fn reset_device(&self) {
        self.inbox.send(Command::Stopped(self.cid));
    }

    /// `struct virtio_vsock_config`: the CID as a little-endian `u64`.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = u64::from(self.cid).to_le_bytes();
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let bytes = range.and_then(|(from, len)| config.get(from..from.checked_add(len)?));
        bytes.unwrap_or_default().to_vec()
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        // It is the one that the backend was made with.
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.lock().ok()?.take()
    }

    fn stop_vring(&self, _index: u32) -> io::Result<()> {
        self.inbox.send(Command::Stopped(self.cid));
        Ok(())
    }

    fn handle_event(
        &self,
        _event: u16,
        _events: EventSet,
        vrings: &[VringMutex],
        _thread: usize,
    ) -> io::Result<()> {
        if !self.is_plugged.swap(true, Ordering::Relaxed)
            && let (Some(receive), Some(send)) = (vrings.get(RECEIVE), vrings.get(SEND))
        {
            let device = Device::new(self.memory.clone(), receive.clone(), send.clone());
            self.inbox
                .send(Command::Plugged(self.cid, Box::new(device)));
        }
        // One message at a time: a guest that kicks without end fills no queue.
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.inbox
                .send(Command::Woken(self.cid, self.is_woken.clone()));
        }
        Ok(())
    }
}
