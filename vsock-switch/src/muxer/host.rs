//! The host's side of a guest: unix sockets for its ports, and one that connects in.
//!
//! ```text
//! guest connects to port 9000 -> the switch connects to PATH_9000
//! host connects to PATH, "CONNECT 9003\n" -> the switch asks the guest; "OK <port>\n" or a close
//! ```

use super::round::addressless;
use super::timers::Timer;
use super::{FIRST_PORT, HostKey, Key, MAX_CONNECTIONS, Muxer, Token, takes_turn};
use crate::connection::{Connection, Step};
use crate::packet::Header;
use crate::poller::Ready;
use crate::port::GuestPort;
use crate::unix;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Streams that connected and did not yet say to which port.
const MAX_HANDSHAKES: usize = 1024;

/// A connection and its stream.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    /// None once it is closed.
    stream: Option<UnixStream>,
    token: u64,
    /// A read may give something.
    readable: bool,
    timed: bool,
}

/// A stream that has not said yet where it wants to.
#[derive(Debug)]
pub(super) struct Handshake {
    stream: UnixStream,
    line: Vec<u8>,
}

impl<P: GuestPort> Muxer<P> {
    /// Accepts what connects in.
    pub(super) fn accept(&mut self, cid: u32, now: Instant) {
        loop {
            let Some(host) = self
                .members
                .get(&cid)
                .and_then(|member| member.host.as_ref())
            else {
                return;
            };
            match host.listener.accept() {
                Ok((stream, _)) => self.accepted(cid, stream, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(cid, %error, "cannot accept a connection to a guest");
                    return self.start_timer(Timer::Accept(cid), now);
                }
            }
        }
    }

    fn accepted(&mut self, cid: u32, stream: UnixStream, now: Instant) {
        let token = self.number();
        let Some(member) = self.members.get_mut(&cid) else {
            return;
        };
        if member.handshakes.len() >= MAX_HANDSHAKES || stream.set_nonblocking(true).is_err() {
            return;
        }
        if let Err(error) = self.poller.add(&stream, token) {
            return tracing::warn!(cid, %error, "cannot watch a connection to a guest");
        }
        let line = Vec::new();
        member.handshakes.insert(token, Handshake { stream, line });
        self.tokens.insert(token, Token::Handshake(cid));
        self.shake(cid, token, now);
    }

    /// Goes on with a handshake.
    pub(super) fn shake(&mut self, cid: u32, token: u64, now: Instant) {
        let Some(member) = self.members.get_mut(&cid) else {
            return;
        };
        let Some(shake) = member.handshakes.get_mut(&token) else {
            return;
        };
        let Some(asked) = unix::port_asked(&mut shake.stream, &mut shake.line).transpose() else {
            return;
        };
        let stream = member.handshakes.remove(&token).map(|shake| shake.stream);
        self.tokens.remove(&token);
        match (asked, stream) {
            (Ok(port), Some(stream)) => self.connect_in(cid, port, stream, token, now),
            // Closing the stream is the answer.
            (Err(error), _) => tracing::debug!(cid, %error, "no request to connect to a guest"),
            _ => {}
        }
    }

    fn connect_in(&mut self, cid: u32, port: u32, stream: UnixStream, token: u64, now: Instant) {
        if self.connections(cid) >= MAX_CONNECTIONS || !self.is_ready(cid) {
            return;
        }
        let Some(member) = self.members.get_mut(&cid) else {
            return;
        };
        let Some(host) = &member.host else {
            return;
        };
        let mut key = HostKey {
            guest_port: port,
            host_port: member.last_port,
            host_cid: host.cid,
        };
        loop {
            key.host_port = key.host_port.checked_add(1).unwrap_or(FIRST_PORT);
            if !member.links.contains_key(&key) {
                break;
            }
        }
        member.last_port = key.host_port;
        self.link(cid, key, Connection::to_guest(), stream, token, now);
    }

    /// Connects to the host for a guest. False if nothing listens, or the guest has too many
    /// connections.
    pub(super) fn dial(&mut self, cid: u32, key: HostKey, request: &Header, now: Instant) -> bool {
        if self.connections(cid) >= MAX_CONNECTIONS {
            return false;
        }
        let Some(host) = self
            .members
            .get(&cid)
            .and_then(|member| member.host.as_ref())
        else {
            return false;
        };
        let stream = unix::dial(&unix::path_of(&host.path, key.host_port));
        let token = self.number();
        match stream.and_then(|stream| self.poller.add(&stream, token).map(|()| stream)) {
            Ok(stream) => {
                self.link(
                    cid,
                    key,
                    Connection::from_guest(request),
                    stream,
                    token,
                    now,
                );
                true
            }
            Err(error) => {
                tracing::debug!(cid, port = key.host_port, %error, "the host refuses a connection");
                false
            }
        }
    }

    fn link(
        &mut self,
        cid: u32,
        key: HostKey,
        connection: Connection,
        stream: UnixStream,
        token: u64,
        now: Instant,
    ) {
        let link = Link {
            connection,
            stream: Some(stream),
            token,
            readable: true,
            timed: false,
        };
        self.tokens.insert(token, Token::Link(cid, key));
        if let Some(member) = self.members.get_mut(&cid) {
            member.links.insert(key, link);
        }
        self.settle_link(cid, key, now);
    }

    fn find_link(&mut self, cid: u32, key: HostKey) -> Option<&mut Link> {
        self.members.get_mut(&cid)?.links.get_mut(&key)
    }

    /// A packet of the guest for a connection there is.
    pub(super) fn link_receive(
        &mut self,
        cid: u32,
        key: HostKey,
        header: &Header,
        data: &[u8],
        now: Instant,
    ) {
        if let Some(link) = self.find_link(cid, key) {
            match link.connection.receive(header, data) {
                Ok(true) => link.greet(key.host_port),
                Ok(false) => {}
                Err(_) => {
                    tracing::debug!(cid, ?header, "a connection of a guest is reset");
                    link.connection.abort();
                }
            }
        }
        self.settle_link(cid, key, now);
    }

    /// The guest is gone; the host still gets what it sent.
    pub(super) fn guest_gone(&mut self, cid: u32, key: HostKey, now: Instant) {
        if let Some(link) = self.find_link(cid, key) {
            link.connection.guest_gone();
        }
        self.settle_link(cid, key, now);
    }

    pub(super) fn expire_link(&mut self, cid: u32, key: HostKey, serial: u64, now: Instant) {
        if let Some(link) = self.find_link(cid, key)
            && link.token == serial
            && link.connection.is_half_dead()
        {
            link.connection.abort();
            self.settle_link(cid, key, now);
        }
    }

    /// The host's stream has news.
    pub(super) fn link_ready(&mut self, cid: u32, key: HostKey, ready: Ready, now: Instant) {
        if let Some(link) = self.find_link(cid, key) {
            link.readable = true;
            if ready.hung_up {
                link.connection.host_hung_up();
            }
        }
        self.settle_link(cid, key, now);
    }

    /// The next packet of a connection with the host.
    pub(super) fn next_from_host(
        &mut self,
        cid: u32,
        key: HostKey,
        room: usize,
    ) -> Option<(Header, Vec<u8>)> {
        let link = self.members.get_mut(&cid)?.links.get_mut(&key)?;
        link.connection.lane.listed = false;
        link.fill(room, &mut self.scratch);
        let (outgoing, buffer, taken) = link.connection.next(room)?;
        let header = Header {
            src_cid: key.host_cid.into(),
            src_port: key.host_port,
            dst_cid: cid.into(),
            dst_port: key.guest_port,
            buf_alloc: buffer,
            fwd_cnt: taken,
            ..addressless(&outgoing)
        };
        Some((header, outgoing.data))
    }

    /// After a change: moves what can be moved to the host, gives the guest its turn, watches that
    /// the connection does not rot, forgets it when it is over.
    pub(super) fn settle_link(&mut self, cid: u32, key: HostKey, now: Instant) {
        let Some(link) = self.find_link(cid, key) else {
            return;
        };
        link.work();
        let wants = link.wants_turn();
        let is_listed = takes_turn(&mut link.connection.lane, wants);
        let is_over = link.connection.is_over() && link.stream.is_none();
        let (token, is_closed) = (link.token, link.stream.is_none());
        let starts = link.connection.is_half_dead() && !link.timed;
        link.timed |= starts;
        if is_listed {
            self.list(cid, Key::Host(key));
        }
        if starts {
            self.start_timer(Timer::Link(cid, key, token), now);
        }
        if is_closed {
            self.tokens.remove(&token);
        }
        if is_over && let Some(member) = self.members.get_mut(&cid) {
            member.links.remove(&key);
        }
    }
}

impl Link {
    /// The guest has no say in it any more.
    pub(super) fn is_draining(&self) -> bool {
        self.connection.is_draining()
    }

    /// Tells the host that the guest accepted.
    fn greet(&mut self, port: u32) {
        let Some(stream) = self.stream.as_mut() else {
            return;
        };
        // Nothing was written yet: the line fits.
        if stream.write_all(format!("OK {port}\n").as_bytes()).is_err() {
            self.connection.host_gone();
        }
    }

    /// Does what the connection wants done with the stream, as far as that is possible now.
    fn work(&mut self) {
        while let (Some(step), Some(stream)) = (self.connection.step(), self.stream.as_mut()) {
            match step {
                Step::Write => match stream.write(self.connection.unwritten()) {
                    Ok(len) => self.connection.wrote(len),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => self.connection.host_deaf(),
                },
                Step::EndWrite => {
                    // A stream that the host closed meanwhile is reported by the poller.
                    stream.shutdown(Shutdown::Write).ok();
                    self.connection.ended_write();
                }
                Step::EndRead => {
                    stream.shutdown(Shutdown::Read).ok();
                    self.connection.ended_read();
                }
                Step::Close => {
                    self.stream = None;
                    self.connection.closed();
                }
            }
        }
    }

    /// Reads for a packet to the guest, if nothing else waits for it.
    fn fill(&mut self, room: usize, scratch: &mut [u8]) {
        let room = room.min(self.connection.readable());
        let (Some(stream), Some(buffer)) = (self.stream.as_mut(), scratch.get_mut(..room)) else {
            return;
        };
        if room == 0 || !self.readable || !self.connection.lane.is_empty() {
            return;
        }
        match stream.read(buffer) {
            Ok(0) => {
                self.readable = false;
                self.connection.host_ended();
            }
            Ok(len) => self.connection.read(buffer.get(..len).unwrap_or_default()),
            Err(error) => self.read_failed(&error),
        }
    }

    fn read_failed(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => self.readable = false,
            ErrorKind::Interrupted => {}
            _ => {
                self.readable = false;
                self.connection.host_gone();
            }
        }
    }

    fn wants_turn(&mut self) -> bool {
        let can_read = self.readable && self.stream.is_some() && self.connection.readable() > 0;
        can_read || !self.connection.lane.is_empty()
    }
}
