//! The programs of one enclave: vsock-switch, and QEMU attached to it.

use super::Programs;
use super::config::{Accel, QemuConfig};
use crate::console::Console;
use crate::error::LaunchError;
use crate::launcher::LaunchRequest;
use crate::sys;
use api::EnclaveId;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

pub(super) const QEMU: &str = "qemu-system-x86_64";
pub(super) const DEVICE: &str = "vsock-switch";
/// Any number above that of the parent will do: each enclave has a switch of its own.
const GUEST_CID: u32 = 4;
const DEVICE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Starts the vsock switch, and waits until its sockets are there.
pub(super) async fn start_device(
    programs: &Programs,
    chardev: &Path,
    uds: &Path,
    console: &Console,
) -> Result<Child, LaunchError> {
    let guest = format!(
        "cid={GUEST_CID},socket={},host-cid={},host-path={}",
        chardev.display(),
        wire::PARENT_CID,
        uds.display()
    );
    let mut command = Command::new(&programs.device);
    command.arg("--guest").arg(guest);
    let mut device = start(command, DEVICE, console)?;
    let give_up = Instant::now() + DEVICE_TIMEOUT;
    while !(chardev.exists() && uds.exists()) {
        if let Ok(Some(status)) = device.try_wait() {
            let (status, output) = (status.to_string(), console.tail());
            return Err(LaunchError::Ended {
                name: DEVICE,
                status,
                output,
            });
        }
        if Instant::now() > give_up {
            let source = std::io::ErrorKind::TimedOut.into();
            return Err(LaunchError::Socket {
                path: chardev.to_owned(),
                source,
            });
        }
        sleep(POLL).await;
    }
    Ok(device)
}

/// The id in the enclave's documents, in the form of a Nitro Enclave's: relying parties know an
/// enclave by it.
fn module_id(id: &EnclaveId) -> String {
    let digits = id.as_str().trim_start_matches("e-");
    format!("i-{digits}-enc{digits}")
}

/// Starts QEMU on an enclave image.
pub(super) fn start_qemu(
    programs: &Programs,
    config: &QemuConfig,
    request: LaunchRequest<'_>,
    chardev: &Path,
    console: &Console,
) -> Result<Child, LaunchError> {
    let accel = match config.accel {
        // With a thread for each CPU, QEMU 10.0.2 now and then loses the NSM's interrupt (2 of 25
        // boots), and the guest waits two minutes for it.
        Accel::Tcg => "tcg,thread=single",
        Accel::Kvm => "kvm",
    };
    let mut command = Command::new(&programs.qemu);
    command.arg("-M").arg(format!(
        "nitro-enclave,vsock=c,id={}",
        module_id(request.id)
    ));
    command.arg("-kernel").arg(request.eif);
    command
        .arg("-m")
        .arg(format!("{}M", request.resources.memory_mib));
    command.arg("-smp").arg(request.resources.cpus.to_string());
    command.arg("-accel").arg(accel).arg("-cpu").arg("max");
    command
        .arg("-chardev")
        .arg(format!("socket,id=c,path={}", chardev.display()));
    if !config.nsm_signer.as_os_str().is_empty() {
        command.arg("-chardev").arg(format!(
            "socket,id=nsm,path={}",
            config.nsm_signer.display()
        ));
        command.arg("-global").arg("virtio-nsm-device.signer=nsm");
    }
    command.args([
        "-nographic",
        "-no-reboot",
        "-nodefaults",
        "-serial",
        "stdio",
    ]);
    for directory in &programs.firmware {
        command.arg("-L").arg(directory);
    }
    start(command, QEMU, console)
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
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_carry_the_module_id_of_an_enclave() {
        let id = EnclaveId::try_from("e-0123456789abcdef".to_owned()).unwrap();
        assert_eq!(module_id(&id), "i-0123456789abcdef-enc0123456789abcdef");
    }
}
