//! What waits for one guest on one connection, and in which order it goes out. Waiting packets are
//! kept as facts, not as packets: whatever a peer does, a lane holds one of each kind and its data.

use crate::packet::{Closed, Op};
use std::collections::VecDeque;

/// A packet to be, without addresses and credit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) op: Op,
    pub(crate) flags: u32,
    pub(crate) data: Vec<u8>,
}

/// What waits for the guest.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) request: bool,
    pub(crate) response: bool,
    pub(crate) credit_request: bool,
    /// The guest must learn the counters that every packet carries.
    pub(crate) credit_update: bool,
    /// It goes out after the data.
    pub(crate) shutdown: Closed,
    /// It goes out last.
    pub(crate) reset: bool,
    /// It is in its guest's round already.
    pub(crate) listed: bool,
    data: VecDeque<u8>,
}

impl Lane {
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.data.extend(data);
    }

    /// The bytes that wait.
    pub(crate) fn queued(&self) -> usize {
        self.data.len()
    }

    /// Forgets what waits, for a guest that must not or cannot have it any more.
    pub(crate) fn clear(&mut self) {
        *self = Lane {
            listed: self.listed,
            ..Lane::default()
        };
    }

    /// Forgets the data, for a guest that receives no more.
    pub(crate) fn clear_data(&mut self) {
        self.data.clear();
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        !self.request
            && !self.response
            && !self.credit_request
            && !self.credit_update
            && !self.shutdown.is_any()
            && !self.reset
            && self.data.is_empty()
    }

    /// The next packet, with at most `room` bytes of data.
    pub(crate) fn next(&mut self, room: usize) -> Option<Outgoing> {
        let outgoing = self.control().or_else(|| self.some_data(room))?;
        // Every packet carries the counters.
        self.credit_update = false;
        Some(outgoing)
    }

    fn control(&mut self) -> Option<Outgoing> {
        let waits = |flag: &mut bool| std::mem::take(flag);
        if waits(&mut self.request) {
            return Some(plain(Op::Request));
        }
        if waits(&mut self.response) {
            return Some(plain(Op::Response));
        }
        if waits(&mut self.credit_request) {
            return Some(plain(Op::CreditRequest));
        }
        if !self.data.is_empty() {
            return None;
        }
        if self.shutdown.is_any() {
            let flags = std::mem::take(&mut self.shutdown).flags();
            return Some(Outgoing {
                flags,
                ..plain(Op::Shutdown)
            });
        }
        if waits(&mut self.reset) {
            return Some(plain(Op::Reset));
        }
        self.credit_update.then(|| plain(Op::CreditUpdate))
    }

    fn some_data(&mut self, room: usize) -> Option<Outgoing> {
        let len = room.min(self.data.len());
        if len == 0 {
            return None;
        }
        let mut data = Vec::with_capacity(len);
        let (front, back) = self.data.as_slices();
        let first = front.get(..len).unwrap_or(front);
        data.extend_from_slice(first);
        data.extend_from_slice(back.get(..len - first.len()).unwrap_or_default());
        self.data.drain(..len);
        Some(Outgoing {
            data,
            ..plain(Op::Data)
        })
    }
}

fn plain(op: Op) -> Outgoing {
    Outgoing {
        op,
        flags: 0,
        data: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(lane: &mut Lane, room: usize) -> Vec<Op> {
        std::iter::from_fn(|| lane.next(room))
            .map(|outgoing| outgoing.op)
            .collect()
    }

    #[test]
    fn data_goes_before_the_shutdown_and_the_reset_goes_last() {
        let mut lane = Lane {
            reset: true,
            shutdown: Closed::SEND,
            ..Lane::default()
        };
        lane.push(b"abc");
        lane.response = true;
        let expected = [Op::Response, Op::Data, Op::Data, Op::Shutdown, Op::Reset];
        assert_eq!(ops(&mut lane, 2), expected);
        assert!(lane.is_empty());
    }

    #[test]
    fn data_is_split_to_the_room_there_is() {
        let mut lane = Lane::default();
        lane.push(b"hello");
        assert_eq!(lane.next(0), None);
        assert_eq!(lane.next(4).unwrap().data, b"hell");
        assert_eq!(lane.next(4).unwrap().data, b"o");
        assert_eq!(lane.next(4), None);
    }

    #[test]
    fn any_packet_carries_the_credit() {
        let mut lane = Lane {
            credit_update: true,
            ..Lane::default()
        };
        assert_eq!(ops(&mut lane, 9), [Op::CreditUpdate]);
        lane.credit_update = true;
        lane.push(b"x");
        assert_eq!(ops(&mut lane, 9), [Op::Data]);
    }
}
