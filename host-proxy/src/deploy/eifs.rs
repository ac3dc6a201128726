//! The EIFs of this daemon: kept by content, leased while a deploy or an enclave uses them, and collected once no record and no
//! lease needs them.

use crate::store::{Loaded, Store};
use api::{DeployError, Record};
use attestation::{Measurements, Pcr};
use eif_builder::build::Built;
use eif_builder::store::{EifStore, EifStoreError, StoredEif};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::RwLock;

type Leases = Arc<Mutex<BTreeMap<Pcr, usize>>>;

/// The directory that they are in, and who uses them.
#[derive(Debug)]
pub struct Eifs {
    files: EifStore,
    leases: Leases,
    /// Written to while files are collected: no lease begins then.
    collecting: RwLock<()>,
}

/// An EIF that is not collected as long as this lives.
#[derive(Debug)]
pub(crate) struct LeasedEif {
    pub(crate) eif: StoredEif,
    _lease: Lease,
}

#[derive(Debug)]
struct Lease {
    pcr0: Pcr,
    leases: Leases,
}

impl Lease {
    fn new(leases: &Leases, pcr0: Pcr) -> Lease {
        let mut held = leases.lock().unwrap_or_else(PoisonError::into_inner);
        *held.entry(pcr0).or_default() += 1;
        Lease {
            pcr0,
            leases: leases.clone(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.remove(&self.pcr0).unwrap_or_default();
        if left > 1 {
            held.insert(self.pcr0, left - 1);
        }
    }
}

impl Eifs {
    pub fn new(directory: PathBuf) -> Eifs {
        Eifs {
            files: EifStore::new(directory),
            leases: Leases::default(),
            collecting: RwLock::default(),
        }
    }

    /// Whether there is an EIF of this PCR0, whatever it is worth.
    pub(super) fn holds(&self, measurements: Option<Measurements>) -> bool {
        measurements.is_some_and(|measurements| self.files.path(measurements.pcr0).exists())
    }

    async fn lease(&self, pcr0: Pcr) -> Lease {
        let _not_now = self.collecting.read().await;
        Lease::new(&self.leases, pcr0)
    }

    /// Takes in what was built.
    pub(crate) async fn keep(&self, built: Built) -> Result<LeasedEif, DeployError> {
        let lease = self.lease(built.measurements.pcr0).await;
        let files = self.files.clone();
        let kept = tokio::task::spawn_blocking(move || files.keep(built)).await;
        let kept = kept.map_err(DeployError::internal)?;
        Ok(LeasedEif {
            eif: kept?,
            _lease: lease,
        })
    }

    /// What was kept, measured again.
    pub(crate) async fn open(
        &self,
        measurements: Measurements,
    ) -> Result<LeasedEif, EifStoreError> {
        let lease = self.lease(measurements.pcr0).await;
        let files = self.files.clone();
        let opened = tokio::task::spawn_blocking(move || files.open(&measurements));
        let eif = opened.await.unwrap_or_else(|error| {
            let (path, source) = (self.files.path(measurements.pcr0), io::Error::other(error));
            Err(eif_builder::eif::EifError::Read { path, source }.into())
        })?;
        Ok(LeasedEif { eif, _lease: lease })
    }

    /// Removes the EIFs that nothing needs any more. If that fails, it is for the next time.
    pub(crate) async fn collect(&self, store: &Store) {
        let _alone = self.collecting.write().await;
        // The leases come first: whoever gives one back wrote its record before.
        let leased: Vec<Pcr> = {
            let held = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            held.keys().copied().collect()
        };
        let loaded = match store.load().await {
            Ok(loaded) => loaded,
            Err(error) => return tracing::warn!(%error, "EIFs are not collected"),
        };
        let Some(needed) = needed(&loaded, &leased) else {
            return;
        };
        let files = self.files.clone();
        let collecting =
            tokio::task::spawn_blocking(move || files.collect(|name| needed.contains(name)));
        match collecting.await.map_err(io::Error::other).flatten() {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed EIFs that no enclave needs"),
            Err(error) => tracing::warn!(%error, "EIFs are not collected"),
        }
    }
}

/// By the names of their files. What a record needs that cannot be read is not known: `None`.
fn needed(loaded: &Loaded, leased: &[Pcr]) -> Option<BTreeSet<String>> {
    let Loaded {
        records,
        unreadable,
    } = loaded;
    if !unreadable.is_empty() {
        return None;
    }
    let recorded = records.iter().flat_map(Record::needed_eifs);
    let all = recorded.chain(leased.iter().copied());
    Some(all.map(|pcr0| pcr0.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_with_the_last_of_its_holders() {
        let leases = Leases::default();
        let (first, second) = (
            Lease::new(&leases, Pcr::ZERO),
            Lease::new(&leases, Pcr::ZERO),
        );
        drop(first);
        assert!(leases.lock().unwrap().contains_key(&Pcr::ZERO));
        drop(second);
        assert!(leases.lock().unwrap().is_empty());
    }

    #[test]
    fn nothing_is_collected_while_a_record_cannot_be_read() {
        let mut loaded = Loaded::default();
        let zero = Pcr::ZERO.to_string();
        assert_eq!(needed(&loaded, &[Pcr::ZERO]), Some(BTreeSet::from([zero])));
        let error = serde_json::from_str::<Record>("{}").unwrap_err();
        loaded.unreadable.push(("e-1".to_owned(), error));
        assert_eq!(needed(&loaded, &[Pcr::ZERO]), None);
    }
}
