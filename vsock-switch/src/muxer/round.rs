//! A guest's turn: its packets are taken, and its receive buffers are filled, one packet for each
//! connection that has something, round and round.

use super::{Key, Muxer, Pair};
use crate::lane::Outgoing;
use crate::packet::{Header, STREAM};
use crate::port::{GuestPort, Taken};
use std::time::Instant;

/// Packets of one guest before the next guest has its turn, each way.
const BATCH: usize = 64;
/// Resets that may wait for a guest. Its packets wait as long as there are more: a guest that takes
/// nothing cannot make the switch hold much (virtio 1.2, 5.10.6.1.2).
const MAX_REFUSALS: usize = 1024;

impl<P: GuestPort> Muxer<P> {
    pub(super) fn serve(&mut self, cid: u32, now: Instant) {
        let more = self.take_packets(cid, now);
        let stuck = self.give_packets(cid, now);
        let Some(member) = self.members.get_mut(&cid) else {
            return;
        };
        let waits = !member.round.is_empty() || !member.refusals.is_empty();
        let settled = member
            .port
            .as_mut()
            .is_some_and(|port| port.settle(waits && stuck));
        if more || settled || (waits && !stuck) {
            self.wake(cid);
        }
    }

    /// True if there may be more.
    fn take_packets(&mut self, cid: u32, now: Instant) -> bool {
        for _ in 0..BATCH {
            let Some(member) = self.members.get_mut(&cid) else {
                return false;
            };
            if member.refusals.len() >= MAX_REFUSALS {
                return false;
            }
            match member.port.as_mut().map_or(Taken::Nothing, GuestPort::take) {
                Taken::Packet(header, data) => self.inbound(cid, header, &data, now),
                Taken::Malformed => tracing::debug!(cid, "a guest sent what is no packet"),
                Taken::Nothing => return false,
            }
        }
        true
    }

    /// True if it ended because the guest has no buffer.
    fn give_packets(&mut self, cid: u32, now: Instant) -> bool {
        for _ in 0..BATCH {
            let Some(member) = self.members.get_mut(&cid) else {
                return false;
            };
            let waits = !member.round.is_empty() || !member.refusals.is_empty();
            let Some(port) = member.port.as_mut().filter(|_| waits) else {
                return false;
            };
            let Some(room) = port.room() else {
                return true;
            };
            if let Some(header) = member.refusals.pop_front() {
                port.give(&header, &[]);
            } else if let Some(key) = member.round.pop_front() {
                self.give_one(cid, key, room, now);
            }
        }
        false
    }

    fn give_one(&mut self, cid: u32, key: Key, room: usize, now: Instant) {
        let packet = match key {
            Key::Sibling(pair) => self.next_from_sibling(cid, pair, room),
            Key::Host(key) => self.next_from_host(cid, key, room),
        };
        let port = self
            .members
            .get_mut(&cid)
            .and_then(|member| member.port.as_mut());
        if let (Some((header, data)), Some(port)) = (packet, port) {
            port.give(&header, &data);
        }
        match key {
            Key::Sibling(pair) => self.settle_sibling(pair, now),
            Key::Host(key) => self.settle_link(cid, key, now),
        }
    }

    fn next_from_sibling(
        &mut self,
        cid: u32,
        pair: Pair,
        room: usize,
    ) -> Option<(Header, Vec<u8>)> {
        let tracked = self.siblings.get_mut(&pair)?;
        let side = pair.side(cid);
        let (to, from) = (pair.end(side), pair.end(side.other()));
        let lane = tracked.sibling.lane(side);
        lane.listed = false;
        let before = lane.queued();
        let next = tracked.sibling.next(side, room);
        let after = tracked.sibling.lane(side).queued();
        self.count_waiting(cid, before, after);
        let (outgoing, buffer, taken) = next?;
        let header = Header {
            src_cid: from.cid.into(),
            src_port: from.port,
            dst_cid: to.cid.into(),
            dst_port: to.port,
            buf_alloc: buffer,
            fwd_cnt: taken,
            ..addressless(&outgoing)
        };
        Some((header, outgoing.data))
    }
}

/// The header of a packet, but for the addresses and counters.
pub(super) fn addressless(outgoing: &Outgoing) -> Header {
    Header {
        kind: STREAM,
        op: outgoing.op.number(),
        flags: outgoing.flags,
        len: u32::try_from(outgoing.data.len()).unwrap_or(0),
        ..Header::default()
    }
}
