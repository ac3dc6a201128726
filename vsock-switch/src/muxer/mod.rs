//! The multiplexer: all guests, all connections, and whose turn it is. One thread owns it and
//! nothing in it blocks. It moves packets between guests ([`inbound`], [`round`]) and between guests
//! and the host's unix sockets ([`host`]).

#[cfg(test)]
mod fake;
mod host;
#[cfg(test)]
mod host_tests;
mod inbound;
mod round;
#[cfg(test)]
mod sibling_tests;
mod timers;

use self::host::{Handshake, Link};
use self::timers::Timers;
use crate::lane::Lane;
use crate::packet::Header;
use crate::poller::{Poller, Ready};
use crate::port::GuestPort;
use crate::sibling::{Sibling, Side};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Connections of one guest, to siblings and to the host.
pub(crate) const MAX_CONNECTIONS: usize = 16_384;
/// Ports of the host's connections are above this: guests listen below.
const FIRST_PORT: u32 = 1 << 30;
/// Bytes that may wait for one guest, over all its siblings' connections.
const MAX_WAITING: usize = 64 * 1024 * 1024;

/// A guest's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Address {
    cid: u32,
    port: u32,
}

/// A connection between two guests: its ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pair {
    low: Address,
    high: Address,
}

impl Pair {
    fn new(one: Address, other: Address) -> Pair {
        Pair {
            low: one.min(other),
            high: one.max(other),
        }
    }

    fn side(&self, cid: u32) -> Side {
        if self.low.cid == cid {
            Side::Low
        } else {
            Side::High
        }
    }

    fn end(&self, side: Side) -> Address {
        match side {
            Side::Low => self.low,
            Side::High => self.high,
        }
    }
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Low => Side::High,
            Side::High => Side::Low,
        }
    }
}

/// A connection of a guest with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct HostKey {
    guest_port: u32,
    host_port: u32,
    /// As the guest calls the host.
    host_cid: u32,
}

/// A place in a guest's round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Sibling(Pair),
    Host(HostKey),
}

/// The host, as one guest reaches it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) cid: u32,
    pub(crate) path: PathBuf,
    pub(crate) listener: UnixListener,
}

/// What is known of one guest.
#[derive(Debug)]
struct Member<P> {
    port: Option<P>,
    host: Option<Host>,
    links: HashMap<HostKey, Link>,
    handshakes: HashMap<u64, Handshake>,
    /// The last port that a connection of the host got.
    last_port: u32,
    /// Its connections with siblings.
    siblings: usize,
    /// Bytes that wait for it on those.
    waiting: usize,
    /// Connections that have something for the guest, in turn.
    round: VecDeque<Key>,
    /// Resets that belong to no connection.
    refusals: VecDeque<Header>,
    /// It is in the multiplexer's queue of guests already.
    due: bool,
}

/// A connection between guests, and when it began.
#[derive(Debug)]
struct Tracked {
    sibling: Sibling,
    serial: u64,
    timed: bool,
}

/// What an epoll token stands for.
#[derive(Debug, Clone, Copy)]
enum Token {
    Listener(u32),
    Handshake(u32),
    Link(u32, HostKey),
}

/// The multiplexer.
#[derive(Debug)]
pub(crate) struct Muxer<P> {
    members: HashMap<u32, Member<P>>,
    siblings: HashMap<Pair, Tracked>,
    /// Guests that have something to do, in turn.
    due: VecDeque<u32>,
    tokens: HashMap<u64, Token>,
    timers: Timers,
    poller: Poller,
    /// Numbers connections and epoll tokens.
    serial: u64,
    scratch: Vec<u8>,
}

impl<P: GuestPort> Muxer<P> {
    /// Without guests. Tokens below `first_token` are the caller's.
    pub(crate) fn new(poller: Poller, first_token: u64) -> Muxer<P> {
        Muxer {
            members: HashMap::new(),
            siblings: HashMap::new(),
            due: VecDeque::new(),
            tokens: HashMap::new(),
            timers: Timers::default(),
            poller,
            serial: first_token,
            scratch: vec![0; crate::packet::MAX_PAYLOAD],
        }
    }

    /// Adds a guest. False if its CID is taken.
    pub(crate) fn attach(&mut self, cid: u32, host: Option<Host>) -> io::Result<bool> {
        if self.members.contains_key(&cid) {
            return Ok(false);
        }
        if let Some(host) = &host {
            let token = self.number();
            self.poller.add(&host.listener, token)?;
            self.tokens.insert(token, Token::Listener(cid));
        }
        let member = Member {
            port: None,
            host,
            links: HashMap::new(),
            handshakes: HashMap::new(),
            last_port: FIRST_PORT,
            siblings: 0,
            waiting: 0,
            round: VecDeque::new(),
            refusals: VecDeque::new(),
            due: false,
        };
        self.members.insert(cid, member);
        Ok(true)
    }

    /// A guest's device is there.
    pub(crate) fn plug(&mut self, cid: u32, port: P) {
        if let Some(member) = self.members.get_mut(&cid) {
            member.port = Some(port);
        }
        self.wake(cid);
    }

    /// A guest's device is gone, and with it its connections.
    pub(crate) fn unplug(&mut self, cid: u32, now: Instant) {
        if let Some(member) = self.members.get_mut(&cid) {
            member.port = None;
        }
        self.forget_connections(cid, now);
    }

    /// A guest's driver has stopped: it has no connections any more.
    pub(crate) fn forget_connections(&mut self, cid: u32, now: Instant) {
        self.lose_siblings(cid, now);
        let Some(member) = self.members.get_mut(&cid) else {
            return;
        };
        member.round.clear();
        member.refusals.clear();
        let links: Vec<HostKey> = member.links.keys().copied().collect();
        for key in links {
            self.guest_gone(cid, key, now);
        }
    }

    /// Removes a guest: its streams and listener are closed, its peers are reset.
    pub(crate) fn detach(&mut self, cid: u32, now: Instant) {
        self.lose_siblings(cid, now);
        self.members.remove(&cid);
        self.tokens.retain(|_, token| match token {
            Token::Listener(owner) | Token::Handshake(owner) | Token::Link(owner, _) => {
                *owner != cid
            }
        });
    }

    fn lose_siblings(&mut self, cid: u32, now: Instant) {
        let of_guest = |pair: &&Pair| pair.low.cid == cid || pair.high.cid == cid;
        let lost: Vec<Pair> = self.siblings.keys().filter(of_guest).copied().collect();
        for pair in lost {
            if let Some(tracked) = self.siblings.get_mut(&pair) {
                tracked.sibling.lost(pair.side(cid));
            }
            self.settle_sibling(pair, now);
        }
    }

    /// The guest has something to do.
    pub(crate) fn wake(&mut self, cid: u32) {
        if let Some(member) = self.members.get_mut(&cid)
            && !member.due
        {
            member.due = true;
            self.due.push_back(cid);
        }
    }

    /// Gives a turn to each guest that is due. True if some are due again.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        for _ in 0..self.due.len() {
            if let Some(cid) = self.due.pop_front() {
                if let Some(member) = self.members.get_mut(&cid) {
                    member.due = false;
                }
                self.serve(cid, now);
            }
        }
        !self.due.is_empty()
    }

    /// Waits for news of what is watched, without end if there is no timeout.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        self.poller.wait(timeout)
    }

    /// The caller's poll found something ready.
    pub(crate) fn ready(&mut self, ready: Ready, now: Instant) {
        match self.tokens.get(&ready.token).copied() {
            Some(Token::Listener(cid)) => self.accept(cid, now),
            Some(Token::Handshake(cid)) => self.shake(cid, ready.token, now),
            Some(Token::Link(cid, key)) => self.link_ready(cid, key, ready, now),
            // Closed by an event of the same poll.
            None => {}
        }
    }

    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// How many connections a guest has.
    fn connections(&self, cid: u32) -> usize {
        let count = |member: &Member<P>| member.siblings + member.links.len();
        self.members.get(&cid).map_or(0, count)
    }

    fn is_ready(&mut self, cid: u32) -> bool {
        let port = self
            .members
            .get_mut(&cid)
            .and_then(|member| member.port.as_mut());
        port.is_some_and(GuestPort::is_ready)
    }

    /// Puts a connection into its guest's round.
    fn list(&mut self, cid: u32, key: Key) {
        if let Some(member) = self.members.get_mut(&cid) {
            member.round.push_back(key);
        }
        self.wake(cid);
    }
}

/// Whether a connection is to be listed now, and is not yet.
fn takes_turn(lane: &mut Lane, wants: bool) -> bool {
    wants && !std::mem::replace(&mut lane.listed, true)
}
