//! A guest's virtqueues: packets are read from descriptor chains of any shape, and written into
//! receive buffers of any size. The guest is foreign: every length it gives is checked, and a queue
//! that makes no sense is left alone until the driver starts again.

use crate::packet::{HEADER, Header, MAX_PAYLOAD};
use crate::port::{GuestPort, Taken};
use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;
use vhost_user_backend::{VringMutex, VringState, VringT as _};
use virtio_queue::{DescriptorChain, QueueOwnedT as _, QueueT as _, Reader, Writer};
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};

/// A guest's memory, which may change while it runs.
pub(crate) type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// The queues of one guest's vsock device.
pub(crate) struct Device {
    memory: Memory,
    /// Packets to the guest.
    receive: Ring,
    /// Packets of the guest.
    send: Ring,
}

struct Ring {
    vring: VringMutex,
    /// Chains were given back that the guest may have to be notified of.
    used: bool,
    /// The guest's indices made no sense.
    is_broken: bool,
}

impl Device {
    pub(crate) fn new(memory: Memory, receive: VringMutex, send: VringMutex) -> Device {
        Device {
            memory,
            receive: Ring::new(receive),
            send: Ring::new(send),
        }
    }
}

impl GuestPort for Device {
    fn is_ready(&mut self) -> bool {
        self.receive.is_ready() && self.send.is_ready()
    }

    fn take(&mut self) -> Taken {
        let memory = self.memory.memory();
        let Some(chain) = self.send.pop(&memory) else {
            return Taken::Nothing;
        };
        let head = chain.head_index();
        let packet = Reader::new(&*memory, chain).ok().and_then(read_packet);
        self.send.give_back(head, 0);
        packet.map_or(Taken::Malformed, |(header, data)| {
            Taken::Packet(header, data)
        })
    }

    fn room(&mut self) -> Option<usize> {
        let memory = self.memory.memory();
        loop {
            let chain = self.receive.pop(&memory)?;
            let head = chain.head_index();
            let len = Writer::new(&*memory, chain).map_or(0, |writer| writer.available_bytes());
            match len.checked_sub(HEADER) {
                Some(room @ 1..) => {
                    self.receive.put_back();
                    return Some(room.min(MAX_PAYLOAD));
                }
                // Nothing fits into it: the guest gets it back empty.
                _ => self.receive.give_back(head, 0),
            }
        }
    }

    fn give(&mut self, header: &Header, data: &[u8]) {
        let memory = self.memory.memory();
        let Some(chain) = self.receive.pop(&memory) else {
            return;
        };
        let head = chain.head_index();
        let written = Writer::new(&*memory, chain).ok().and_then(|mut writer| {
            writer.write_all(&header.to_bytes()).ok()?;
            writer.write_all(data).ok()
        });
        let len = written.and(u32::try_from(HEADER + data.len()).ok());
        if len.is_none() {
            tracing::debug!("a guest changed a receive buffer while it was filled");
        }
        self.receive.give_back(head, len.unwrap_or(0));
    }

    fn settle(&mut self, wants_room: bool) -> bool {
        self.receive.notify();
        self.send.notify();
        let more_packets = self.send.expect_more();
        let more_room = wants_room && self.receive.expect_more();
        more_packets || more_room
    }
}

/// The header and as many bytes as it says, over all descriptors.
fn read_packet(mut reader: Reader<'_>) -> Option<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER];
    reader.read_exact(&mut bytes).ok()?;
    let header = Header::parse(&bytes);
    let len = usize::try_from(header.len).ok()?;
    if len > MAX_PAYLOAD || len > reader.available_bytes() {
        return None;
    }
    let mut data = vec![0; len];
    reader.read_exact(&mut data).ok()?;
    Some((header, data))
}

impl Ring {
    fn new(vring: VringMutex) -> Ring {
        Ring {
            vring,
            used: false,
            is_broken: false,
        }
    }

    fn is_ready(&mut self) -> bool {
        let vring = self.vring.get_ref();
        let is_ready = runs(&vring);
        // A driver that starts again gets another chance.
        self.is_broken &= is_ready;
        is_ready && !self.is_broken
    }

    /// The next chain that the guest made available.
    fn pop(&mut self, memory: &GuestMemoryLoadGuard<GuestMemoryMmap>) -> Option<Chain> {
        if !self.is_ready() {
            return None;
        }
        let mut vring = self.vring.get_mut();
        let queue = vring.get_queue_mut();
        // The index first: what is there by it can be popped, unless the ring cannot be read.
        let available = queue.avail_idx(&**memory, Ordering::Acquire).ok();
        if available.is_some_and(|index| index.0 == queue.next_avail()) {
            return None;
        }
        let chain = queue
            .iter(memory.clone())
            .ok()
            .and_then(|mut chains| chains.next());
        drop(vring);
        if chain.is_none() {
            self.is_broken = true;
            tracing::debug!("a guest's queue makes no sense");
        }
        chain
    }

    /// The chain that was popped last is available again.
    fn put_back(&mut self) {
        self.vring
            .get_mut()
            .get_queue_mut()
            .go_to_previous_position();
    }

    fn give_back(&mut self, head: u16, len: u32) {
        if let Err(error) = self.vring.add_used(head, len) {
            self.is_broken = true;
            tracing::debug!(%error, "a guest's queue makes no sense");
        }
        self.used = true;
    }

    /// Tells the guest of what was given back, unless it does not want to know.
    fn notify(&mut self) {
        if !std::mem::take(&mut self.used) {
            return;
        }
        // In doubt it is told: a notification too many costs little, one too few stalls the guest.
        if self.vring.needs_notification().unwrap_or(true)
            && let Err(error) = self.vring.signal_used_queue()
        {
            tracing::warn!(%error, "a guest cannot be notified");
        }
    }

    /// Asks the guest for a notification of the next chain. True if one is there already.
    fn expect_more(&mut self) -> bool {
        self.is_ready() && self.vring.enable_notification().unwrap_or(false)
    }
}

/// Whether the frontend has started and enabled the queue.
fn runs(vring: &VringState) -> bool {
    vring.is_enabled() && vring.get_queue().ready()
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
    }
}
