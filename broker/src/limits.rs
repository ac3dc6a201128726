//! What one caller may use, so that something is left for the others: connections by address,
//! requests by subject.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MAX_CONNECTIONS_OF_A_PEER: usize = 64;
/// Subjects that are remembered.
const MAX_SUBJECTS: usize = 10_000;
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Limits the connections of each peer.
#[derive(Debug, Default)]
pub(super) struct ConnectionLimiter(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of a peer's connections, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit(Arc<Mutex<BTreeMap<IpAddr, usize>>>, IpAddr);

impl ConnectionLimiter {
    /// `None` if the peer has too many connections already.
    pub(super) fn acquire(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer).or_insert(0);
        (*count < MAX_CONNECTIONS_OF_A_PEER).then(|| {
            *count += 1;
            ConnectionPermit(self.0.clone(), peer)
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get_mut(&self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(peers.remove(&self.1)),
        }
    }
}

/// Limits the requests of each subject.
#[derive(Debug)]
pub(super) struct RateLimiter {
    per_minute: u32,
    /// By the hash of the subject, which may be long.
    seen: Mutex<BTreeMap<[u8; 32], (Instant, u32)>>,
}

impl RateLimiter {
    pub(super) fn new(per_minute: u32) -> RateLimiter {
        RateLimiter {
            per_minute,
            seen: Mutex::default(),
        }
    }

    /// Counts one request, and returns whether it is within the limit of the minute that began with
    /// the subject's first request.
    pub(super) fn allows(&self, subject: &str, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SUBJECTS {
            seen.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        }
        // Too many subjects in one minute: new ones wait for the next.
        let subject: [u8; 32] = Sha256::digest(subject).into();
        if seen.len() >= MAX_SUBJECTS && !seen.contains_key(&subject) {
            return false;
        }
        let (since, count) = seen.entry(subject).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= self.per_minute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_so_many_permits_and_gets_them_back() {
        let (peers, peer) = (ConnectionLimiter::default(), IpAddr::from([192, 0, 2, 1]));
        let mut permits: Vec<ConnectionPermit> = (0..MAX_CONNECTIONS_OF_A_PEER)
            .filter_map(|_| peers.acquire(peer))
            .collect();
        assert_eq!(permits.len(), MAX_CONNECTIONS_OF_A_PEER);
        assert!(
            peers.acquire(peer).is_none() && peers.acquire(IpAddr::from([192, 0, 2, 2])).is_some()
        );
        permits.pop();
        assert!(peers.acquire(peer).is_some());
        permits.clear();
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_subject_asks_so_often_in_a_minute() {
        let (limiter, start) = (RateLimiter::new(2), Instant::now());
        let asks = |subject: &str, seconds: u64| {
            limiter.allows(subject, start + Duration::from_secs(seconds))
        };
        assert!(asks("a", 0) && asks("a", 59) && !asks("a", 59) && asks("b", 59));
        assert!(asks("a", 60) && asks("a", 60) && !asks("a", 61));
    }

    #[test]
    fn subjects_that_are_remembered_are_bounded() {
        let (limiter, start) = (RateLimiter::new(2), Instant::now());
        let known = (0..MAX_SUBJECTS).all(|n| limiter.allows(&n.to_string(), start));
        assert!(known && !limiter.allows("one more", start) && limiter.allows("7", start));
        assert!(limiter.allows("one more", start + MINUTE));
    }
}
