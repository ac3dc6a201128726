//! How many connections the enclave carries at one time: in proportion to its memory, and counted
//! together, whoever opened them.

use std::fs;
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::relay::{connection_limit, ingress_limit};

/// Places for connections. Cheap to clone: the clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    places: Arc<Semaphore>,
    limit: usize,
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Capacity {
    /// In proportion to the memory that the kernel has.
    pub(crate) fn of_this_enclave() -> io::Result<Capacity> {
        let memory = total(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
        let limit = connection_limit(memory);
        let places = Arc::new(Semaphore::new(limit));
        Ok(Capacity { places, limit })
    }

    /// How many there are in all.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many of them connections into the enclave may have.
    pub(crate) fn ingress(&self) -> usize {
        ingress_limit(self.limit)
    }

    /// One of them, if one is free.
    pub(crate) fn take(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok().map(Place)
    }
}

/// Bytes of memory in all (proc_meminfo(5)).
fn total(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_much_memory_there_is() {
        let text = "MemTotal:  500 kB\nMemFree: 1 kB\n";
        assert_eq!(total(text), Some(500 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn connections_out_have_what_is_left_of_those_that_come_in() {
        let places = Arc::new(Semaphore::new(8));
        let capacity = Capacity { places, limit: 8 };
        let inward: Vec<Place> = (0..capacity.ingress())
            .map_while(|_| capacity.take())
            .collect();
        let outward = [capacity.take(), capacity.take()];
        assert!(outward.iter().all(Option::is_some) && capacity.take().is_none());
        drop(inward);
        assert!(capacity.take().is_some());
    }
}
