//! Fake guests: a driver's side of the protocol, as honest as Linux's unless a test makes it lie.

use super::{Host, Muxer};
use crate::packet::{Closed, Header, Op, STREAM};
use crate::poller::Poller;
use crate::port::{GuestPort, Taken};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What Linux announces.
pub(super) const BUFFER: u32 = 256 * 1024;
/// The payload of Linux's receive buffers.
const RECEIVE_BUFFER: usize = 4096 - 44;
/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// The wires between a guest and its device.
#[derive(Debug, Default)]
pub(super) struct Wires {
    pub(super) sent: VecDeque<(Header, Vec<u8>)>,
    pub(super) received: VecDeque<(Header, Vec<u8>)>,
    /// Receive buffers that the guest has provided.
    pub(super) buffers: usize,
}

#[derive(Debug, Clone)]
pub(super) struct FakePort(Rc<RefCell<Wires>>);

impl GuestPort for FakePort {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn take(&mut self) -> Taken {
        match self.0.borrow_mut().sent.pop_front() {
            Some((header, data)) => Taken::Packet(header, data),
            None => Taken::Nothing,
        }
    }
    fn room(&mut self) -> Option<usize> {
        (self.0.borrow().buffers > 0).then_some(RECEIVE_BUFFER)
    }
    fn give(&mut self, header: &Header, data: &[u8]) {
        assert!(data.len() <= RECEIVE_BUFFER && header.len as usize == data.len());
        let mut wires = self.0.borrow_mut();
        wires.buffers -= 1;
        wires.received.push_back((*header, data.to_vec()));
    }
    fn settle(&mut self, wants_room: bool) -> bool {
        let wires = self.0.borrow();
        !wires.sent.is_empty() || (wants_room && wires.buffers > 0)
    }
}

/// A socket of a guest: its port, and its peer.
pub(super) type Name = (u32, u64, u32);

#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) open: bool,
    pub(super) reset: bool,
    /// What the peer closed.
    pub(super) peer_closed: Closed,
    pub(super) received: Vec<u8>,
    pub(super) unsent: VecDeque<u8>,
    /// Data are taken out of the buffer as they come.
    pub(super) reads: bool,
    pub(super) echoes: bool,
    close_after: Option<Closed>,
    sent: u32,
    taken: u32,
    told: u32,
    peer_buffer: u32,
    peer_taken: u32,
}

impl Socket {
    /// Takes bytes out of the buffer.
    pub(super) fn take(&mut self, len: usize) {
        self.taken = self.taken.wrapping_add(u32::try_from(len).unwrap());
        self.told = self.taken;
    }
}

#[derive(Debug)]
pub(super) struct FakeGuest {
    pub(super) cid: u32,
    pub(super) wires: Rc<RefCell<Wires>>,
    pub(super) sockets: BTreeMap<Name, Socket>,
    /// It accepts connections here, and echoes.
    pub(super) listens: Vec<u32>,
    /// Buffers are provided again as they are used.
    pub(super) refills: bool,
    next_port: u32,
}

impl FakeGuest {
    pub(super) fn header(&self, name: Name, op: Op) -> Header {
        let socket = self.sockets.get(&name);
        Header {
            src_cid: self.cid.into(),
            dst_cid: name.1,
            src_port: name.0,
            dst_port: name.2,
            kind: STREAM,
            op: op.number(),
            buf_alloc: BUFFER,
            fwd_cnt: socket.map_or(0, |socket| socket.taken),
            ..Header::default()
        }
    }

    pub(super) fn send(&self, name: Name, op: Op) {
        self.send_raw(self.header(name, op), &[]);
    }

    pub(super) fn send_raw(&self, header: Header, data: &[u8]) {
        let header = Header {
            len: u32::try_from(data.len()).unwrap(),
            ..header
        };
        self.wires
            .borrow_mut()
            .sent
            .push_back((header, data.to_vec()));
    }

    /// Asks for a connection.
    pub(super) fn connect(&mut self, cid: u64, port: u32) -> Name {
        self.next_port += 1;
        let name = (self.next_port, cid, port);
        let socket = Socket {
            reads: true,
            ..Socket::default()
        };
        self.sockets.insert(name, socket);
        self.send(name, Op::Request);
        name
    }

    pub(super) fn socket(&mut self, name: Name) -> &mut Socket {
        self.sockets.get_mut(&name).unwrap()
    }

    pub(super) fn write(&mut self, name: Name, data: &[u8]) {
        self.socket(name).unsent.extend(data);
    }

    /// Closes directions once everything is sent.
    pub(super) fn close(&mut self, name: Name, closed: Closed) {
        self.socket(name).close_after = Some(closed);
    }

    /// Does what a driver does. True if something happened.
    pub(super) fn work(&mut self) -> bool {
        let mut worked = false;
        loop {
            let packet = self.wires.borrow_mut().received.pop_front();
            let Some((header, data)) = packet else { break };
            worked = true;
            if self.refills {
                self.wires.borrow_mut().buffers += 1;
            }
            self.receive(&header, &data);
        }
        let names: Vec<Name> = self.sockets.keys().copied().collect();
        for name in names {
            worked |= self.write_some(name);
        }
        worked
    }

    fn receive(&mut self, header: &Header, data: &[u8]) {
        assert_eq!(header.dst_cid, u64::from(self.cid));
        let name = (header.dst_port, header.src_cid, header.src_port);
        let op = header.operation().unwrap();
        if op == Op::Request && self.listens.contains(&name.0) {
            let socket = Socket {
                open: true,
                reads: true,
                echoes: true,
                peer_buffer: header.buf_alloc,
                ..Socket::default()
            };
            assert!(
                self.sockets.insert(name, socket).is_none(),
                "{name:?} twice"
            );
            return self.send(name, Op::Response);
        }
        let Some(socket) = self.sockets.get_mut(&name).filter(|socket| !socket.reset) else {
            if op != Op::Reset {
                self.send(name, Op::Reset);
            }
            return;
        };
        if op == Op::Reset {
            socket.reset = true;
            return;
        }
        socket.peer_buffer = header.buf_alloc;
        socket.peer_taken = header.fwd_cnt;
        match op {
            Op::Response => socket.open = true,
            Op::Data => self.take_data(name, data),
            Op::Shutdown => self.take_shutdown(name, header.closed()),
            Op::CreditRequest => self.send(name, Op::CreditUpdate),
            _ => {}
        }
    }

    fn take_data(&mut self, name: Name, data: &[u8]) {
        let socket = self.socket(name);
        assert!(socket.open && !socket.peer_closed.send);
        socket.received.extend(data);
        let len = u32::try_from(data.len()).unwrap();
        if socket.reads {
            socket.taken = socket.taken.wrapping_add(len);
            if socket.echoes {
                socket.unsent.extend(data);
            }
            if socket.taken.wrapping_sub(socket.told) > BUFFER - 64 * 1024 {
                socket.told = socket.taken;
                self.send(name, Op::CreditUpdate);
            }
        } else {
            let held = u32::try_from(socket.received.len()).unwrap();
            assert!(held - socket.taken <= BUFFER, "more than was announced");
        }
    }

    fn take_shutdown(&mut self, name: Name, closed: Closed) {
        let socket = self.socket(name);
        socket.peer_closed.add(closed);
        if socket.peer_closed.is_both() {
            socket.reset = true;
            self.send(name, Op::Reset);
        } else if socket.echoes && socket.peer_closed.send {
            socket.close_after = Some(Closed::SEND);
        }
    }

    fn write_some(&mut self, name: Name) -> bool {
        let socket = self.socket(name);
        if !socket.open || socket.reset {
            return false;
        }
        let in_flight = socket.sent.wrapping_sub(socket.peer_taken);
        let credit = socket.peer_buffer.saturating_sub(in_flight) as usize;
        let len = credit.min(socket.unsent.len()).min(64 * 1024);
        if len > 0 {
            let data: Vec<u8> = socket.unsent.drain(..len).collect();
            socket.sent = socket.sent.wrapping_add(u32::try_from(len).unwrap());
            socket.told = socket.taken;
            self.send_raw(self.header(name, Op::Data), &data);
            return true;
        }
        if socket.unsent.is_empty()
            && let Some(closed) = socket.close_after.take()
        {
            let flags = closed.flags();
            let header = self.header(name, Op::Shutdown);
            self.send_raw(Header { flags, ..header }, &[]);
            return true;
        }
        false
    }
}

/// A multiplexer and its guests, in one thread and with a clock of its own.
pub(super) struct World {
    pub(super) muxer: Muxer<FakePort>,
    pub(super) guests: BTreeMap<u32, FakeGuest>,
    pub(super) now: Instant,
    pub(super) directory: tempfile::TempDir,
}

impl World {
    /// Guests with these CIDs, that echo on port 7. Each reaches the host as CID 3.
    pub(super) fn new(cids: &[u32]) -> World {
        let mut world = World {
            muxer: Muxer::new(Poller::new().unwrap(), 0),
            guests: BTreeMap::new(),
            now: Instant::now(),
            directory: tempfile::tempdir().unwrap(),
        };
        for cid in cids {
            world.add(*cid);
        }
        world
    }

    /// Where the host connects to a guest.
    pub(super) fn path(&self, cid: u32) -> PathBuf {
        self.directory.path().join(format!("g{cid}"))
    }

    fn add(&mut self, cid: u32) {
        let path = self.path(cid);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let host = Host {
            cid: 3,
            path,
            listener,
        };
        assert!(self.muxer.attach(cid, Some(host)).unwrap());
        let wires = Rc::new(RefCell::new(Wires {
            buffers: 128,
            ..Wires::default()
        }));
        self.muxer.plug(cid, FakePort(wires.clone()));
        let guest = FakeGuest {
            cid,
            wires,
            sockets: BTreeMap::new(),
            listens: vec![7],
            refills: true,
            next_port: 0x1000,
        };
        self.guests.insert(cid, guest);
    }

    pub(super) fn guest(&mut self, cid: u32) -> &mut FakeGuest {
        self.guests.get_mut(&cid).unwrap()
    }

    /// One look at everything. True if something happened.
    pub(super) fn step(&mut self) -> bool {
        let news = self.muxer.wait(Some(Duration::ZERO)).unwrap();
        let mut worked = !news.is_empty();
        for ready in news {
            self.muxer.ready(ready, self.now);
        }
        self.muxer.tick(self.now);
        for guest in self.guests.values_mut() {
            worked |= guest.work();
            self.muxer.wake(guest.cid);
        }
        let sent = self.sent();
        self.muxer.turn(self.now);
        worked |= self.sent() != sent;
        let wires = |guest: &FakeGuest| !guest.wires.borrow().received.is_empty();
        worked | self.guests.values().any(wires)
    }

    /// Packets that the multiplexer has not taken yet.
    fn sent(&self) -> usize {
        let guests = self.guests.values();
        guests.map(|guest| guest.wires.borrow().sent.len()).sum()
    }

    /// Until nothing happens any more, but for what other threads do.
    pub(super) fn settle(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.step() { 0 } else { idle + 1 };
        }
    }

    /// Until it is so.
    pub(super) fn until(&mut self, mut is_so: impl FnMut(&mut World) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it did not come");
            if !self.step() {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// That nothing is left of any connection.
    pub(super) fn assert_empty(&mut self) {
        self.settle();
        assert_eq!(self.muxer.siblings.len(), 0);
        for member in self.muxer.members.values() {
            assert_eq!((member.links.len(), member.handshakes.len()), (0, 0));
            assert_eq!((member.siblings, member.waiting), (0, 0));
            assert!(member.round.is_empty() && member.refusals.is_empty());
        }
        assert_eq!(
            self.muxer.tokens.len(),
            self.muxer.members.len(),
            "listeners only"
        );
    }
}
