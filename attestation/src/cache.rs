//! CA certificates whose signatures were verified before, so that a server need not verify them for
//! every document.

use crate::time::Time;
use std::collections::HashMap;
use std::sync::Mutex;

/// Names a CA certificate in its chain: the SHA-256 over the DER of every certificate from the root
/// to it, so it says nothing about the same certificate in another chain.
pub(crate) type ChainHash = [u8; 32];

/// Where verified CA certificates are looked up and kept.
pub(crate) trait ChainCache {
    /// Whether the chain up to this certificate was verified, and the certificate is valid at `at`.
    fn contains(&self, hash: &ChainHash, at: Time) -> bool;
    /// Keeps a certificate until `expiry`. `at` is the time by which expired ones may be dropped.
    fn insert(&self, hash: ChainHash, expiry: Time, at: Time);
}

/// Keeps nothing.
#[derive(Debug)]
pub(crate) struct NoCache;

impl ChainCache for NoCache {
    fn contains(&self, _: &ChainHash, _: Time) -> bool {
        false
    }

    fn insert(&self, _: ChainHash, _: Time, _: Time) {}
}

/// A poisoned lock costs a signature check, not the verdict.
impl ChainCache for Mutex<BoundedCache> {
    fn contains(&self, hash: &ChainHash, at: Time) -> bool {
        self.lock().is_ok_and(|cache| cache.contains(hash, at))
    }

    fn insert(&self, hash: ChainHash, expiry: Time, at: Time) {
        if let Ok(mut cache) = self.lock() {
            cache.insert(hash, expiry, at);
        }
    }
}

/// At most `capacity` certificates, until they expire.
#[derive(Debug)]
pub(crate) struct BoundedCache {
    expiry: HashMap<ChainHash, Time>,
    capacity: usize,
}

impl BoundedCache {
    pub(crate) fn new(capacity: usize) -> BoundedCache {
        BoundedCache {
            expiry: HashMap::new(),
            capacity,
        }
    }

    fn contains(&self, hash: &ChainHash, at: Time) -> bool {
        self.expiry.get(hash).is_some_and(|expiry| at <= *expiry)
    }

    /// Makes room by dropping what has expired, then what expires first.
    fn insert(&mut self, hash: ChainHash, expiry: Time, at: Time) {
        if self.expiry.len() >= self.capacity {
            self.expiry.retain(|_, expiry| at <= *expiry);
        }
        if self.expiry.len() >= self.capacity
            && let Some(first) = self
                .expiry
                .iter()
                .min_by_key(|(_, expiry)| **expiry)
                .map(|(hash, _)| *hash)
        {
            self.expiry.remove(&first);
        }
        if self.capacity > 0 {
            self.expiry.insert(hash, expiry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_bounded_number_of_certificates_until_they_expire() {
        let at = Time::from_millis;
        let mut cache = BoundedCache::new(2);
        cache.insert([1; 32], at(10), at(0));
        cache.insert([2; 32], at(20), at(0));
        assert!(cache.contains(&[1; 32], at(10)) && !cache.contains(&[1; 32], at(11)));
        cache.insert([3; 32], at(30), at(5));
        assert!(
            !cache.contains(&[1; 32], at(5)),
            "the one that expires first made room"
        );
        cache.insert([4; 32], at(40), at(25));
        assert!(
            !cache.contains(&[2; 32], at(5))
                && cache.contains(&[3; 32], at(25))
                && cache.contains(&[4; 32], at(25))
        );
        assert_eq!(cache.expiry.len(), 2);
        let mut none = BoundedCache::new(0);
        none.insert([1; 32], at(10), at(0));
        assert!(!none.contains(&[1; 32], at(0)));
    }
}
