//! A driver's side of a split virtqueue in guest memory (virtio 1.2, 2.7), for tests.

use std::sync::atomic::Ordering;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// The rings of a queue, from its start.
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;

/// A queue, whose descriptors are used one after the other.
#[derive(Debug)]
pub(crate) struct Driver {
    memory: GuestMemoryMmap,
    start: u64,
    pub(crate) size: u16,
    descriptor: u16,
    offered: u16,
    seen: u16,
}

impl Driver {
    pub(crate) fn new(memory: &GuestMemoryMmap, start: u64, size: u16) -> Driver {
        Driver {
            memory: memory.clone(),
            start,
            size,
            descriptor: 0,
            offered: 0,
            seen: 0,
        }
    }

    /// Descriptor table, available ring, used ring.
    pub(crate) fn addresses(&self) -> (u64, u64, u64) {
        (self.start, self.start + AVAIL, self.start + USED)
    }

    /// Makes a chain available: addresses and lengths, which the device writes or reads.
    pub(crate) fn offer(&mut self, pieces: &[(u64, usize)], is_for_device_to_write: bool) {
        let head = self.descriptor;
        for (i, (address, len)) in pieces.iter().enumerate() {
            let next = (self.descriptor + 1) % self.size;
            let is_last = i + 1 == pieces.len();
            let flags =
                if is_last { 0 } else { NEXT } | if is_for_device_to_write { WRITE } else { 0 };
            let len = u32::try_from(*len).unwrap();
            let descriptor = RawDescriptor::from(Descriptor::new(*address, len, flags, next));
            self.write(self.start + 16 * u64::from(self.descriptor), descriptor);
            self.descriptor = next;
        }
        self.offer_head(head);
    }

    pub(crate) fn offer_head(&mut self, head: u16) {
        let slot = u64::from(self.offered % self.size);
        self.write(self.start + AVAIL + 4 + 2 * slot, head);
        self.offered = self.offered.wrapping_add(1);
        self.set_index(self.offered);
    }

    /// Writes the available ring's index, whatever was offered.
    pub(crate) fn set_index(&self, index: u16) {
        let address = GuestAddress(self.start + AVAIL + 2);
        self.memory
            .store(index, address, Ordering::Release)
            .unwrap();
    }

    /// Whether the device gave back another chain.
    pub(crate) fn has_used(&self) -> bool {
        let address = GuestAddress(self.start + USED + 2);
        let index: u16 = self.memory.load(address, Ordering::Acquire).unwrap();
        index != self.seen
    }

    /// The chain that the device gave back next: its head, and what was written.
    pub(crate) fn used(&mut self) -> Option<(u32, u32)> {
        if !self.has_used() {
            return None;
        }
        let at = |address| GuestAddress(self.start + USED + address);
        let slot = 8 * u64::from(self.seen % self.size);
        self.seen = self.seen.wrapping_add(1);
        let head = self.memory.read_obj(at(4 + slot)).unwrap();
        Some((head, self.memory.read_obj(at(8 + slot)).unwrap()))
    }

    /// The index at which the device wants to be notified (VIRTIO_F_EVENT_IDX).
    pub(crate) fn avail_event(&self) -> u16 {
        let offset = USED + 4 + 8 * u64::from(self.size);
        self.memory
            .read_obj(GuestAddress(self.start + offset))
            .unwrap()
    }

    /// The index after which this driver wants to be notified.
    pub(crate) fn set_used_event(&self, index: u16) {
        self.write(self.start + AVAIL + 4 + 2 * u64::from(self.size), index);
    }

    fn write<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }
}
