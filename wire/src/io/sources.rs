//! What one source address may have of a listener that strangers reach, so that none of them can
//! have it all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sources that are remembered. Above it, those without connections are forgotten.
const MAX_REMEMBERED: usize = 16_384;
/// So many seconds' worth of new connections may come at once.
const BURST_SECONDS: u32 = 4;
/// Leading bits of an IPv6 address that its owner cannot choose: a host has the rest to itself
/// (RFC 4291, 2.5.4).
const IPV6_BITS: u32 = 64;

/// What one source may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimit {
    /// Connections at one time.
    pub open: usize,
    /// New connections each second, on average; four seconds' worth of them may come at once. As
    /// many as it likes if `None`.
    pub per_second: Option<u32>,
}

/// The sources of one listener, or of several that share their limits. Cheap to clone: the clones
/// count together.
#[derive(Debug, Clone, Default)]
pub struct Sources(Arc<Mutex<HashMap<IpAddr, Source>>>);

#[derive(Debug, Clone, Copy)]
struct Source {
    open: usize,
    /// When it may open as many at once as one that was never seen.
    rested: Instant,
}

/// A connection of a source. It counts until this is dropped.
#[derive(Debug)]
pub struct SourcePlace {
    sources: Sources,
    source: IpAddr,
    since: Instant,
}

impl Sources {
    /// Counts a connection from `peer` at `now`; `None` if its source has as many as it may. A
    /// source is an IPv4 address or the first 64 bits of an IPv6 one.
    pub fn admit(&self, peer: IpAddr, limit: SourceLimit, now: Instant) -> Option<SourcePlace> {
        let source = source_of(peer);
        let mut sources = self.lock();
        if sources.len() >= MAX_REMEMBERED {
            sources.retain(|_, source| source.open > 0);
        }
        let known = sources.get(&source).copied();
        let Source { open, rested } = known.unwrap_or(Source {
            open: 0,
            rested: now,
        });
        if open >= limit.open {
            return None;
        }
        let mut rested = rested.max(now);
        if let Some(rate) = limit.per_second {
            rested += Duration::from_secs(1) / rate.max(1);
            if rested > now + Duration::from_secs(BURST_SECONDS.into()) {
                return None;
            }
        }
        let open = open + 1;
        sources.insert(source, Source { open, rested });
        Some(SourcePlace {
            sources: self.clone(),
            source,
            since: now,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Source>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        let mut sources = self.sources.lock();
        let Some(source) = sources.get_mut(&self.source) else {
            return;
        };
        source.open = source.open.saturating_sub(1);
        // One that still has to rest is remembered for that.
        if source.open == 0 && source.rested <= self.since {
            sources.remove(&self.source);
        }
    }
}

fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (128 - IPV6_BITS);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: SourceLimit = SourceLimit {
        open: 3,
        per_second: None,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_so_many_connections_and_others_have_theirs() {
        let (sources, now) = (Sources::default(), Instant::now());
        let admit = |peer: &str| sources.admit(ip(peer), OPEN, now);
        let mut held: Vec<_> = (0..3).map(|_| admit("192.0.2.1").unwrap()).collect();
        assert!(admit("192.0.2.1").is_none() && admit("::ffff:192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        held.pop();
        held.push(admit("192.0.2.1").unwrap());
        assert!(admit("192.0.2.1").is_none());
        drop(held);
        assert!(sources.lock().is_empty());
    }

    #[test]
    fn an_ipv6_source_is_a_network_of_64_bits() {
        let (sources, now) = (Sources::default(), Instant::now());
        let admit = |peer: &str| sources.admit(ip(peer), OPEN, now);
        let _held = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"].map(admit);
        assert!(admit("2001:db8::3").is_none());
        assert!(admit("2001:db8:0:1::3").is_some());
    }

    #[test]
    fn a_source_opens_so_many_in_a_second_and_some_at_once() {
        let (sources, start) = (Sources::default(), Instant::now());
        let limit = SourceLimit {
            open: 1000,
            per_second: Some(2),
        };
        let admit = |peer: &str, now: Instant| sources.admit(ip(peer), limit, now).is_some();
        let at_once = (0..100).filter(|_| admit("192.0.2.1", start)).count();
        assert_eq!(at_once, 8);
        assert!(admit("192.0.2.2", start));
        let later = start + Duration::from_millis(499);
        assert!(!admit("192.0.2.1", later));
        let later = start + Duration::from_millis(500);
        assert!(admit("192.0.2.1", later) && !admit("192.0.2.1", later));
        let much_later = start + Duration::from_secs(60);
        let again = (0..100).filter(|_| admit("192.0.2.1", much_later)).count();
        assert_eq!(again, 8);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (sources, now) = (Sources::default(), Instant::now());
        let limit = SourceLimit {
            open: 1,
            per_second: Some(1),
        };
        let held = sources.admit(ip("192.0.2.1"), limit, now);
        for n in 0..u32::try_from(2 * MAX_REMEMBERED).unwrap() {
            let peer = std::net::Ipv4Addr::from_bits(n).into();
            assert!(sources.admit(peer, limit, now).is_some());
            assert!(sources.lock().len() <= MAX_REMEMBERED);
        }
        assert!(sources.admit(ip("192.0.2.1"), limit, now).is_none());
        drop(held);
    }
}
