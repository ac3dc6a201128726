//! An enclave: QEMU's nitro-enclave machine beside the parent's.

use crate::process::{self, Process};
use crate::slots::Slot;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use vsock_switch::{Guest, GuestConfig, Switch};

/// `NE_ENCLAVE_DEBUG_MODE` of linux/nitro_enclaves.h.
const DEBUG: u64 = 1;
/// Where a parent reaches the console of a debug enclave: CID 0, this port and the enclave's CID
/// (nitro-cli's `CID_TO_CONSOLE_PORT_OFFSET`).
const CONSOLE_PORT: u64 = 10_000;
const MIB: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(20);

/// What every enclave of this parent needs.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) qemu: PathBuf,
    pub(crate) firmware: PathBuf,
    /// For images, consoles and sockets; a short path.
    pub(crate) directory: PathBuf,
    /// Where the signer of attestation documents listens.
    pub(crate) signer: PathBuf,
    /// Beside which the switch looks for what the parent connects to at CID 0.
    pub(crate) parent_host: PathBuf,
    pub(crate) switch: Switch,
}

/// A running enclave. Dropping it ends it, and removes its files.
#[derive(Debug)]
pub(crate) struct Sibling {
    process: Process,
    console: PathBuf,
    over: Arc<AtomicBool>,
    files: Vec<PathBuf>,
    _guest: Guest,
}

impl Surroundings {
    pub(crate) fn eif(&self, slot: u64) -> PathBuf {
        self.directory.join(format!("slot-{slot:x}.eif"))
    }

    /// Starts the enclave of a slot on the image that was put at `eif`.
    pub(crate) fn start(
        &self,
        number: u64,
        slot: &Slot,
        cid: u64,
        flags: u64,
    ) -> io::Result<Sibling> {
        let console = self.directory.join(format!("slot-{number:x}.console"));
        let socket = self.directory.join(format!("e{cid}"));
        let guest = self.switch.attach(GuestConfig {
            cid: u32::try_from(cid).map_err(io::Error::other)?,
            socket: socket.clone(),
            host: None,
        });
        let guest = guest.map_err(io::Error::other)?;
        let output = File::create(&console)?;
        let mut command = process::command(&self.qemu);
        let eif = self.eif(number);
        command
            .arg("-M")
            .arg(format!(
                "nitro-enclave,vsock=c,id=i-0123456789abcdef0-enc{number:x}"
            ))
            .arg("-kernel")
            .arg(&eif)
            .args(["-m", &format!("{}M", slot.memory() / MIB)])
            .args(["-smp", &slot.cpus.len().to_string()])
            .args(["-accel", "tcg,thread=single", "-cpu", "max"])
            .arg("-chardev")
            .arg(format!("socket,id=c,path={}", socket.display()))
            .arg("-chardev")
            .arg(format!("socket,id=nsm,path={}", self.signer.display()))
            .args(["-global", "virtio-nsm-device.signer=nsm"])
            .args([
                "-nographic",
                "-no-reboot",
                "-nodefaults",
                "-serial",
                "stdio",
            ])
            .arg("-L")
            .arg(&self.firmware)
            .stderr(output.try_clone()?)
            .stdout(output);
        let over = Arc::new(AtomicBool::new(false));
        let mut files = vec![eif, console.clone()];
        if flags & DEBUG != 0 {
            command.args(["-global", "virtio-nsm-device.debug=on"]);
            let path = self.console_socket(cid);
            let listener = UnixListener::bind(&path)?;
            files.push(path);
            let over = Arc::clone(&over);
            let console = console.clone();
            thread::spawn(move || show_console(&listener, &console, &over));
        }
        Ok(Sibling {
            process: Process::start(command)?,
            console,
            over,
            files,
            _guest: guest,
        })
    }

    fn console_socket(&self, cid: u64) -> PathBuf {
        let mut path = self.parent_host.clone().into_os_string();
        path.push(format!("_{}", CONSOLE_PORT + cid));
        path.into()
    }
}

impl Sibling {
    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }

    /// The last lines of its console, on one line.
    pub(crate) fn console(&self) -> String {
        let text = std::fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines[lines.len().saturating_sub(8)..].join(" | ")
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Sibling {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for path in &self.files {
            // A file that is gone already is no loss.
            std::fs::remove_file(path).ok();
        }
    }
}

/// Everything that was printed, and what is printed from now on, for whoever connects.
fn show_console(listener: &UnixListener, path: &Path, over: &Arc<AtomicBool>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !over.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept()
            && let Ok(console) = File::open(path)
        {
            let over = Arc::clone(over);
            // Who stops reading has seen enough.
            thread::spawn(move || follow(console, stream, &over).ok());
        }
        thread::sleep(POLL);
    }
}

fn follow(mut console: File, mut stream: UnixStream, over: &AtomicBool) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut piece = [0; 4096];
    loop {
        let last = over.load(Ordering::Relaxed);
        let length = console.read(&mut piece)?;
        if length > 0 {
            stream.write_all(&piece[..length])?;
        } else if last {
            return Ok(());
        } else {
            thread::sleep(POLL);
        }
    }
}
