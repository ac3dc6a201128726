//! The workload's view of files: its image, its devices and its part of the kernel's file systems,
//! and nothing else. Runs in init, in mount, process, IPC, control group and network namespaces of
//! the workload.

use crate::mounts::{Mount, ROOT};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};
use std::io;
use std::path::{Path, PathBuf};

const SAFE: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// What shows the namespaces that it is mounted in.
pub(crate) const INSIDE: [Mount; 4] = [
    Mount {
        kind: "mqueue",
        target: "/dev/mqueue",
        flags: SAFE,
        options: "",
        optional: true,
    },
    Mount {
        kind: "proc",
        target: "/proc",
        flags: SAFE,
        options: "hidepid=invisible",
        optional: false,
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
        flags: SAFE.union(MsFlags::MS_RDONLY),
        options: "",
        optional: false,
    },
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: SAFE.union(MsFlags::MS_RDONLY),
        options: "",
        optional: true,
    },
];

/// The directories of the image that are mounted over.
pub(crate) const TARGETS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Not to be read, as in other container engines (opencontainers runtime-spec, `maskedPaths`;
/// the lists are containerd's).
const MASKED: [&str; 15] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sysrq-trigger",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Not to be written (`readonlyPaths`).
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// The agent's own mounts, as they were copied into this namespace.
const AGENTS: [&str; 5] = ["/dev", "/proc", "/sys", "/run/overlay", "/run/image"];

/// Makes the image the root of this process and of its children.
///
/// pivot_root(2) refuses to leave a ramdisk. Instead everything else is unmounted and the image
/// moved over the ramdisk, which leaves nothing above the new root to climb to.
pub(super) fn enter(privileged: bool) -> io::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for entry in &INSIDE {
        entry.mount_below(ROOT)?;
    }
    if !privileged {
        MASKED.iter().try_for_each(|path| mask(&below(path)))?;
        READ_ONLY
            .iter()
            .try_for_each(|path| read_only(&below(path)))?;
    }
    for path in AGENTS {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    chdir(ROOT)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn below(path: &str) -> PathBuf {
    Path::new(ROOT).join(path.trim_start_matches('/'))
}

fn mask(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if metadata.is_dir() {
        let flags = SAFE | MsFlags::MS_RDONLY;
        Ok(mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            flags,
            Some("size=0,mode=0555"),
        )?)
    } else {
        let nothing = below("/dev/null");
        Ok(mount(
            Some(&nothing),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?)
    }
}

fn read_only(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let none = None::<&str>;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(path), path, none, flags, none)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | SAFE;
    Ok(mount(none, path, none, flags, none)?)
}
