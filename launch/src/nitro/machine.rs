//! An enclave of the driver, from its slot to its end.

use super::driver::{Parent, Vm};
use super::errors::{DriverError, DriverStep};
use super::memory;
use super::ports::Registration;
use super::reserve::Reserved;
use crate::error::LaunchError;
use crate::instance::Machine;
use crate::sys;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::time::Instant;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};

/// An enclave that runs, and what it took. Dropping it ends the enclave, then unmaps its memory,
/// then gives its cores back: as it blocks, on a thread where that is allowed.
#[derive(Debug)]
pub(super) struct Enclave {
    pub(super) cid: u32,
    /// Just before it was started: no connection from before is its own.
    pub(super) started: Instant,
    parts: Option<Parts>,
}

/// Dropped in this order.
#[derive(Debug)]
struct Parts {
    vm: Box<dyn Vm>,
    reserved: Reserved,
}

impl Enclave {
    /// Makes a slot, fills it and starts it. Blocks. Between its steps it looks whether it was
    /// given up.
    ///
    /// # Errors
    /// [`LaunchError::Driver`] says which step failed; nothing is left then.
    pub(super) fn start(
        parent: &dyn Parent,
        reserved: Reserved,
        image: &Path,
        debug: bool,
        is_given_up: impl Fn() -> bool,
    ) -> Result<Enclave, LaunchError> {
        let go_on = || {
            if is_given_up() {
                return Err(LaunchError::GivenUp);
            }
            Ok(())
        };
        let vm = parent.create_vm()?;
        let parts = Parts { vm, reserved };
        let Parts { vm, reserved } = &parts;
        let offset = vm.image_load_offset();
        let offset = offset.map_err(DriverStep::ImageLoadInfo.failed())?;
        go_on()?;
        memory::fill(&*reserved.memory, &reserved.plan, image, offset)?;
        go_on()?;
        give(&**vm, reserved)?;
        go_on()?;
        let started = Instant::now();
        let cid = vm.start(debug).map_err(DriverStep::Start.failed())?;
        let cid = u32::try_from(cid).map_err(|_| LaunchError::Cid(cid))?;
        Ok(Enclave {
            cid,
            started,
            parts: Some(parts),
        })
    }

    /// Another descriptor of the same slot, which hangs up when the enclave ends.
    fn descriptor(&self) -> io::Result<OwnedFd> {
        let parts = self.parts.as_ref().ok_or(io::ErrorKind::NotFound)?;
        parts.vm.as_fd().try_clone_to_owned()
    }
}

/// Gives the enclave its memory, in the order in which its image was laid out, and its CPUs.
fn give(vm: &dyn Vm, reserved: &Reserved) -> Result<(), DriverError> {
    for region in reserved.plan.regions() {
        let added = vm.add_memory(&*reserved.memory, region);
        added.map_err(DriverStep::AddMemory.failed())?;
    }
    for _ in 0..reserved.cpus {
        vm.add_vcpu().map_err(DriverStep::AddVcpu.failed())?;
    }
    Ok(())
}

impl Drop for Enclave {
    fn drop(&mut self) {
        let parts = self.parts.take();
        if parts.is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(parts));
        }
    }
}

/// An enclave that is watched. The fields are dropped in their order.
#[derive(Debug)]
pub(super) struct NitroMachine {
    /// First: once it has ended, its CID may be another's.
    registration: Registration,
    /// Before the enclave, whose slot is freed with its last descriptor.
    hangup: AsyncFd<OwnedFd>,
    /// What reads the console; aborted with the machine.
    _console: JoinSet<()>,
    enclave: Enclave,
}

impl NitroMachine {
    /// To be called inside of a tokio runtime.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub(super) fn watch(
        enclave: Enclave,
        registration: Registration,
        console: JoinSet<()>,
    ) -> Result<NitroMachine, LaunchError> {
        let hangup = enclave.descriptor().and_then(sys::watch);
        Ok(NitroMachine {
            registration,
            hangup: hangup.map_err(LaunchError::Watch)?,
            _console: console,
            enclave,
        })
    }
}

impl Machine for NitroMachine {
    fn ended(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // The driver shows nothing but the end. An error would mean that the runtime ends.
            while let Ok(mut guard) = self.hangup.readable().await {
                if guard.ready().is_read_closed() {
                    return;
                }
                guard.clear_ready();
            }
        })
    }

    fn kill(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let NitroMachine {
                registration,
                hangup,
                _console: console,
                mut enclave,
            } = *self;
            drop((registration, hangup, console));
            let parts = enclave.parts.take();
            // That it panics, or never runs, means that the runtime ends, and all enclaves with it.
            spawn_blocking(move || drop(parts)).await.ok();
        })
    }
}
