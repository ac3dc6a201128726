//! The parent instance: its guest, its hypervisor and its signer, from boot to end.

use crate::faults::Faults;
use crate::forward;
use crate::hypervisor::{Events, Hypervisor};
use crate::memory::Memory;
use crate::process::{self, Process};
use crate::shell::{self, Output};
use crate::sibling::Surroundings;
use anyhow::{Context as _, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use pki::Signer;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vsock_switch::{Guest, GuestConfig, HostSide, Switch};

/// The guest's memory, in MiB. Below 2816 all of it lies below 4 GiB, in one piece, as `Memory`
/// wants it.
const MEMORY_MIB: u32 = 2560;
/// Of the disk that keeps what the guest writes, in bytes; sparse.
const DISK: u64 = 8 << 30;
const PARENT_CID: u32 = 3;
/// The guest sees connections from this machine as from its host.
const HOST_CID: u32 = 2;
const BOOT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=t mitigations=off audit=0 \
    random.trust_cpu=on init_on_alloc=0 hugetlb_free_vmemmap=off \
    modprobe.blacklist=kvm_amd,kvm_intel,kvm systemd.show_status=no";

/// What a parent instance is made of.
#[derive(Debug, Clone)]
pub struct Files {
    /// `vmlinuz`, `initrd` and `root.squashfs`, as `scripts/parent` makes them.
    pub machine: PathBuf,
    /// What the guest sees as /opt/redoubt.
    pub tree: PathBuf,
    /// `qemu-system-x86_64` and `firmware`, as `scripts/sandbox` makes them.
    pub sandbox: PathBuf,
    /// The key below which attestation documents are signed; made if it is missing.
    pub signer: PathBuf,
}

/// A running parent instance. Dropping it ends it, and its enclaves.
#[derive(Debug)]
pub struct Machine {
    qemu: Process,
    hypervisor: Arc<Hypervisor>,
    faults: Faults,
    events: Events,
    host: PathBuf,
    root: Vec<u8>,
    _guest: Guest,
    directory: TempDir,
    _memory: OwnedFd,
}

impl Files {
    /// The usual places below the directory that `scripts/parent` fills.
    #[must_use]
    pub fn below(directory: &Path) -> Files {
        Files {
            machine: directory.join("machine"),
            tree: directory.to_owned(),
            sandbox: directory.join("sandbox"),
            signer: directory.join("signer"),
        }
    }

    /// The disk that is /opt/redoubt in the guest, with the root of this machine's signatures.
    fn pack(&self, root: &Path, disk: &Path) -> anyhow::Result<()> {
        let mut command = Command::new("mksquashfs");
        let parts = ["bin", "lib", "systemd", "packages"].map(|name| self.tree.join(name));
        // Packages are made for their own journey only.
        command.args(parts.iter().filter(|part| part.exists()));
        // Not compressed: it is read once.
        command.arg(root).arg(disk);
        command.args([
            "-quiet",
            "-no-progress",
            "-all-root",
            "-noI",
            "-noD",
            "-noF",
            "-noX",
        ]);
        let output = command.output().context("mksquashfs, of squashfs-tools")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mksquashfs failed: {said}");
        Ok(())
    }
}

/// A disk to write to, empty but for its file system.
fn empty_disk(disk: &Path) -> anyhow::Result<()> {
    File::create(disk)?.set_len(DISK)?;
    let mut command = Command::new("mke2fs");
    command.args([
        "-q",
        "-t",
        "ext4",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1",
    ]);
    let output = command.arg(disk).output().context("mke2fs, of e2fsprogs")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mke2fs failed: {said}");
    Ok(())
}

impl Machine {
    /// Starts a parent instance, and waits until commands can be run in it.
    ///
    /// # Errors
    /// A file or program is missing, or the guest does not boot within three minutes.
    pub fn boot(files: &Files) -> anyhow::Result<Machine> {
        // Short, because socket paths have at most 107 bytes.
        let directory = TempDir::with_prefix_in("rp", "/tmp")?;
        let path = |name: &str| directory.path().join(name);
        let host = path("v");
        std::fs::create_dir_all(&files.signer)?;
        let signer = Signer::open(&files.signer)?;
        let root = signer.root_der().to_vec();
        let listener = UnixListener::bind(path("nsm"))?;
        thread::spawn(move || signer.serve(listener));
        files.pack(&files.signer.join("root.pem"), &path("tree"))?;
        empty_disk(&path("disk"))?;
        let switch = Switch::new()?;
        let guest = switch.attach(GuestConfig {
            cid: PARENT_CID,
            socket: path("p"),
            host: Some(HostSide {
                cid: HOST_CID,
                path: host.clone(),
            }),
        })?;
        let device = UnixListener::bind(path("ne"))?;
        let (memory, memory_path) = guest_memory()?;
        let command = command(files, directory.path(), &memory_path)?;
        let mut qemu = Process::start(command)?;
        let from_guest = attach(&mut qemu, &device, directory.path())?;
        let surroundings = Surroundings {
            qemu: files.sandbox.join("qemu-system-x86_64"),
            firmware: files.sandbox.join("firmware"),
            directory: directory.path().to_owned(),
            signer: path("nsm"),
            parent_host: host.clone(),
            switch,
        };
        let (faults, events) = (Faults::default(), Events::default());
        let hypervisor = Arc::new(Hypervisor::new(
            surroundings,
            Memory::open(&memory_path)?,
            faults.clone(),
            events.clone(),
            from_guest.try_clone()?,
        ));
        let serving = Arc::clone(&hypervisor);
        thread::spawn(move || serving.serve(from_guest));
        let mut machine = Machine {
            qemu,
            hypervisor,
            faults,
            events,
            host,
            root,
            _guest: guest,
            directory,
            _memory: memory,
        };
        machine.wait()?;
        Ok(machine)
    }

    /// Waits until the guest takes commands: after a boot, or a reboot.
    ///
    /// # Errors
    /// It does not within three minutes, or it ends.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let give_up = Instant::now() + BOOT;
        while Instant::now() < give_up {
            if let Some(status) = self.qemu.ended() {
                bail!("the guest ended ({status}): {}", self.console());
            }
            // The first one that goes through says that the guest is up.
            if let Ok(output) = shell::run(&self.host, "true", None, Duration::from_secs(60))
                && output.code == 0
            {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!(
            "the guest is not up after {} s: {}",
            BOOT.as_secs(),
            self.console()
        );
    }

    /// Runs a command in the guest, as root, by `bash -c`.
    ///
    /// # Errors
    /// The guest is gone, or says nothing for so long.
    pub fn run(&self, command: &str, limit: Duration) -> anyhow::Result<Output> {
        shell::run(&self.host, command, None, limit)
            .with_context(|| format!("'{command}' in the guest: {}", self.console()))
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// The guest is gone, or has no such directory.
    pub fn put(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let command = format!("umask 077; cat >'{path}'");
        let output = shell::run(&self.host, &command, Some(content), Duration::from_secs(30))?;
        ensure!(output.code == 0, "{path}: {}", output.stderr);
        Ok(())
    }

    /// What listens on this machine's 127.0.0.1 listens at an address of the guest, too, until the
    /// guest is booted anew.
    ///
    /// # Errors
    /// The guest is gone, or something listens there already.
    pub fn bring(&self, port: u16, guest: SocketAddr) -> anyhow::Result<()> {
        let mut path = self.host.clone().into_os_string();
        path.push(format!("_{port}"));
        let path = PathBuf::from(path);
        if !path.exists() {
            let listener = UnixListener::bind(path)?;
            thread::spawn(move || to_loopback(&listener, port));
        }
        let name = guest.to_string().replace([':', '.'], "-");
        let command = format!(
            "systemd-run --quiet --service-type=notify --unit=forward-{name} \
             /opt/redoubt/bin/guest-shell forward {guest} {port}"
        );
        let output = self.run(&command, Duration::from_secs(60))?;
        ensure!(output.code == 0, "{guest}: {}", output.stderr);
        Ok(())
    }

    /// By which `shell::connect` reaches the guest.
    #[must_use]
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// The root below which its enclaves' documents are signed, in DER.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Where its sockets are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What the hypervisor did.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    #[must_use]
    pub fn hypervisor(&self) -> &Hypervisor {
        &self.hypervisor
    }

    /// The last lines of the guest's console.
    #[must_use]
    pub fn console(&self) -> String {
        let text = std::fs::read(self.directory.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Ends with the process: what a test brings lives as long as the test.
fn to_loopback(listener: &UnixListener, port: u16) {
    for stream in listener.incoming().flatten() {
        if let Ok(to) = TcpStream::connect(("127.0.0.1", port)) {
            thread::spawn(move || forward::both_ways(stream.into(), to.into()));
        }
    }
}

/// The guest's memory, in no file: it is gone with the processes that have it. QEMU and the
/// hypervisor open it by the path.
fn guest_memory() -> anyhow::Result<(OwnedFd, PathBuf)> {
    let memory = memfd_create(c"parent", MFdFlags::MFD_CLOEXEC)?;
    ftruncate(&memory, i64::from(MEMORY_MIB) << 20)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    Ok((memory, path.into()))
}

/// The guest's QEMU. Four cores of two threads: core 0 stays with the guest, the others are for
/// enclaves.
fn command(files: &Files, directory: &Path, memory: &Path) -> anyhow::Result<Command> {
    let path = |name: &str| directory.join(name).display().to_string();
    let machine = |name: &str| files.machine.join(name);
    let mut command = process::command(files.sandbox.join("qemu-system-x86_64"));
    let drive = |file: String, options: &str| {
        [
            "-drive".to_owned(),
            format!("file={file},format=raw,if=virtio,{options}"),
        ]
    };
    command
        .args(["-M", "q35,memory-backend=ram,sata=off,smm=off,usb=off"])
        // With a thread for each CPU, QEMU 10.0.2 crashes in one of six boots: a CPU that wakes up
        // uses an address space that another one has just replaced (two cores that booted so).
        .args(["-accel", "tcg,thread=single"])
        .args(["-cpu", "max,vendor=GenuineIntel"])
        .args(["-smp", "8,sockets=1,cores=4,threads=2"])
        .args(["-m", &format!("{MEMORY_MIB}M")])
        .arg("-object")
        .arg(format!(
            "memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={},share=on",
            memory.display()
        ))
        .arg("-kernel")
        .arg(machine("vmlinuz"))
        .arg("-initrd")
        .arg(machine("initrd"))
        .args(["-append", CMDLINE])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(drive(
            machine("root.squashfs").display().to_string(),
            "readonly=on",
        ))
        .args(drive(path("disk"), "cache=unsafe"))
        .args(drive(path("tree"), "readonly=on"))
        .args(["-device", "virtio-rng-pci"])
        .args(["-serial", &format!("file:{}", path("console"))])
        .args(["-chardev", &format!("socket,id=ne,path={}", path("ne"))])
        .args(["-device", "nitro-enclaves-pci,chardev=ne"])
        .args(["-chardev", &format!("socket,id=vs,path={}", path("p"))])
        .args(["-device", "vhost-user-vsock-pci,chardev=vs"])
        .arg("-L")
        .arg(files.sandbox.join("firmware"));
    let log = File::create(directory.join("qemu.log"))?;
    command.stdout(Stdio::null()).stderr(log);
    Ok(command)
}

/// The device's connection.
fn attach(
    qemu: &mut Process,
    device: &UnixListener,
    directory: &Path,
) -> anyhow::Result<UnixStream> {
    device.set_nonblocking(true)?;
    let give_up = Instant::now() + Duration::from_secs(20);
    while Instant::now() < give_up {
        if let Some(status) = qemu.ended() {
            let log = std::fs::read_to_string(directory.join("qemu.log")).unwrap_or_default();
            bail!("QEMU ended ({status}): {log}");
        }
        if let Ok((stream, _)) = device.accept() {
            stream.set_nonblocking(false)?;
            return Ok(stream);
        }
        thread::sleep(POLL);
    }
    bail!("QEMU does not start");
}
