//! What happens later: half-dead connections are reset, and accepting is tried again.

use super::{HostKey, Muxer, Pair};
use crate::port::GuestPort;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long an end may take to agree to a close. Linux gives its peer 8 s (VSOCK_CLOSE_TIMEOUT).
const CLOSE: Duration = Duration::from_secs(10);
/// When accepting is tried again after the process ran out of descriptors.
const ACCEPT: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    Sibling(Pair, u64),
    Link(u32, HostKey, u64),
    Accept(u32),
}

/// What is to happen, in order of time.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeMap<(Instant, u64), Timer>);

impl<P: GuestPort> Muxer<P> {
    pub(super) fn start_timer(&mut self, timer: Timer, now: Instant) {
        let after = match timer {
            Timer::Sibling(..) | Timer::Link(..) => CLOSE,
            Timer::Accept(_) => ACCEPT,
        };
        let serial = self.number();
        self.timers.0.insert((now + after, serial), timer);
    }

    /// How long nothing happens by itself.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        let (at, _) = self.timers.0.keys().next()?;
        Some(at.saturating_duration_since(now))
    }

    /// Does what is due by now.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(entry) = self.timers.0.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Timer::Sibling(pair, serial) => self.expire_sibling(pair, serial, now),
                Timer::Link(cid, key, serial) => self.expire_link(cid, key, serial, now),
                Timer::Accept(cid) => self.accept(cid, now),
            }
        }
    }

    fn expire_sibling(&mut self, pair: Pair, serial: u64, now: Instant) {
        if let Some(tracked) = self.siblings.get_mut(&pair)
            && tracked.serial == serial
            && tracked.sibling.is_half_dead()
        {
            tracked.sibling.abort();
            self.settle_sibling(pair, now);
        }
    }
}
