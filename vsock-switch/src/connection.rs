//! A connection between a guest and a unix stream of the host: what it may send, what it owes, and
//! when it is over. It does no I/O; the multiplexer moves the bytes.
//!
//! ```text
//! Asked -- response --> Open -- both directions closed, all written --> lane.reset --> over
//!   |                    |
//!   +-- reset -> over    +-- reset --> Draining -- all written --> over
//! ```

use crate::lane::{Lane, Outgoing};
use crate::packet::{Closed, Header, Op};
use std::collections::VecDeque;

/// What the switch keeps for the host on one connection, in bytes: the credit of the guest.
pub(crate) const BUFFER: u32 = 64 * 1024;

/// A guest did what the protocol forbids; its connection is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation;

/// What is to be done with the host's stream next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write what [`Connection::unwritten`] gives.
    Write,
    /// Tell the host that no more will come.
    EndWrite,
    /// Tell the host that no more is read.
    EndRead,
    /// Close the stream.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host wants to connect; the guest has not answered.
    Asked,
    Open,
    /// The guest is done with the connection; the host has not read everything.
    Draining,
    Over,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Connection {
    phase: Phase,
    /// What waits for the guest.
    pub(crate) lane: Lane,
    /// What the guest sent and the host did not take yet.
    buffer: VecDeque<u8>,
    /// Bytes from the guest, modulo 2^32.
    received: u32,
    /// Those of them that the host took.
    written: u32,
    /// The last `written` that the guest knows.
    announced: u32,
    /// Bytes to the guest, modulo 2^32.
    sent: u32,
    guest_buffer: u32,
    guest_taken: u32,
    /// The guest was asked for its credit and did not answer yet.
    asked_credit: bool,
    guest: Closed,
    host: Closed,
    hung_up: bool,
    ended_write: bool,
    ended_read: bool,
}

impl Connection {
    /// A connection that the host asks for.
    pub(crate) fn to_guest() -> Connection {
        let mut lane = Lane::default();
        lane.request = true;
        Connection::new(Phase::Asked, lane)
    }

    /// A connection that the guest asked for with `request`, and the host accepted.
    pub(crate) fn from_guest(request: &Header) -> Connection {
        let mut lane = Lane::default();
        lane.response = true;
        let mut connection = Connection::new(Phase::Open, lane);
        connection.guest_buffer = request.buf_alloc;
        connection
    }

    fn new(phase: Phase, lane: Lane) -> Connection {
        Connection {
            phase,
            lane,
            buffer: VecDeque::new(),
            received: 0,
            written: 0,
            announced: 0,
            sent: 0,
            guest_buffer: 0,
            guest_taken: 0,
            asked_credit: false,
            guest: Closed::default(),
            host: Closed::default(),
            hung_up: false,
            ended_write: false,
            ended_read: false,
        }
    }

    /// Takes a packet of the guest. True if it opened the connection.
    pub(crate) fn receive(&mut self, header: &Header, data: &[u8]) -> Result<bool, Violation> {
        let op = header.operation().ok_or(Violation)?;
        // A reset carries no counters (Linux, virtio_transport_reset_no_sock).
        if op == Op::Reset {
            self.guest_gone();
            return Ok(false);
        }
        self.take_credit(header)?;
        match op {
            Op::Response if self.phase == Phase::Asked => {
                self.phase = Phase::Open;
                return Ok(true);
            }
            Op::Data if self.phase == Phase::Open && !self.guest.send => self.take(data)?,
            Op::Shutdown if self.phase == Phase::Open => {
                self.guest.add(header.closed());
                if self.guest.receive {
                    self.lane.clear_data();
                }
                self.notice_hangup();
            }
            Op::CreditUpdate => {}
            Op::CreditRequest => self.lane.credit_update = true,
            _ => return Err(Violation),
        }
        Ok(false)
    }

    fn take_credit(&mut self, header: &Header) -> Result<(), Violation> {
        let queued = u32::try_from(self.lane.queued()).map_err(|_| Violation)?;
        let delivered = self.sent.wrapping_sub(queued);
        if delivered.wrapping_sub(header.fwd_cnt) > delivered.wrapping_sub(self.guest_taken) {
            return Err(Violation);
        }
        let before = self.credit();
        self.guest_buffer = header.buf_alloc;
        self.guest_taken = header.fwd_cnt;
        self.asked_credit &= self.credit() == before;
        Ok(())
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Violation> {
        let len = u32::try_from(data.len()).map_err(|_| Violation)?;
        let used = self.received.wrapping_sub(self.written).saturating_add(len);
        if used > BUFFER {
            return Err(Violation);
        }
        self.received = self.received.wrapping_add(len);
        // A host that is gone takes nothing: the guest must not wait for it.
        if self.host.receive {
            self.written = self.received;
        } else {
            self.buffer.extend(data);
        }
        Ok(())
    }

    /// The guest has reset the connection. What it sent before is still written.
    pub(crate) fn guest_gone(&mut self) {
        self.lane.clear();
        self.phase = if self.phase == Phase::Open && !self.buffer.is_empty() {
            Phase::Draining
        } else {
            Phase::Over
        };
    }

    /// The guest broke the protocol, or let the connection rot: it is reset, the stream closed.
    pub(crate) fn abort(&mut self) {
        self.buffer.clear();
        self.lane.clear();
        self.guest = Closed::BOTH;
        if self.phase != Phase::Over {
            self.phase = Phase::Open;
        }
    }

    fn credit(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.guest_taken);
        self.guest_buffer.saturating_sub(in_flight)
    }

    /// How many bytes of the host the guest has room for. Asks the guest if that is none.
    pub(crate) fn readable(&mut self) -> usize {
        if self.phase != Phase::Open || self.host.send || self.guest.receive {
            return 0;
        }
        let credit = self.credit();
        if credit == 0 && !self.asked_credit {
            self.asked_credit = true;
            self.lane.credit_request = true;
        }
        usize::try_from(credit).unwrap_or(0)
    }

    /// Takes bytes of the host: no more than [`Connection::readable`].
    pub(crate) fn read(&mut self, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        debug_assert!(len <= self.credit(), "more than the guest has room for");
        self.sent = self.sent.wrapping_add(len);
        self.lane.push(data);
    }

    /// The host sends no more: everything it sent was read.
    pub(crate) fn host_ended(&mut self) {
        self.close_host(Closed::SEND);
        self.notice_hangup();
    }

    /// The host takes no more.
    pub(crate) fn host_deaf(&mut self) {
        self.buffer.clear();
        self.written = self.received;
        self.close_host(Closed::RECEIVE);
    }

    /// The host has closed its end. What it sent before may still be there to read.
    pub(crate) fn host_hung_up(&mut self) {
        self.hung_up = true;
        self.notice_hangup();
    }

    fn notice_hangup(&mut self) {
        let nothing_to_read = self.phase != Phase::Open || self.guest.receive || self.host.send;
        if self.hung_up && nothing_to_read {
            self.host_gone();
        }
    }

    /// The host's end is closed, or broken, and nothing is left to read.
    pub(crate) fn host_gone(&mut self) {
        self.host_deaf();
        self.close_host(Closed::SEND);
        if matches!(self.phase, Phase::Asked | Phase::Draining) {
            self.lane.clear();
            // A guest that was asked and may answer yet must learn that the host gave up.
            self.lane.reset = self.phase == Phase::Asked;
            self.phase = Phase::Over;
        }
    }

    fn close_host(&mut self, closed: Closed) {
        let before = self.host;
        self.host.add(closed);
        if self.host != before && self.phase == Phase::Open {
            self.lane.shutdown = self.host;
        }
    }

    /// What to do with the host's stream now.
    pub(crate) fn step(&self) -> Option<Step> {
        match self.phase {
            Phase::Asked => None,
            _ if !self.buffer.is_empty() => Some(Step::Write),
            Phase::Over | Phase::Draining => Some(Step::Close),
            Phase::Open if self.guest.is_both() => Some(Step::Close),
            Phase::Open if self.guest.send && !self.ended_write => Some(Step::EndWrite),
            Phase::Open if self.guest.receive && !self.ended_read => Some(Step::EndRead),
            Phase::Open => None,
        }
    }

    /// Bytes for the host.
    pub(crate) fn unwritten(&self) -> &[u8] {
        let (front, back) = self.buffer.as_slices();
        if front.is_empty() { back } else { front }
    }

    /// `len` bytes of [`Connection::unwritten`] are with the host.
    pub(crate) fn wrote(&mut self, len: usize) {
        let len = len.min(self.buffer.len());
        self.buffer.drain(..len);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.written = self.written.wrapping_add(len);
        // Half of the buffer: a guest never waits for the last bytes of it.
        if self.received.wrapping_sub(self.announced) >= BUFFER / 2 && self.phase == Phase::Open {
            self.lane.credit_update = true;
        }
    }

    pub(crate) fn ended_write(&mut self) {
        self.ended_write = true;
    }

    pub(crate) fn ended_read(&mut self) {
        self.ended_read = true;
    }

    /// The stream is closed for good. A guest that closed both directions waits for this reset.
    pub(crate) fn closed(&mut self) {
        let answer = self.phase == Phase::Open;
        if answer {
            self.lane.clear();
            self.lane.reset = true;
        }
        self.phase = Phase::Over;
    }

    /// The next packet to the guest, and the counters that go with it: buffer and bytes taken.
    pub(crate) fn next(&mut self, room: usize) -> Option<(Outgoing, u32, u32)> {
        let outgoing = self.lane.next(room)?;
        self.announced = self.written;
        Some((outgoing, BUFFER, self.written))
    }

    /// The guest has everything and knows that the host is gone, and has not agreed: this may not
    /// last.
    pub(crate) fn is_half_dead(&self) -> bool {
        self.phase == Phase::Open && self.host.is_both() && self.lane.queued() == 0
    }

    /// The guest is done with the connection, and the host has not read everything.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }

    /// Nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.lane.is_empty()
    }
}
