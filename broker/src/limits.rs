//! What one caller may take, so that there is something left for the others: connections by address, questions by subject.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MAX_CONNECTIONS_OF_A_PEER: usize = 64;
/// Subjects whose pace is remembered.
const MAX_SUBJECTS: usize = 10_000;
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Connections of each peer.
#[derive(Debug, Default)]
pub(super) struct Peers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of a peer's connections, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Mutex<BTreeMap<IpAddr, usize>>>, IpAddr);

impl Peers {
    /// `None` if there are too many already.
    pub(super) fn enter(&self, peer: IpAddr) -> Option<Place> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer).or_insert(0);
        (*count < MAX_CONNECTIONS_OF_A_PEER).then(|| {
            *count += 1;
            Place(self.0.clone(), peer)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get_mut(&self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(peers.remove(&self.1)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Pace {
    per_minute: u32,
    /// By the hash of the subject, which may be long.
    seen: Mutex<BTreeMap<[u8; 32], (Instant, u32)>>,
}

impl Pace {
    pub(super) fn new(per_minute: u32) -> Pace {
        Pace {
            per_minute,
            seen: Mutex::default(),
        }
    }

    /// So many questions in a minute, counted from the first.
    pub(super) fn allows(&self, subject: &str, now: Instant) -> bool {
        let mut pace = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.len() >= MAX_SUBJECTS {
            pace.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        }
        // So many subjects in one minute: those who are not known yet wait for the next.
        let subject: [u8; 32] = Sha256::digest(subject).into();
        if pace.len() >= MAX_SUBJECTS && !pace.contains_key(&subject) {
            return false;
        }
        let (since, count) = pace.entry(subject).or_insert((now, 0));
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
    fn a_peer_has_so_many_places_and_gets_them_back() {
        let (peers, peer) = (Peers::default(), IpAddr::from([192, 0, 2, 1]));
        let mut places: Vec<Place> = (0..MAX_CONNECTIONS_OF_A_PEER)
            .filter_map(|_| peers.enter(peer))
            .collect();
        assert_eq!(places.len(), MAX_CONNECTIONS_OF_A_PEER);
        assert!(peers.enter(peer).is_none() && peers.enter(IpAddr::from([192, 0, 2, 2])).is_some());
        places.pop();
        assert!(peers.enter(peer).is_some());
        places.clear();
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_subject_asks_so_often_in_a_minute() {
        let (pace, start) = (Pace::new(2), Instant::now());
        let asks = |subject: &str, seconds: u64| {
            pace.allows(subject, start + Duration::from_secs(seconds))
        };
        assert!(asks("a", 0) && asks("a", 59) && !asks("a", 59) && asks("b", 59));
        assert!(asks("a", 60) && asks("a", 60) && !asks("a", 61));
    }

    #[test]
    fn subjects_that_are_remembered_are_bounded() {
        let (pace, start) = (Pace::new(2), Instant::now());
        let known = (0..MAX_SUBJECTS).all(|n| pace.allows(&n.to_string(), start));
        assert!(known && !pace.allows("one more", start) && pace.allows("7", start));
        assert!(pace.allows("one more", start + MINUTE));
    }
}
