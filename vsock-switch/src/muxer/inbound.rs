//! Packets that guests send: each finds its connection, opens one, or is refused with a reset.

use super::host::Link;
use super::timers::Timer;
use super::{
    Address, HostKey, Key, MAX_CONNECTIONS, MAX_WAITING, Muxer, Pair, Tracked, takes_turn,
};
use crate::packet::{Header, Op, STREAM};
use crate::port::GuestPort;
use crate::sibling::{Sibling, Side};
use std::time::Instant;

/// "This machine" and "the host" (vsock(7), VMADDR_CID_HOST); 0 was the hypervisor's.
const HOST_CIDS: [u32; 2] = [0, 2];

impl<P: GuestPort> Muxer<P> {
    /// Takes a packet that the guest with this CID sent, whatever source it claims.
    pub(super) fn inbound(&mut self, cid: u32, mut header: Header, data: &[u8], now: Instant) {
        header.src_cid = cid.into();
        let Ok(to) = u32::try_from(header.dst_cid) else {
            return self.refuse(cid, &header);
        };
        if header.kind != STREAM {
            self.refuse(cid, &header);
        } else if to != cid && self.members.contains_key(&to) {
            self.send_to_sibling(cid, to, &header, data, now);
        } else if self.is_host(cid, to) {
            self.send_to_host(cid, to, &header, data, now);
        } else {
            self.refuse(cid, &header);
        }
    }

    fn is_host(&self, cid: u32, to: u32) -> bool {
        let host = self
            .members
            .get(&cid)
            .and_then(|member| member.host.as_ref());
        host.is_some_and(|host| host.cid == to || HOST_CIDS.contains(&to))
    }

    /// Answers a packet of no connection. A reset is never answered.
    pub(super) fn refuse(&mut self, cid: u32, header: &Header) {
        if header.operation() == Some(Op::Reset) {
            return;
        }
        if let Some(member) = self.members.get_mut(&cid) {
            member.refusals.push_back(header.refusal());
        }
        self.wake(cid);
    }

    fn send_to_sibling(&mut self, cid: u32, to: u32, header: &Header, data: &[u8], now: Instant) {
        let from = Address {
            cid,
            port: header.src_port,
        };
        let to = Address {
            cid: to,
            port: header.dst_port,
        };
        let pair = Pair::new(from, to);
        let side = pair.side(cid);
        let is_request = header.operation() == Some(Op::Request);
        match self
            .siblings
            .get(&pair)
            .map(|tracked| tracked.sibling.is_reset())
        {
            Some(true) if is_request => self.refuse(cid, header),
            Some(_) => self.pass_on(pair, side, header, data),
            None if is_request && self.can_open(from.cid, to.cid) => {
                self.open_sibling(pair, side, header);
            }
            None => self.refuse(cid, header),
        }
        self.settle_sibling(pair, now);
    }

    fn can_open(&mut self, from: u32, to: u32) -> bool {
        let has_place = |cid| self.connections(cid) < MAX_CONNECTIONS;
        has_place(from) && has_place(to) && self.is_ready(to)
    }

    fn open_sibling(&mut self, pair: Pair, side: Side, request: &Header) {
        let serial = self.number();
        let tracked = Tracked {
            sibling: Sibling::new(side, request),
            serial,
            timed: false,
        };
        self.siblings.insert(pair, tracked);
        for cid in [pair.low.cid, pair.high.cid] {
            if let Some(member) = self.members.get_mut(&cid) {
                member.siblings += 1;
            }
        }
    }

    fn pass_on(&mut self, pair: Pair, side: Side, header: &Header, data: &[u8]) {
        let receiver = pair.end(side.other()).cid;
        let waiting = self
            .members
            .get(&receiver)
            .map_or(0, |member| member.waiting);
        let Some(tracked) = self.siblings.get_mut(&pair) else {
            return;
        };
        let before = tracked.sibling.lane(side.other()).queued();
        let fits = waiting + data.len() <= MAX_WAITING;
        if !fits || tracked.sibling.receive(side, header, data).is_err() {
            tracing::debug!(?pair, ?header, "a connection of a guest is reset");
            tracked.sibling.abort();
            tracked.sibling.lane(side.other()).clear_data();
        }
        let after = tracked.sibling.lane(side.other()).queued();
        self.count_waiting(receiver, before, after);
    }

    pub(super) fn count_waiting(&mut self, cid: u32, before: usize, after: usize) {
        if let Some(member) = self.members.get_mut(&cid) {
            member.waiting = (member.waiting + after).saturating_sub(before);
        }
    }

    /// After a change: gives its guests their turns, watches that it does not rot, forgets it when
    /// it is over.
    pub(super) fn settle_sibling(&mut self, pair: Pair, now: Instant) {
        let Some(tracked) = self.siblings.get_mut(&pair) else {
            return;
        };
        let (serial, is_over) = (tracked.serial, tracked.sibling.is_over());
        let starts = tracked.sibling.is_half_dead() && !tracked.timed;
        tracked.timed |= starts;
        let listed = [Side::Low, Side::High].map(|side| {
            let lane = tracked.sibling.lane(side);
            let wants = !lane.is_empty();
            takes_turn(lane, wants).then_some(side)
        });
        for side in listed.into_iter().flatten() {
            self.list(pair.end(side).cid, Key::Sibling(pair));
        }
        if starts {
            self.start_timer(Timer::Sibling(pair, serial), now);
        }
        if is_over {
            self.siblings.remove(&pair);
            for cid in [pair.low.cid, pair.high.cid] {
                if let Some(member) = self.members.get_mut(&cid) {
                    member.siblings = member.siblings.saturating_sub(1);
                }
            }
        }
    }

    fn send_to_host(&mut self, cid: u32, to: u32, header: &Header, data: &[u8], now: Instant) {
        let key = HostKey {
            guest_port: header.src_port,
            host_port: header.dst_port,
            host_cid: to,
        };
        let is_request = header.operation() == Some(Op::Request);
        let link = self.members.get(&cid).and_then(|m| m.links.get(&key));
        if link.is_some_and(Link::is_draining) {
            self.refuse(cid, header);
        } else if link.is_some() {
            self.link_receive(cid, key, header, data, now);
        } else if !is_request || !self.dial(cid, key, header, now) {
            self.refuse(cid, header);
        }
    }
}
