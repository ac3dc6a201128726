//! Launches an enclave image in QEMU's nitro-enclave machine, with vsock-switch beside it:
//! the same file and the same measurements as on Nitro, on any machine. What is missing is AWS: its
//! NSM signs nothing, unless it is given a stand-in that does.

mod config;
mod device;

pub use config::{Accel, QemuConfig};

use self::device::{DEVICE, QEMU, start_device, start_qemu};
use super::memory::available_mib;
use super::{
    Console, Evidence, Instance, LaunchError, LaunchRequest, Launcher, Launching, Listeners,
    Machine, MemoryPool, Reservation, Vsock,
};
use api::Finding;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::process::Child;
use wire::spec::Resources;

/// Longest path of a unix socket, in bytes (unix(7)), without the `_9004` that the device appends.
const MAX_SOCKET_PATH: usize = 107 - 5;

/// The launcher.
#[derive(Debug)]
pub(super) struct Qemu {
    config: QemuConfig,
    pool: MemoryPool,
    evidence: Evidence,
}

/// What a launch needs, as it was found.
#[derive(Debug)]
struct Programs {
    qemu: PathBuf,
    device: PathBuf,
    firmware: Vec<PathBuf>,
}

impl Qemu {
    pub(super) fn new(config: QemuConfig) -> Qemu {
        Qemu {
            config,
            pool: MemoryPool::default(),
            evidence: Evidence::emulated(),
        }
    }

    /// Looks in the configured directory; without one, in the sandbox of the cache and on the PATH.
    /// The switch is ours, so that it is also looked for beside the program that runs.
    fn find(&self) -> Result<Programs, LaunchError> {
        let directories = self.directories();
        let qemu = find(QEMU, &directories)?;
        let device = find(DEVICE, &with_own(directories, &self.config.directory))?;
        // The sandbox keeps its firmware beside its QEMU; an installed QEMU has Debian's places.
        let beside = qemu.parent().map(|directory| directory.join("firmware"));
        let system = ["/usr/share/qemu", "/usr/share/seabios"].map(PathBuf::from);
        let firmware = beside
            .into_iter()
            .chain(system)
            .filter(|directory| directory.is_dir())
            .collect();
        Ok(Programs {
            device,
            qemu,
            firmware,
        })
    }

    fn directories(&self) -> Vec<PathBuf> {
        if !self.config.directory.as_os_str().is_empty() {
            return vec![self.config.directory.clone()];
        }
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let sandbox = cache.map(|cache| cache.join("redoubt/sandbox"));
        sandbox
            .into_iter()
            .chain(std::env::split_paths(&path))
            .collect()
    }

    async fn start(
        &self,
        request: LaunchRequest<'_>,
        reservation: Reservation,
    ) -> Result<(Instance, Listeners), LaunchError> {
        if request.debug {
            return Err(LaunchError::DebugUnsupported);
        }
        let programs = self.find()?;
        let socket = |source| LaunchError::Socket {
            path: request.run_dir.to_owned(),
            source,
        };
        let mut sockets = tempfile::Builder::new();
        let sockets = sockets
            .prefix("e-")
            .rand_bytes(8)
            .tempdir_in(request.run_dir);
        let sockets = sockets.map_err(socket)?;
        let uds = sockets.path().join("v");
        if uds.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(LaunchError::PathTooLong {
                path: uds,
                limit: MAX_SOCKET_PATH,
            });
        }
        let listeners = Listeners::unix(&uds)?;
        let chardev = sockets.path().join("d");
        let console = Console::default();
        let device = start_device(&programs, &chardev, &uds, &console).await?;
        let qemu = start_qemu(&programs, &self.config, request, &chardev, &console)?;
        if let Some(pid) = qemu.id() {
            self.pool.taken_by(&reservation, pid);
        }
        let processes = Processes {
            qemu,
            device,
            _sockets: sockets,
            _reservation: reservation,
        };
        Ok((
            Instance::new(Vsock::unix(uds), console, Box::new(processes)),
            listeners,
        ))
    }
}

/// The program of this name in the first of the directories that has it.
fn find(name: &'static str, directories: &[PathBuf]) -> Result<PathBuf, LaunchError> {
    let tried: Vec<PathBuf> = directories
        .iter()
        .map(|directory| directory.join(name))
        .collect();
    let found = tried.iter().find(|path| path.is_file()).cloned();
    found.ok_or(LaunchError::Missing { name, tried })
}

/// The directory of the program that runs comes after the configured one, and before all others.
fn with_own(mut directories: Vec<PathBuf>, configured: &Path) -> Vec<PathBuf> {
    let own = std::env::current_exe().ok();
    let at = usize::from(!configured.as_os_str().is_empty());
    if let Some(directory) = own.as_deref().and_then(Path::parent) {
        directories.insert(at.min(directories.len()), directory.to_owned());
    }
    directories
}

impl Launcher for Qemu {
    fn preflight(&self) -> Result<Finding, LaunchError> {
        let Programs {
            qemu,
            device,
            firmware: _,
        } = self.find()?;
        let found = format!(
            "QEMU at {}, vsock switch at {}",
            qemu.display(),
            device.display()
        );
        Ok(Finding::passed("launcher", found))
    }

    fn reserve(&self, resources: Resources) -> Result<Reservation, LaunchError> {
        self.pool.reserve(resources, available_mib())
    }

    fn launch<'a>(&'a self, request: LaunchRequest<'a>, reservation: Reservation) -> Launching<'a> {
        Box::pin(self.start(request, reservation))
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

/// An enclave's processes. Dropping them kills them and removes their sockets.
#[derive(Debug)]
struct Processes {
    qemu: Child,
    device: Child,
    _sockets: tempfile::TempDir,
    _reservation: Reservation,
}

impl Machine for Processes {
    fn ended(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // That waiting fails means that there is no such process any more.
            self.qemu.wait().await.ok();
        })
    }

    fn kill(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            for process in [&mut self.qemu, &mut self.device] {
                if let Err(error) = process.kill().await {
                    tracing::warn!(%error, "a process of an enclave cannot be killed");
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_looked_for_beside_the_running_program() {
        let own = std::env::current_exe().unwrap();
        let own = own.parent().unwrap().to_owned();
        let (first, second) = (PathBuf::from("/first"), PathBuf::from("/second"));
        assert_eq!(
            with_own(vec![first.clone()], &first),
            [first.clone(), own.clone()]
        );
        assert_eq!(
            with_own(vec![first.clone(), second.clone()], Path::new("")),
            [own, first, second]
        );
    }
}
