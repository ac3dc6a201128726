//! Launches an EIF in QEMU's nitro-enclave machine, with vhost-device-vsock beside it: the same file and the same measurements as on
//! Nitro, on any machine. What is missing is AWS: its NSM signs nothing.

use super::console::Console;
use super::{LaunchError, Listeners, Vsock};
use crate::config::{Accel, QemuConfig};
use crate::record::EnclaveId;
use crate::sys;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use wire::spec::Resources;

const QEMU: &str = "qemu-system-x86_64";
const DEVICE: &str = "vhost-device-vsock";
/// The device answers its guest at CID 2 only; on Nitro the parent is 3.
const APPEND: &str = "agent.parent_cid=2";
/// Any number above 2 will do: each enclave has a device of its own.
const GUEST_CID: u32 = 4;
const DEVICE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Longest path of a unix socket, in bytes (unix(7)), without the `_9004` that the device appends.
const MAX_SOCKET_PATH: usize = 107 - 5;

/// A launcher whose programs were found.
#[derive(Debug, Clone)]
pub struct Qemu {
    qemu: PathBuf,
    device: PathBuf,
    firmware: Vec<PathBuf>,
    config: QemuConfig,
}

/// An enclave's processes. Dropping it kills them and removes their sockets.
#[derive(Debug)]
pub struct Running {
    qemu: Child,
    _device: Child,
    vsock: Vsock,
    console: Console,
    _sockets: tempfile::TempDir,
}

impl Qemu {
    /// Looks in the configured folder, in the sandbox of the cache, and on the PATH.
    pub fn find(config: &QemuConfig) -> Result<Qemu, LaunchError> {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let mut folders = Vec::new();
        if config.folder.as_os_str().is_empty() {
            folders.extend(cache.map(|cache| cache.join("redoubt/sandbox")));
            folders.extend(std::env::split_paths(
                &std::env::var_os("PATH").unwrap_or_default(),
            ));
        } else {
            folders.push(config.folder.clone());
        }
        let find = |name: &'static str| {
            let tried: Vec<PathBuf> = folders.iter().map(|folder| folder.join(name)).collect();
            let found = tried.iter().find(|path| path.is_file()).cloned();
            found.ok_or(LaunchError::Missing { name, tried })
        };
        let qemu = find(QEMU)?;
        // The sandbox keeps its firmware beside its QEMU; an installed QEMU has Debian's places.
        let beside = qemu.parent().map(|folder| folder.join("firmware"));
        let system = ["/usr/share/qemu", "/usr/share/seabios"].map(PathBuf::from);
        let firmware = beside
            .into_iter()
            .chain(system)
            .filter(|folder| folder.is_dir())
            .collect();
        Ok(Qemu {
            device: find(DEVICE)?,
            qemu,
            firmware,
            config: config.clone(),
        })
    }

    /// Whether this machine can give the memory: better known before the launch than from a process that was killed.
    pub fn check_memory(resources: Resources) -> Result<(), LaunchError> {
        let asked_mib = u64::from(resources.memory_mib);
        let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let free_kib = info.lines().find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        });
        match free_kib.map(|kib| kib / 1024) {
            Some(free_mib) if free_mib < asked_mib => Err(LaunchError::Memory {
                asked_mib,
                free_mib,
            }),
            _ => Ok(()),
        }
    }

    /// Starts the enclave. The listeners exist before it does.
    pub async fn launch(
        &self,
        id: &EnclaveId,
        eif: &Path,
        resources: Resources,
        run_dir: &Path,
    ) -> Result<(Running, Listeners), LaunchError> {
        let sockets = tempfile::Builder::new()
            .prefix("e-")
            .rand_bytes(8)
            .tempdir_in(run_dir)
            .map_err(|source| LaunchError::Socket {
                path: run_dir.to_owned(),
                source,
            })?;
        let vsock = Vsock::new(sockets.path().join("v"));
        if vsock.path().as_os_str().len() > MAX_SOCKET_PATH {
            let source = std::io::Error::other(
                "its path is longer than a socket's may be; choose a shorter run_dir",
            );
            return Err(LaunchError::Socket {
                path: vsock.path().to_owned(),
                source,
            });
        }
        let listeners = vsock.listen()?;
        let chardev = sockets.path().join("d");
        let console = Console::default();
        let device = self.start_device(&chardev, &vsock, &console).await?;
        let qemu = self.start_qemu(id, eif, resources, &chardev, &console)?;
        Ok((
            Running {
                qemu,
                _device: device,
                vsock,
                console,
                _sockets: sockets,
            },
            listeners,
        ))
    }

    async fn start_device(
        &self,
        chardev: &Path,
        vsock: &Vsock,
        console: &Console,
    ) -> Result<Child, LaunchError> {
        let vm = format!(
            "guest-cid={GUEST_CID},socket={},uds-path={}",
            chardev.display(),
            vsock.path().display()
        );
        let mut command = Command::new(&self.device);
        command.arg("--vm").arg(vm);
        let mut device = start(command, DEVICE, console)?;
        let give_up = Instant::now() + DEVICE_TIMEOUT;
        while !(chardev.exists() && vsock.path().exists()) {
            if let Ok(Some(status)) = device.try_wait() {
                return Err(LaunchError::Ended {
                    name: DEVICE,
                    status: status.to_string(),
                    output: console.tail(),
                });
            }
            if Instant::now() > give_up {
                let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(LaunchError::Socket {
                    path: chardev.to_owned(),
                    source,
                });
            }
            sleep(POLL).await;
        }
        Ok(device)
    }

    fn start_qemu(
        &self,
        id: &EnclaveId,
        eif: &Path,
        resources: Resources,
        chardev: &Path,
        console: &Console,
    ) -> Result<Child, LaunchError> {
        let Resources { memory_mib, cpus } = resources;
        let accel = match self.config.accel {
            // With a thread for each CPU, QEMU 10.0.2 now and then loses the NSM's interrupt (2 of 25 boots), and the guest waits
            // two minutes for it.
            Accel::Tcg => "tcg,thread=single",
            Accel::Kvm => "kvm",
        };
        let mut command = Command::new(&self.qemu);
        command
            .arg("-M")
            .arg(format!("nitro-enclave,vsock=c,id={id}"));
        command.arg("-kernel").arg(eif);
        command.arg("-append").arg(APPEND);
        command.arg("-m").arg(format!("{memory_mib}M"));
        command.arg("-smp").arg(cpus.to_string());
        command.arg("-accel").arg(accel).arg("-cpu").arg("max");
        command
            .arg("-chardev")
            .arg(format!("socket,id=c,path={}", chardev.display()));
        command.args([
            "-nographic",
            "-no-reboot",
            "-nodefaults",
            "-serial",
            "stdio",
        ]);
        for folder in &self.firmware {
            command.arg("-L").arg(folder);
        }
        start(command, QEMU, console)
    }
}

/// Starts a program that ends with the daemon, with nothing of the daemon's environment.
fn start(
    mut command: Command,
    name: &'static str,
    console: &Console,
) -> Result<Child, LaunchError> {
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    sys::die_with_parent(&mut command);
    let mut child = command
        .spawn()
        .map_err(|source| LaunchError::Start { name, source })?;
    if let Some(stdout) = child.stdout.take() {
        console.collect(stdout);
    }
    if let Some(stderr) = child.stderr.take() {
        console.collect(stderr);
    }
    Ok(child)
}

impl Running {
    pub fn vsock(&self) -> &Vsock {
        &self.vsock
    }

    /// The last lines of the console.
    pub fn console(&self) -> String {
        self.console.tail()
    }

    /// Waits until the enclave is gone. Cancelling is safe.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        self.qemu.wait().await.ok()
    }

    /// Kills what still runs and waits until it is gone.
    pub async fn kill(mut self) {
        let _ = self.qemu.kill().await;
        let _ = self._device.kill().await;
    }
}
