//! Memory that enclaves were promised.
//!
//! QEMU takes memory as its guest touches it, so what this machine has free now says little about
//! what is still owed. A reservation counts in full from the moment it is made until its enclave is
//! gone, less what the enclave's process already holds.

use super::LaunchError;
use super::reservation::Reservation;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use wire::spec::Resources;

/// What was promised on this machine. Cheap to clone; all clones are one pool.
#[derive(Debug, Clone)]
pub struct MemoryPool {
    promises: Arc<Mutex<Promises>>,
    /// What a process already holds for its guest, in MiB.
    held_mib: fn(u32) -> Option<u64>,
}

impl Default for MemoryPool {
    /// Nothing is promised yet.
    fn default() -> MemoryPool {
        MemoryPool {
            promises: Arc::default(),
            held_mib: guest_mib,
        }
    }
}

#[derive(Debug, Default)]
struct Promises {
    next: u64,
    by_number: BTreeMap<u64, Promise>,
}

#[derive(Debug, Clone, Copy)]
struct Promise {
    mib: u64,
    /// The process that takes the memory, once there is one.
    pid: Option<u32>,
}

/// The guard of a reservation.
#[derive(Debug)]
struct Promised {
    pool: MemoryPool,
    number: u64,
}

impl MemoryPool {
    /// Sets memory aside, given what the machine has available now, in MiB; `None` if that is not
    /// known.
    ///
    /// # Errors
    /// [`LaunchError::Memory`] if less is left than is asked for.
    pub fn reserve(
        &self,
        resources: Resources,
        available_mib: Option<u64>,
    ) -> Result<Reservation, LaunchError> {
        let asked_mib = u64::from(resources.memory_mib);
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(available_mib) = available_mib {
            let owed = |promise: &Promise| promise.owed_mib(self.held_mib);
            let owed_mib = promises.by_number.values().map(owed).sum();
            let free_mib = available_mib.saturating_sub(owed_mib);
            if free_mib < asked_mib {
                return Err(LaunchError::Memory {
                    asked_mib,
                    free_mib,
                });
            }
        }
        let number = promises.next;
        promises.next += 1;
        promises.by_number.insert(
            number,
            Promise {
                mib: asked_mib,
                pid: None,
            },
        );
        Ok(Reservation::new(Promised {
            pool: self.clone(),
            number,
        }))
    }

    /// From now on this process takes the memory of a reservation.
    pub(super) fn taken_by(&self, reservation: &Reservation, pid: u32) {
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(promised) = reservation.guard::<Promised>()
            && let Some(promise) = promises.by_number.get_mut(&promised.number)
        {
            promise.pid = Some(pid);
        }
    }
}

impl Promise {
    /// What its process has not taken yet.
    fn owed_mib(&self, held_mib: fn(u32) -> Option<u64>) -> u64 {
        let held_mib = self.pid.and_then(held_mib).unwrap_or(0);
        self.mib.saturating_sub(held_mib)
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        let mut promises = self
            .pool
            .promises
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        promises.by_number.remove(&self.number);
    }
}

/// What new processes can have without swapping, in MiB (proc(5), `MemAvailable`).
pub fn available_mib() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

/// What a QEMU holds for its guest, in MiB: the guest's memory is shared with the vsock switch, so
/// that it is counted apart from QEMU's own (proc(5), `RssShmem`).
fn guest_mib(pid: u32) -> Option<u64> {
    shared_mib(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn shared_mib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssShmem:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(memory_mib: u32) -> Resources {
        Resources {
            memory_mib,
            ..Resources::default()
        }
    }

    fn free_mib(error: LaunchError) -> u64 {
        let LaunchError::Memory { free_mib, .. } = error else {
            panic!("{error}")
        };
        free_mib
    }

    #[test]
    fn two_launches_at_once_cannot_both_have_the_same_memory() {
        let pool = MemoryPool::default();
        let first = pool.reserve(asked(600), Some(1000)).unwrap();
        assert_eq!(
            free_mib(pool.reserve(asked(600), Some(1000)).unwrap_err()),
            400
        );
        let second = pool.reserve(asked(400), Some(1000)).unwrap();
        assert_eq!(
            free_mib(pool.reserve(asked(64), Some(1000)).unwrap_err()),
            0
        );
        drop(first);
        assert!(pool.reserve(asked(600), Some(1000)).is_ok());
        drop(second);
    }

    #[test]
    fn what_a_guest_already_holds_is_not_owed_twice() {
        let pool = MemoryPool {
            held_mib: |_| Some(150),
            ..MemoryPool::default()
        };
        let reservation = pool.reserve(asked(400), Some(1000)).unwrap();
        assert_eq!(
            free_mib(pool.reserve(asked(900), Some(1000)).unwrap_err()),
            600
        );
        pool.taken_by(&reservation, 1);
        assert_eq!(
            free_mib(pool.reserve(asked(900), Some(1000)).unwrap_err()),
            750
        );
    }

    #[test]
    fn only_the_guests_memory_is_counted() {
        let status = "VmRSS:\t  106124 kB\nRssAnon:\t   48744 kB\nRssShmem:\t   42744 kB\n";
        assert_eq!(shared_mib(status), Some(41));
        assert_eq!(shared_mib("VmRSS:\t1 kB\n"), None);
        assert!(guest_mib(std::process::id()).is_some());
    }

    #[test]
    fn this_machine_says_what_it_has() {
        assert!(available_mib().unwrap() > 0);
    }
}
