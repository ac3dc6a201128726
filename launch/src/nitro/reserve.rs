//! Sets cores and huge pages aside. The kernel itself keeps pages that were mapped for whoever
//! mapped them, so a reservation maps; of cores the driver knows nothing before it is asked for
//! them, so they are counted here.

use super::driver::{Memory, Parent};
use super::errors::DriverStep;
use super::pages::{self, Plan};
use crate::error::LaunchError;
use nix::libc;
use std::sync::{Arc, Mutex, PoisonError};
use wire::spec::Resources;

/// Another program may map pages between the look and the mapping.
const TRIES: usize = 3;

/// How many cores of the pool are promised to enclaves of this daemon.
#[derive(Debug, Clone, Default)]
pub(super) struct Cores(Arc<Mutex<u32>>);

/// What one enclave was promised. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Reserved {
    /// What its memory is made of.
    pub(super) plan: Plan,
    pub(super) memory: Box<dyn Memory>,
    /// How many CPUs it gets: whole cores.
    pub(super) cpus: u32,
    _cores: Promised,
}

#[derive(Debug)]
struct Promised {
    cores: Cores,
    count: u32,
}

impl Drop for Promised {
    fn drop(&mut self) {
        *self.cores.0.lock().unwrap_or_else(PoisonError::into_inner) -= self.count;
    }
}

impl Cores {
    /// Sets resources aside. One at a time: what was looked at holds until it is taken.
    ///
    /// # Errors
    /// Too few cores or huge pages are left, or what there is cannot be found out.
    pub(super) fn reserve(
        &self,
        parent: &dyn Parent,
        asked: Resources,
    ) -> Result<Reserved, LaunchError> {
        let mut promised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let host = parent.resources().map_err(LaunchError::Host)?;
        if host.cores() == 0 {
            return Err(LaunchError::NoCpuPool);
        }
        let count = asked.cpus.div_ceil(host.threads_per_core).max(1);
        let free = host.cores().saturating_sub(*promised);
        if count > free {
            return Err(LaunchError::Cpus {
                asked: asked.cpus,
                free: free * host.threads_per_core,
                pool: host.cores() * host.threads_per_core,
            });
        }
        let (plan, memory) = reserve_pages(parent, asked.memory_mib)?;
        *promised += count;
        Ok(Reserved {
            plan,
            memory,
            cpus: count * host.threads_per_core,
            _cores: Promised {
                cores: self.clone(),
                count,
            },
        })
    }
}

#[cfg(test)]
impl Cores {
    pub(super) fn promised(&self) -> u32 {
        *self.0.lock().unwrap()
    }
}

fn reserve_pages(
    parent: &dyn Parent,
    memory_mib: u32,
) -> Result<(Plan, Box<dyn Memory>), LaunchError> {
    let mut tries = 0;
    loop {
        let host = parent.resources().map_err(LaunchError::Host)?;
        let plan = pages::plan(pages::rounded(memory_mib), &host.free);
        let plan = plan.ok_or_else(|| LaunchError::HugePages {
            asked_mib: memory_mib.into(),
            free: pages::describe(&host.free),
        })?;
        tries += 1;
        match parent.map(&plan, host.node) {
            Ok(memory) => return Ok((plan, memory)),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tries < TRIES => {}
            Err(error) => return Err(DriverStep::Map.failed()(error).into()),
        }
    }
}
