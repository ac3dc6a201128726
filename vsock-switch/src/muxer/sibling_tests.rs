//! Guests and guests.

use super::fake::{BUFFER, World};
use super::*;
use crate::packet::{Closed, Op, STREAM};
use crate::sibling::MAX_BUFFER;

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

#[test]
fn one_write_of_a_mebibyte_is_echoed_and_both_ends_half_close() {
    let mut world = World::new(&[16, 17]);
    let data = pattern(1 << 20);
    let name = world.guest(16).connect(17, 7);
    world.guest(16).write(name, &data);
    world.guest(16).close(name, Closed::SEND);
    world.settle();
    let socket = world.guest(16).socket(name);
    assert!(socket.received == data);
    assert!(socket.open && !socket.reset);
    assert_eq!(socket.peer_closed, Closed::SEND);
    // Both are done sending; what is left is a close.
    world.guest(16).close(name, Closed::BOTH);
    world.settle();
    assert!(world.guest(16).socket(name).reset);
    world.assert_empty();
}

#[test]
fn a_thousand_connections_at_once_all_echo() {
    let mut world = World::new(&[16, 17]);
    let names: Vec<_> = (0..1000).map(|_| world.guest(16).connect(17, 7)).collect();
    for (i, name) in names.iter().enumerate() {
        world.guest(16).write(*name, &i.to_le_bytes());
    }
    world.settle();
    for (i, name) in names.iter().enumerate() {
        assert_eq!(world.guest(16).socket(*name).received, i.to_le_bytes());
        world.guest(16).close(*name, Closed::BOTH);
    }
    world.assert_empty();
}

#[test]
fn ten_thousand_short_connections_leave_nothing() {
    let mut world = World::new(&[16, 17]);
    for _ in 0..100 {
        let names: Vec<_> = (0..100).map(|_| world.guest(16).connect(17, 7)).collect();
        for name in &names {
            world.guest(16).write(*name, b"ping");
        }
        world.settle();
        for name in names {
            assert_eq!(world.guest(16).socket(name).received, b"ping");
            world.guest(16).close(name, Closed::BOTH);
        }
        world.settle();
        world.guest(16).sockets.clear();
        world.guest(17).sockets.clear();
    }
    world.assert_empty();
}

#[test]
fn nobody_there_is_a_reset() {
    let mut world = World::new(&[16, 17]);
    // No such guest, no such guest by far, the guest itself, nobody listening.
    for (cid, port) in [
        (99, 7),
        (1 << 40, 7),
        (16, 7),
        (17, 8),
        (3, 1),
        (2, 1),
        (0, 1),
    ] {
        let name = world.guest(16).connect(cid, port);
        world.settle();
        assert!(world.guest(16).socket(name).reset, "CID {cid} port {port}");
    }
    world.assert_empty();
}

#[test]
fn a_guest_without_device_is_a_reset() {
    let mut world = World::new(&[16, 17]);
    let now = world.now;
    world.muxer.unplug(17, now);
    let name = world.guest(16).connect(17, 7);
    world.settle();
    assert!(world.guest(16).socket(name).reset);
}

#[test]
fn packets_of_no_connection_are_answered_and_resets_are_not() {
    let mut world = World::new(&[16, 17]);
    world.guest(16).refills = false;
    let name = (5, 17, 7);
    let ops = [
        Op::Response,
        Op::Shutdown,
        Op::Data,
        Op::CreditUpdate,
        Op::CreditRequest,
    ];
    for op in ops {
        world.guest(16).send(name, op);
    }
    world.guest(16).send(name, Op::Reset);
    world.guest(16).send((5, 99, 7), Op::Reset);
    // Datagrams and sequenced packets are none of ours.
    let request = world.guest(16).header(name, Op::Request);
    world.guest(16).send_raw(Header { kind: 2, ..request }, &[]);
    let buffers = world.guest(16).wires.borrow().buffers;
    world.settle();
    assert_eq!(
        buffers - world.guest(16).wires.borrow().buffers,
        ops.len() + 1
    );
}

#[test]
fn a_guest_cannot_speak_for_another() {
    let mut world = World::new(&[16, 17, 18]);
    let name = (5, 17, 7);
    let request = world.guest(16).header(name, Op::Request);
    let lie = Header {
        src_cid: 18,
        ..request
    };
    world.guest(16).send_raw(lie, &[]);
    world.settle();
    let peers: Vec<u64> = world.guest(17).sockets.keys().map(|name| name.1).collect();
    assert_eq!(peers, [16]);
}

#[test]
fn a_sibling_that_goes_away_resets_its_connections() {
    type Ending = fn(&mut Muxer<super::fake::FakePort>, Instant);
    let endings: [Ending; 3] = [
        |muxer, now| muxer.detach(17, now),
        |muxer, now| muxer.unplug(17, now),
        |muxer, now| muxer.forget_connections(17, now),
    ];
    for ending in endings {
        let mut world = World::new(&[16, 17, 18]);
        let name = world.guest(16).connect(17, 7);
        let other = world.guest(16).connect(18, 7);
        world.guest(16).write(name, b"x");
        world.settle();
        let now = world.now;
        ending(&mut world.muxer, now);
        world.settle();
        assert_eq!(world.guest(16).socket(name).received, b"x");
        assert!(world.guest(16).socket(name).reset);
        assert!(!world.guest(16).socket(other).reset);
        world.guest(16).close(other, Closed::BOTH);
        world.assert_empty();
    }
}

#[test]
fn data_that_a_sibling_sent_before_it_went_away_still_arrives() {
    let mut world = World::new(&[16, 17]);
    let name = world.guest(16).connect(17, 7);
    world.settle();
    let there = (7, 16, name.0);
    world.guest(16).wires.borrow_mut().buffers = 0;
    world.guest(17).write(there, &pattern(10_000));
    world.settle();
    let now = world.now;
    world.muxer.detach(17, now);
    world.guest(16).wires.borrow_mut().buffers = 128;
    world.settle();
    assert_eq!(world.guest(16).socket(name).received, pattern(10_000));
    assert!(world.guest(16).socket(name).reset);
}

#[test]
fn a_guest_that_exceeds_the_credit_is_reset_and_one_that_uses_it_up_is_not() {
    for (excess, is_reset) in [(0, false), (1, true)] {
        let mut world = World::new(&[16, 17]);
        let name = world.guest(16).connect(17, 7);
        world.settle();
        world.guest(17).socket((7, 16, name.0)).reads = false;
        let header = world.guest(16).header(name, Op::Data);
        let mut left = BUFFER as usize + excess;
        while left > 0 {
            let len = left.min(64 * 1024);
            world.guest(16).send_raw(header, &vec![0; len]);
            left -= len;
        }
        world.settle();
        assert_eq!(world.guest(16).socket(name).reset, is_reset);
        assert_eq!(world.guest(17).socket((7, 16, name.0)).reset, is_reset);
    }
}

#[test]
fn a_guest_that_claims_to_have_taken_what_it_did_not_get_is_reset() {
    let mut world = World::new(&[16, 17]);
    let name = world.guest(16).connect(17, 7);
    world.settle();
    let header = Header {
        fwd_cnt: 1,
        ..world.guest(16).header(name, Op::CreditUpdate)
    };
    world.guest(16).send_raw(header, &[]);
    world.settle();
    assert!(world.guest(16).socket(name).reset);
    assert!(world.guest(17).socket((7, 16, name.0)).reset);
}

#[test]
fn a_stalled_receiver_stops_no_other() {
    let mut world = World::new(&[16, 17, 18]);
    let stuck = world.guest(16).connect(17, 7);
    let free = world.guest(16).connect(18, 7);
    world.settle();
    world.guest(17).wires.borrow_mut().buffers = 0;
    world.guest(16).write(stuck, &pattern(1 << 20));
    world.guest(16).write(free, &pattern(1 << 20));
    world.settle();
    assert!(world.guest(16).socket(free).received == pattern(1 << 20));
    assert!(world.muxer.members[&17].waiting <= BUFFER as usize);
    world.guest(17).wires.borrow_mut().buffers = 128;
    world.settle();
    assert!(world.guest(16).socket(stuck).received == pattern(1 << 20));
}

#[test]
fn a_quiet_connection_has_its_turn_beside_a_flood() {
    let mut world = World::new(&[16, 17]);
    let flood = world.guest(16).connect(17, 7);
    let quiet = world.guest(16).connect(17, 7);
    world.settle();
    world.guest(17).refills = false;
    world.guest(17).wires.borrow_mut().buffers = 0;
    world.guest(16).write(flood, &pattern(200_000));
    world.settle();
    world.guest(16).write(quiet, b"me too");
    world.settle();
    world.guest(17).wires.borrow_mut().buffers = 2;
    world.settle();
    assert_eq!(world.guest(17).socket((7, 16, quiet.0)).received, b"me too");
}

#[test]
fn what_waits_for_a_guest_is_bounded_over_all_connections() {
    let mut world = World::new(&[16, 17]);
    let connections = MAX_WAITING / BUFFER as usize;
    let names: Vec<_> = (0..=connections)
        .map(|_| world.guest(16).connect(17, 7))
        .collect();
    world.settle();
    world.guest(17).wires.borrow_mut().buffers = 0;
    for name in &names {
        world.guest(16).write(*name, &vec![0; BUFFER as usize]);
    }
    world.settle();
    assert_eq!(world.muxer.members[&17].waiting, MAX_WAITING);
    let resets = names
        .iter()
        .filter(|name| world.guests[&16].sockets[name].reset)
        .count();
    assert_eq!(resets, 1);
}

#[test]
fn a_guest_has_so_many_connections_and_no_more() {
    let mut world = World::new(&[16, 17]);
    let names: Vec<_> = (0..=MAX_CONNECTIONS)
        .map(|_| world.guest(16).connect(17, 7))
        .collect();
    world.settle();
    let (last, all) = names.split_last().unwrap();
    assert!(all.iter().all(|name| world.guests[&16].sockets[name].open));
    assert!(world.guest(16).socket(*last).reset);
}

#[test]
fn larger_buffers_are_announced_as_what_the_switch_carries() {
    let mut world = World::new(&[16, 17]);
    world.guest(17).refills = false;
    world.guest(17).listens.clear();
    let request = Header {
        buf_alloc: u32::MAX,
        ..world.guest(16).header((5, 17, 7), Op::Request)
    };
    world.guest(16).send_raw(request, &[]);
    world.muxer.wake(16);
    let now = world.now;
    while world.muxer.turn(now) {}
    let (seen, _) = world
        .guest(17)
        .wires
        .borrow_mut()
        .received
        .pop_front()
        .unwrap();
    assert_eq!((seen.op, seen.kind), (Op::Request.number(), STREAM));
    assert_eq!(seen.buf_alloc, MAX_BUFFER);
}

#[test]
fn a_close_that_nobody_agrees_to_ends_after_ten_seconds() {
    let mut world = World::new(&[16, 17]);
    let name = world.guest(16).connect(17, 7);
    world.settle();
    // The sibling does not look at it.
    let header = world.guest(16).header(name, Op::Shutdown);
    let flags = Closed::BOTH.flags();
    world.guest(17).refills = false;
    world.guest(17).wires.borrow_mut().buffers = 0;
    world.guest(16).send_raw(Header { flags, ..header }, &[]);
    world.settle();
    world.now += Duration::from_millis(9999);
    world.settle();
    assert!(!world.guest(16).socket(name).reset);
    world.now += Duration::from_millis(1);
    world.settle();
    assert!(world.guest(16).socket(name).reset);
    world.guest(17).wires.borrow_mut().buffers = 128;
    world.assert_empty();
}

#[test]
fn a_guest_that_takes_nothing_is_not_listened_to() {
    let mut world = World::new(&[16]);
    world.guest(16).wires.borrow_mut().buffers = 0;
    for port in 0..5000 {
        world.guest(16).send((port, 99, 7), Op::Request);
    }
    world.settle();
    assert!(world.muxer.members[&16].refusals.len() <= 1024);
    assert!(world.guest(16).wires.borrow().sent.len() >= 3900);
    world.guest(16).wires.borrow_mut().buffers = 128;
    world.assert_empty();
    assert!(world.guest(16).wires.borrow().sent.is_empty());
}
