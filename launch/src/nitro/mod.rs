//! Launches enclaves on a Nitro parent instance, through the kernel's driver /dev/nitro_enclaves.
//! Their documents are read only with a signature that chains to AWS's root.
//!
//! ```text
//! reserve: host (what there is) ─► pages (a plan) ─► mapped, cores counted        = Reserved
//! launch:  driver (a slot) ─► memory (pages and image) ─► CPUs ─► start ─► a CID  = Enclave
//!          ports (its connections) + hang-up of the descriptor                    = NitroMachine
//! ```

mod anchor;
mod console;
mod doctor;
mod driver;
mod errors;
#[cfg(test)]
mod fake;
mod host;
mod machine;
mod memory;
mod pages;
mod ports;
mod reserve;
#[cfg(test)]
mod tests;

pub use errors::{DriverError, DriverStep};

use self::driver::{DEVICE, Parent, ThisInstance};
use self::host::Sysfs;
use self::machine::{Enclave, NitroMachine};
use self::ports::Ports;
use self::reserve::{Cores, Reserved};
use super::{
    Console, Evidence, Instance, LaunchError, LaunchRequest, Launcher, Launching, Listeners,
    Reservation, Vsock,
};
use api::Finding;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use wire::spec::Resources;

/// The launcher.
#[derive(Debug)]
pub(super) struct Nitro {
    parent: Arc<dyn Parent>,
    cores: Cores,
    /// Bound by the first launch, and kept.
    ports: Mutex<Option<Arc<Ports>>>,
    evidence: Evidence,
}

/// Whether this machine has the driver, and this process may use it.
pub(super) fn is_usable() -> bool {
    driver::open_device().is_ok()
}

impl Nitro {
    pub(super) fn new() -> Result<Nitro, LaunchError> {
        Ok(Nitro {
            parent: Arc::new(ThisInstance::default()),
            cores: Cores::default(),
            ports: Mutex::default(),
            evidence: Evidence::signed(anchor::anchor()?),
        })
    }

    fn ports(&self) -> Result<Arc<Ports>, LaunchError> {
        let mut bound = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ports) = &*bound {
            return Ok(ports.clone());
        }
        Ok(bound.insert(Arc::new(Ports::bind()?)).clone())
    }

    async fn start(
        &self,
        request: LaunchRequest<'_>,
        reservation: Reservation,
    ) -> Result<(Instance, Listeners), LaunchError> {
        let reserved = match reservation.into_guard::<Reserved>() {
            Some(reserved) => reserved,
            // It is another launcher's, and worth nothing here.
            None => self.cores.reserve(&*self.parent, request.resources)?,
        };
        let ports = self.ports()?;
        let enclave = self.start_enclave(request, reserved).await?;
        let cid = enclave.cid;
        let (listeners, registration) = ports.register(cid, enclave.started);
        let console = Console::default();
        let mut reader = JoinSet::new();
        if request.debug {
            reader.spawn(console::read(cid, console.clone()));
        } else {
            console.add(b"(only in debug mode)");
        }
        let machine = NitroMachine::watch(enclave, registration, reader)?;
        tracing::info!(id = %request.id, cid, debug = request.debug, "an enclave was started");
        let instance = Instance::new(Vsock::cid(cid), console, Box::new(machine));
        Ok((instance, listeners))
    }

    /// On a thread that may block. If the one who waits is cancelled, the thread gives up at its
    /// next step, and what it has by then is dropped there.
    async fn start_enclave(
        &self,
        request: LaunchRequest<'_>,
        reserved: Reserved,
    ) -> Result<Enclave, LaunchError> {
        let (sender, started) = oneshot::channel();
        let (parent, image) = (self.parent.clone(), request.eif.to_owned());
        let debug = request.debug;
        spawn_blocking(move || {
            let is_given_up = || sender.is_closed();
            let started = Enclave::start(&*parent, reserved, &image, debug, is_given_up);
            sender.send(started).ok();
        });
        started.await.map_err(|_| LaunchError::GivenUp)?
    }
}

fn preflight(parent: &dyn Parent) -> Result<Finding, LaunchError> {
    parent.check_driver()?;
    let host = parent.resources().map_err(LaunchError::Host)?;
    if host.cores() == 0 {
        return Err(LaunchError::NoCpuPool);
    }
    let found = format!(
        "{DEVICE}; {} CPUs in its pool ({} a core); huge pages free: {}",
        host.cpu_pool.len(),
        host.threads_per_core,
        pages::describe(&host.free)
    );
    Ok(Finding::passed("launcher", found))
}

impl Launcher for Nitro {
    fn preflight(&self) -> Result<Finding, LaunchError> {
        preflight(&*self.parent)
    }

    fn examine(&self) -> Vec<Finding> {
        let ports = {
            // A launch that binds them now waits, and finds them free.
            let bound = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            doctor::look_at_ports(bound.is_some())
        };
        let parent = self.parent.clone();
        doctor::examine(&Sysfs::new("/"), ports, move || preflight(&*parent))
    }

    fn reserve(&self, resources: Resources) -> Result<Reservation, LaunchError> {
        let reserved = self.cores.reserve(&*self.parent, resources)?;
        Ok(Reservation::new(reserved))
    }

    fn launch<'a>(&'a self, request: LaunchRequest<'a>, reservation: Reservation) -> Launching<'a> {
        Box::pin(self.start(request, reservation))
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}
