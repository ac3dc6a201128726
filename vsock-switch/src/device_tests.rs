//! Virtqueues in memory: what Linux does with them, and what no driver should.

use crate::device::{Device, Memory};
use crate::driver::Driver;
use crate::packet::{HEADER, Header, MAX_PAYLOAD, Op, STREAM};
use crate::port::{GuestPort as _, Taken};
use proptest::prelude::*;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use vhost_user_backend::{VringMutex, VringT as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 64;
const RECEIVE: u64 = 0x1_0000;
const SEND: u64 = 0x2_0000;
const BUFFERS: u64 = 0x10_0000;
const END: u64 = 0x40_0000;

struct Guest {
    memory: GuestMemoryMmap,
    device: Device,
    receive: Driver,
    send: Driver,
    vrings: [VringMutex; 2],
    /// What the device notifies the guest with: 8 bytes each time.
    calls: UnixStream,
}

fn guest() -> Guest {
    let ranges = [(GuestAddress(0), usize::try_from(END).unwrap())];
    let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    let atomic = Memory::new(memory.clone());
    let (calls, call) = UnixStream::pair().unwrap();
    calls.set_nonblocking(true).unwrap();
    let drivers = [RECEIVE, SEND].map(|start| Driver::new(&memory, start, SIZE));
    let vrings = [0, 1].map(|i: usize| {
        let vring = VringMutex::new(atomic.clone(), SIZE).unwrap();
        let (descriptors, available, used) = drivers[i].addresses();
        vring.set_queue_info(descriptors, available, used).unwrap();
        vring.set_queue_event_idx(true);
        vring.set_queue_ready(true);
        vring.set_enabled(true);
        vring.set_call(Some(OwnedFd::from(call.try_clone().unwrap()).into()));
        vring
    });
    let [receive, send] = drivers;
    let device = Device::new(atomic, vrings[0].clone(), vrings[1].clone());
    Guest {
        memory,
        device,
        receive,
        send,
        vrings,
        calls,
    }
}

fn header(len: usize) -> Header {
    Header {
        dst_cid: 3,
        len: u32::try_from(len).unwrap(),
        kind: STREAM,
        op: Op::Data.number(),
        ..Header::default()
    }
}

impl Guest {
    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    fn calls(&mut self) -> usize {
        let mut bytes = [0; 1024];
        self.calls.read(&mut bytes).unwrap_or(0) / 8
    }
}

/// Linux 6.12 puts the header into one descriptor and large data into several.
#[test]
fn a_packet_is_read_whatever_its_pieces() {
    let data: Vec<u8> = (0..=250).cycle().take(60_000).collect();
    let mut bytes = header(data.len()).to_bytes();
    bytes.extend(&data);
    for cuts in [
        vec![],
        vec![44],
        vec![10],
        vec![44, 4096, 9000],
        vec![1, 2, 43, 45],
    ] {
        let mut guest = guest();
        guest.write(BUFFERS, &bytes);
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            pieces.push((BUFFERS + u64::try_from(start).unwrap(), cut - start));
            start = cut;
        }
        guest.send.offer(&pieces, false);
        let Taken::Packet(found, found_data) = guest.device.take() else {
            panic!("no packet of {} pieces", pieces.len());
        };
        assert_eq!(found, header(data.len()));
        assert!(found_data == data);
        assert_eq!(guest.send.used(), Some((0, 0)));
        assert!(matches!(guest.device.take(), Taken::Nothing));
    }
}

#[test]
fn what_is_no_packet_is_given_back() {
    let mut guest = guest();
    guest.write(BUFFERS, &header(100).to_bytes());
    guest.write(BUFFERS + 0x2000, &header(MAX_PAYLOAD + 1).to_bytes());
    let short = [(BUFFERS, HEADER - 1)];
    let lies = [(BUFFERS, HEADER + 99)];
    let long = [(BUFFERS + 0x2000, HEADER + MAX_PAYLOAD + 1)];
    let nowhere = [(END, 100)];
    let across = [(END - 10, 100)];
    for pieces in [short, lies, long, nowhere, across] {
        guest.send.offer(&pieces, false);
        assert!(
            matches!(guest.device.take(), Taken::Malformed),
            "{pieces:?}"
        );
        assert!(guest.send.used().is_some());
    }
    // The guest's next packet is as good as ever.
    guest.send.offer(&[(BUFFERS, HEADER + 100)], false);
    assert!(matches!(guest.device.take(), Taken::Packet(..)));
    assert!(guest.device.is_ready());
}

#[test]
fn a_chain_without_end_ends() {
    let mut guest = guest();
    // All descriptors, the last one leads to the first.
    let pieces = vec![(BUFFERS, 8); usize::from(SIZE)];
    guest.send.offer(&pieces, false);
    let last = SEND + 16 * u64::from(SIZE - 1);
    guest.write(last + 12, &[1, 0, 0, 0]);
    assert!(!matches!(guest.device.take(), Taken::Nothing));
    assert!(matches!(guest.device.take(), Taken::Nothing));
}

#[test]
fn a_packet_fills_the_buffer_that_was_measured() {
    let mut guest = guest();
    assert_eq!(guest.device.room(), None);
    guest
        .receive
        .offer(&[(BUFFERS, 100), (BUFFERS + 0x1000, 1000)], true);
    assert_eq!(guest.device.room(), Some(1100 - HEADER));
    assert_eq!(
        guest.device.room(),
        Some(1100 - HEADER),
        "asking takes nothing"
    );
    let data = vec![7; 1100 - HEADER];
    guest.device.give(&header(data.len()), &data);
    assert_eq!(guest.receive.used(), Some((0, 1100)));
    assert_eq!(guest.device.room(), None);
    let mut found = [0; 1000];
    guest
        .memory
        .read_slice(&mut found, GuestAddress(BUFFERS + 0x1000))
        .unwrap();
    assert_eq!(found, [7; 1000]);
}

#[test]
fn buffers_that_hold_nothing_are_given_back_empty() {
    let mut guest = guest();
    guest.receive.offer(&[(BUFFERS, HEADER)], true);
    guest.receive.offer(&[(END, 4096)], true);
    guest.receive.offer(&[(BUFFERS, 4096)], false);
    guest.receive.offer(&[(BUFFERS, HEADER + 1)], true);
    assert_eq!(guest.device.room(), Some(1));
    for head in 0..3 {
        assert_eq!(guest.receive.used(), Some((head, 0)));
    }
    assert_eq!(guest.receive.used(), None);
}

#[test]
fn a_ring_with_a_wild_index_is_left_alone_until_the_driver_starts_again() {
    let mut guest = guest();
    guest.send.set_index(SIZE + 1);
    assert!(matches!(guest.device.take(), Taken::Nothing));
    assert!(!guest.device.is_ready());
    assert!(
        !guest.device.settle(true),
        "no news of a ring that is broken"
    );
    guest.vrings[1].set_queue_ready(false);
    assert!(!guest.device.is_ready());
    guest.send.set_index(0);
    guest.vrings[1].set_queue_ready(true);
    assert!(guest.device.is_ready());
}

#[test]
fn a_head_outside_of_the_queue_is_no_packet() {
    let mut guest = guest();
    guest.send.offer_head(SIZE);
    assert!(matches!(guest.device.take(), Taken::Malformed));
    assert!(!guest.device.is_ready());
}

#[test]
fn queues_that_are_not_enabled_or_started_are_not_touched() {
    let mut guest = guest();
    guest.write(BUFFERS, &header(0).to_bytes());
    guest.send.offer(&[(BUFFERS, HEADER)], false);
    guest.receive.offer(&[(BUFFERS, 4096)], true);
    for vring in &guest.vrings {
        vring.set_enabled(false);
    }
    assert!(matches!(guest.device.take(), Taken::Nothing));
    assert_eq!(guest.device.room(), None);
    assert!(!guest.device.is_ready());
    for vring in &guest.vrings {
        vring.set_enabled(true);
    }
    assert!(matches!(guest.device.take(), Taken::Packet(..)));
    assert!(guest.device.room().is_some());
}

/// VIRTIO_F_EVENT_IDX, both ways: stalls come from here.
#[test]
fn notifications_are_sent_and_asked_for_when_they_are_due() {
    let mut guest = guest();
    guest.write(BUFFERS, &header(0).to_bytes());
    let packet = [(BUFFERS, HEADER)];
    guest.send.offer(&packet, false);
    guest.device.take();
    assert!(!guest.device.settle(false));
    assert_eq!(guest.calls(), 1);
    assert_eq!(guest.send.avail_event(), 1, "it asks for the next packet");
    assert_eq!(guest.receive.avail_event(), 0);
    // The driver wants to know of the third only.
    guest.send.set_used_event(2);
    guest.send.offer(&packet, false);
    guest.device.take();
    guest.device.settle(false);
    assert_eq!(guest.calls(), 0);
    // What came after the last look is news, although nobody notifies.
    guest.send.offer(&packet, false);
    assert!(guest.device.settle(false));
    guest.device.take();
    assert!(!guest.device.settle(false));
    assert_eq!(guest.calls(), 1);
    // The same for buffers, if they are wanted.
    guest.receive.offer(&[(BUFFERS, 4096)], true);
    assert!(!guest.device.settle(false));
    assert!(guest.device.settle(true));
    guest.device.give(&header(0), &[]);
    assert!(!guest.device.settle(true));
    assert_eq!(guest.receive.avail_event(), 1);
}

proptest! {
    /// Whatever lies in the rings and tables, nothing panics and nothing hangs.
    #[test]
    fn random_queues_are_survived(
        table in proptest::collection::vec(any::<u8>(), 16 * usize::from(SIZE)),
        ring in proptest::collection::vec(any::<u8>(), 2 * usize::from(SIZE)),
        index in 0..=SIZE,
        addresses in proptest::collection::vec(0..END, usize::from(SIZE)),
    ) {
        for queue in [RECEIVE, SEND] {
            let mut guest = guest();
            guest.write(queue, &table);
            // Addresses in memory, so that more than the first descriptor is looked at.
            for (place, address) in (queue..).step_by(16).zip(&addresses) {
                guest.write(place, &address.to_le_bytes());
                guest.write(place + 10, &[0, 0]);
            }
            guest.write(queue + 0x1004, &ring);
            guest.receive.set_index(if queue == RECEIVE { index } else { 0 });
            guest.send.set_index(if queue == SEND { index } else { 0 });
            for _ in 0..=SIZE {
                if guest.device.room().is_some() {
                    guest.device.give(&header(1), &[1]);
                }
                if let Taken::Packet(found, data) = guest.device.take() {
                    prop_assert_eq!(usize::try_from(found.len).unwrap(), data.len());
                }
                guest.device.settle(true);
            }
        }
    }
}
