//! A connection between two guests, as the switch sees it pass: enough to reset it when one of them
//! is gone, to bound what waits, and to refuse data that the receiver has no room for. It does no
//! I/O. Credit is between the guests; the switch passes it on and never lends any.

use crate::connection::Violation;
use crate::lane::{Lane, Outgoing};
use crate::packet::{Closed, Header, Op};

/// The largest buffer that a guest may announce to its sibling, in bytes. A larger one is passed on
/// as this: it bounds what may wait in the switch. Linux's own is 256 KiB.
pub(crate) const MAX_BUFFER: u32 = 1024 * 1024;

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Low,
    High,
}

/// One end, as far as its packets tell.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// What waits for this end's guest.
    pub(crate) lane: Lane,
    buffer: u32,
    /// The largest buffer it ever announced: the sender may not know yet that it shrank.
    largest: u32,
    taken: u32,
    sent: u32,
    closed: Closed,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Sibling {
    low: End,
    high: End,
    opener: Side,
    open: bool,
    over: bool,
}

impl Sibling {
    /// A connection that the guest at `opener` asks for with `request`.
    pub(crate) fn new(opener: Side, request: &Header) -> Sibling {
        let mut sibling = Sibling {
            low: End::default(),
            high: End::default(),
            opener,
            open: false,
            over: false,
        };
        let (from, to) = sibling.ends(opener);
        from.announce(request.buf_alloc);
        to.lane.request = true;
        sibling
    }

    fn ends(&mut self, from: Side) -> (&mut End, &mut End) {
        match from {
            Side::Low => (&mut self.low, &mut self.high),
            Side::High => (&mut self.high, &mut self.low),
        }
    }

    /// What waits for the guest at `side`.
    pub(crate) fn lane(&mut self, side: Side) -> &mut Lane {
        &mut self.ends(side).0.lane
    }

    /// Takes a packet of the guest at `side`.
    pub(crate) fn receive(
        &mut self,
        side: Side,
        header: &Header,
        data: &[u8],
    ) -> Result<(), Violation> {
        let (open, over, opener) = (self.open, self.over, self.opener);
        let op = header.operation().ok_or(Violation)?;
        let (from, to) = self.ends(side);
        if over {
            // What a guest sent before it learned of the reset.
            return Ok(());
        }
        // A reset carries no counters (Linux, virtio_transport_reset_no_sock).
        if op == Op::Reset {
            self.lost(side);
            return Ok(());
        }
        from.take_credit(to, header)?;
        match op {
            Op::Response if !open && side != opener => {
                to.lane.response = true;
                self.open = true;
            }
            Op::Data if open && !from.closed.send => from.send(to, data)?,
            Op::Shutdown if open => {
                from.closed.add(header.closed());
                to.lane.shutdown.add(header.closed());
            }
            Op::CreditUpdate if open => to.lane.credit_update = true,
            Op::CreditRequest if open => to.lane.credit_request = true,
            _ => return Err(Violation),
        }
        Ok(())
    }

    /// The guest at `side` is gone, or reset the connection: the other one is reset, after the
    /// data that waits for it.
    pub(crate) fn lost(&mut self, side: Side) {
        self.over = true;
        let (from, to) = self.ends(side);
        from.lane.clear();
        to.lane.reset = true;
    }

    /// Both guests are reset.
    pub(crate) fn abort(&mut self) {
        self.over = true;
        for end in [&mut self.low, &mut self.high] {
            end.lane.reset = true;
        }
    }

    /// It was reset, and the resets are on their way.
    pub(crate) fn is_reset(&self) -> bool {
        self.over
    }

    /// The next packet to the guest at `side`, and the counters that go with it: the sender's
    /// buffer and the bytes that it took.
    pub(crate) fn next(&mut self, side: Side, room: usize) -> Option<(Outgoing, u32, u32)> {
        let (to, from) = self.ends(side);
        let outgoing = to.lane.next(room)?;
        Some((outgoing, from.buffer, from.taken))
    }

    /// One of the guests closed it completely, or both stopped to send: this may not last.
    pub(crate) fn is_half_dead(&self) -> bool {
        let (low, high) = (self.low.closed, self.high.closed);
        !self.over && (low.is_both() || high.is_both() || (low.send && high.send))
    }

    /// Nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.over && self.low.lane.is_empty() && self.high.lane.is_empty()
    }
}

impl End {
    fn announce(&mut self, buffer: u32) {
        self.buffer = buffer.min(MAX_BUFFER);
        self.largest = self.largest.max(self.buffer);
    }

    /// What this end says of its buffer. It cannot have taken bytes that it did not get.
    fn take_credit(&mut self, peer: &End, header: &Header) -> Result<(), Violation> {
        let queued = u32::try_from(self.lane.queued()).map_err(|_| Violation)?;
        let delivered = peer.sent.wrapping_sub(queued);
        if delivered.wrapping_sub(header.fwd_cnt) > delivered.wrapping_sub(self.taken) {
            return Err(Violation);
        }
        self.taken = header.fwd_cnt;
        self.announce(header.buf_alloc);
        Ok(())
    }

    fn send(&mut self, to: &mut End, data: &[u8]) -> Result<(), Violation> {
        let len = u32::try_from(data.len()).map_err(|_| Violation)?;
        let in_flight = self.sent.wrapping_sub(to.taken).saturating_add(len);
        if in_flight > to.largest {
            return Err(Violation);
        }
        self.sent = self.sent.wrapping_add(len);
        to.lane.push(data);
        Ok(())
    }
}
