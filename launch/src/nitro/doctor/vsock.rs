//! vsock: this machine's CID, and the ports that enclaves connect to. Sockets alone show both: the
//! daemon's sandbox has no /dev/vsock.

use crate::nitro::host::Sysfs;
use api::Finding;
use nix::errno::Errno;
use nix::libc::{VMADDR_CID_ANY, VMADDR_CID_HOST, VMADDR_PORT_ANY};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, bind, socket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use wire::Port;

pub(super) const WHAT: &str = "vsock";
pub(super) const PORTS: &str = "vsock ports";

/// Every parent instance has it (AWS Nitro Enclaves user guide, "Nitro Enclaves concepts").
const PARENT_CID: u32 = 3;
const TRANSPORT: &str = "vmw_vsock_virtio_transport";

/// Whether a socket can be bound to the CID of a parent instance, and to that of a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    as_parent: Result<(), Errno>,
    as_host: Result<(), Errno>,
}

/// How binding one of the ports ended.
#[derive(Debug, Clone, Copy)]
pub(in crate::nitro) enum PortState {
    /// This daemon listens there.
    Ours,
    /// It was bound and closed again.
    Free,
    /// Another program has it, or it cannot be bound.
    Refused(Port, Errno),
}

/// Asks the kernel.
pub(super) fn local() -> Local {
    Local {
        as_parent: can_bind(PARENT_CID, VMADDR_PORT_ANY),
        as_host: can_bind(VMADDR_CID_HOST, VMADDR_PORT_ANY),
    }
}

fn can_bind(cid: u32, port: u32) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    bind(socket.as_raw_fd(), &VsockAddr::new(cid, port))
}

/// Binds the ports that enclaves connect to, for a moment. To be called while no launch of this
/// daemon can bind them.
pub(in crate::nitro) fn look_at_ports(are_ours: bool) -> Vec<PortState> {
    let ports = [wire::HEARTBEAT_PORT, wire::CONTROL_PORT, wire::EGRESS_PORT];
    let look = |port: Port| {
        if are_ours {
            return PortState::Ours;
        }
        match can_bind(VMADDR_CID_ANY, port.0) {
            Ok(()) => PortState::Free,
            Err(errno) => PortState::Refused(port, errno),
        }
    };
    ports.into_iter().map(look).collect()
}

/// Programs that are known to listen there, and run: their names and process ids. A sandbox may
/// hide them.
pub(super) fn holders(root: &Sysfs) -> Vec<(String, u32)> {
    let processes = root.numbered(Path::new("proc"), "");
    let own = std::process::id();
    let others = processes.into_iter().filter(|id| *id != own);
    others
        .filter_map(|id| {
            let name = root
                .read(&Path::new("proc").join(format!("{id}/comm")))
                .ok()?;
            let name = name.trim();
            ["nitro-cli", "host-proxy"]
                .contains(&name)
                .then(|| (name.to_owned(), id))
        })
        .collect()
}

pub(super) fn check(local: Local) -> Finding {
    match (local.as_parent, local.as_host) {
        (Ok(()), _) => Finding::passed(WHAT, format!("this machine has CID {PARENT_CID}")),
        (Err(Errno::EADDRNOTAVAIL), Ok(())) => Finding::wrong(
            WHAT,
            "this machine is a VM host (CID 2), not a parent instance (CID 3)",
            "Run the daemon on a Nitro parent instance; 'launcher = \"qemu\"' needs none.",
        ),
        (Err(Errno::EADDRNOTAVAIL), Err(_)) => Finding::wrong(
            WHAT,
            format!("this machine does not have CID {PARENT_CID}"),
            format!("Load the driver of its vsock device: 'modprobe {TRANSPORT}'."),
        )
        .with_fix(load(TRANSPORT)),
        (Err(Errno::EAFNOSUPPORT), _) => Finding::wrong(
            WHAT,
            "the kernel has no AF_VSOCK, or the systemd unit's RestrictAddressFamilies forbids it",
            format!(
                "Load it with 'modprobe {TRANSPORT}', and add AF_VSOCK to RestrictAddressFamilies."
            ),
        )
        .with_fix(load(TRANSPORT)),
        (Err(errno), _) => Finding::not_checked(WHAT, errno.desc()),
    }
}

fn load(module: &str) -> [String; 2] {
    [
        format!("modprobe {module}"),
        format!("echo {module} >/etc/modules-load.d/{module}.conf"),
    ]
}

pub(super) fn check_ports(ports: &[PortState], holders: &[(String, u32)]) -> Finding {
    let refused = ports.iter().find_map(|state| match state {
        PortState::Refused(port, errno) => Some((port.0, *errno)),
        PortState::Ours | PortState::Free => None,
    });
    let are_ours = ports.iter().any(|state| matches!(state, PortState::Ours));
    match refused {
        None if are_ours => Finding::passed(PORTS, "this daemon listens for its enclaves"),
        None => Finding::passed(PORTS, "free"),
        Some((port, Errno::EADDRINUSE)) => taken(port, holders),
        Some((port, errno)) => Finding::not_checked(PORTS, format!("{port}: {}", errno.desc())),
    }
}

fn taken(port: u32, holders: &[(String, u32)]) -> Finding {
    let holder = |name: &str| holders.iter().find(|(holder, _)| holder == name);
    if let Some((name, id)) = holder("nitro-cli") {
        return Finding::wrong(
            PORTS,
            format!("{name} (process {id}) runs, and port {port} is taken"),
            "Wait for 'nitro-cli run-enclave' to end; it holds port 9000 while it starts an enclave.",
        )
        .with_fix([format!("tail --pid={id} -f /dev/null")]);
    }
    if holder("host-proxy").is_some() {
        let why = format!(
            "port {port} is taken, most likely by the host-proxy that runs; 'enclavectl doctor' asks it"
        );
        return Finding::not_checked(PORTS, why);
    }
    Finding::wrong(
        PORTS,
        format!("another program has port {port}"),
        "Stop it: 'ss --vsock -lp' names it. Usually it is 'nitro-cli run-enclave' or another host-proxy.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nitro::host::tree;

    fn text(as_parent: Result<(), Errno>, as_host: Result<(), Errno>) -> String {
        let finding = check(Local { as_parent, as_host });
        finding.to_string()
    }

    #[test]
    fn a_parent_instance_has_cid_3() {
        let not_ours = Err(Errno::EADDRNOTAVAIL);
        let unsupported = Err(Errno::EAFNOSUPPORT);
        assert_eq!(text(Ok(()), not_ours), "✓ vsock: this machine has CID 3");
        // A parent that runs virtual machines of its own.
        assert_eq!(text(Ok(()), Ok(())), "✓ vsock: this machine has CID 3");
        for (finding, expected) in [
            (text(not_ours, Ok(())), "✗ vsock: this machine is a VM host"),
            (
                text(not_ours, not_ours),
                "✗ vsock: this machine does not have CID 3",
            ),
            (
                text(unsupported, unsupported),
                "✗ vsock: the kernel has no AF_VSOCK",
            ),
            (text(Err(Errno::EMFILE), not_ours), "- vsock: not checked: "),
        ] {
            assert!(finding.starts_with(expected), "{finding}");
        }
    }

    #[test]
    fn a_taken_port_names_who_has_it() {
        let taken = [
            PortState::Free,
            PortState::Refused(Port(9000), Errno::EADDRINUSE),
        ];
        let by = |names: &[&str]| {
            let holders: Vec<_> = names.iter().map(|name| ((*name).to_owned(), 7)).collect();
            check_ports(&taken, &holders)
        };
        let finding = by(&["host-proxy", "nitro-cli"]);
        assert_eq!(
            finding.detail,
            "nitro-cli (process 7) runs, and port 9000 is taken"
        );
        assert!(
            by(&["host-proxy"])
                .to_string()
                .starts_with("- vsock ports: not checked: ")
        );
        let finding = by(&[]);
        assert_eq!(finding.detail, "another program has port 9000");
        assert!(finding.is_failed());
    }

    #[test]
    fn free_ports_and_our_own_will_do() {
        let free = check_ports(&[PortState::Free; 3], &[]);
        assert_eq!(free.to_string(), "✓ vsock ports: free");
        let ours = check_ports(&look_at_ports(true), &[]);
        assert_eq!(
            ours.to_string(),
            "✓ vsock ports: this daemon listens for its enclaves"
        );
        let odd = check_ports(&[PortState::Refused(Port(9001), Errno::EAFNOSUPPORT)], &[]);
        assert!(
            odd.to_string()
                .starts_with("- vsock ports: not checked: 9001: ")
        );
    }

    #[test]
    fn who_may_have_a_port_is_found_among_the_processes() {
        let own = format!("proc/{}/comm", std::process::id());
        let (_directory, root) = tree(&[
            ("proc/11/comm", "nitro-cli\n"),
            ("proc/12/comm", "bash\n"),
            ("proc/self/comm", "host-proxy\n"),
            (&own, "host-proxy\n"),
        ]);
        assert_eq!(holders(&root), [("nitro-cli".to_owned(), 11)]);
    }
}
