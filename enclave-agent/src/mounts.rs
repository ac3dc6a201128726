//! Mount tables as data: what the kernel offers, once for the agent and once inside the workload's
//! root.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::io;
use std::path::Path;

/// Where the workload's root is before it is the workload's.
pub(crate) const ROOT: &str = "/run/root";

/// One line of a mount table.
pub(crate) struct Mount {
    pub(crate) kind: &'static str,
    pub(crate) target: &'static str,
    pub(crate) flags: MsFlags,
    pub(crate) options: &'static str,
    /// An enclave can do without it: kernels differ.
    pub(crate) optional: bool,
}

pub(crate) const SAFE: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

pub(crate) const KERNEL: [Mount; 3] = [
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        flags: MsFlags::MS_NOSUID,
        options: "mode=0755",
        optional: false,
    },
    Mount {
        kind: "proc",
        target: "/proc",
        flags: SAFE,
        options: "",
        optional: false,
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
        flags: SAFE,
        options: "",
        optional: false,
    },
];

/// A privileged workload's `/dev`.
pub(crate) const MACHINE_DEVICES: Mount = Mount {
    kind: "devtmpfs",
    target: "/dev",
    flags: MsFlags::MS_NOSUID,
    options: "mode=0755",
    optional: false,
};

/// Any other's. Devices work in it; what is in it, the agent puts there.
pub(crate) const OWN_DEVICES: Mount = Mount {
    kind: "tmpfs",
    target: "/dev",
    flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
    options: "mode=0755,size=64k",
    optional: false,
};

/// What both have below it; the rest of the kernel's file systems shows namespaces, and is mounted
/// in them.
pub(crate) const WORKLOAD: [Mount; 2] = [
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "newinstance,ptmxmode=0666,mode=0620",
        optional: true,
    },
    Mount {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: SAFE,
        options: "mode=1777",
        optional: false,
    },
];

/// The kernel may have mounted `/dev` itself; that is as good.
pub(crate) fn kernel_file_systems() -> io::Result<()> {
    KERNEL.iter().try_for_each(|entry| entry.mount_below("/"))
}

impl Mount {
    /// Mounts below `root`, where the directory is made if it is missing.
    pub(crate) fn mount_below(&self, root: &str) -> io::Result<()> {
        let Mount {
            kind,
            target,
            flags,
            options,
            optional,
        } = self;
        let target = Path::new(root).join(target.trim_start_matches('/'));
        let made = std::fs::create_dir_all(&target);
        let mounted = made.and_then(|()| {
            Ok(mount(
                Some(*kind),
                &target,
                Some(*kind),
                *flags,
                Some(*options),
            )?)
        });
        match mounted {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) || *optional => Ok(()),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("{kind} on {}: {error}", target.display()),
            )),
            Ok(()) => Ok(()),
        }
    }
}

/// The kernel opened no console for us, because `/dev` was empty then.
pub(crate) fn reopen_console() {
    let console = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console");
    // Without a console there is nowhere to report that.
    if let Ok(console) = console {
        nix::unistd::dup2_stdin(&console).ok();
        nix::unistd::dup2_stdout(&console).ok();
        nix::unistd::dup2_stderr(&console).ok();
    }
}
