//! The workload's limits: a control group of its own, so that what eats memory or processes hurts
//! the workload and never the agent (Documentation/admin-guide/cgroup-v2.rst).

use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::io;
use wire::spec::SecurityRules;

const ALL: &str = "/sys/fs/cgroup";
const WORKLOAD: &str = "/sys/fs/cgroup/workload";

/// The group, as the files that a process writes itself into.
pub(super) struct Group {
    /// To be in it.
    pub(super) inside: File,
    /// To be out of it again.
    pub(super) outside: File,
    /// What the group may use, in bytes.
    pub(super) memory: u64,
}

impl Group {
    pub(super) fn create(rules: &SecurityRules) -> io::Result<Group> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("cgroup2"), ALL, Some("cgroup2"), flags, None::<&str>)?;
        fs::create_dir(WORKLOAD)?;
        // A share of the processor for the agent however many processes the workload has.
        for controller in ["+memory", "+pids", "+cpu"] {
            fs::write(format!("{ALL}/cgroup.subtree_control"), controller)?;
        }
        let free = available(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))?;
        let memory = free / 100 * u64::from(rules.memory_percent);
        fs::write(format!("{WORKLOAD}/memory.max"), memory.to_string())?;
        fs::write(format!("{WORKLOAD}/pids.max"), rules.pids.to_string())?;
        let processes = |of| {
            File::options()
                .write(true)
                .open(format!("{of}/cgroup.procs"))
        };
        Ok(Group {
            inside: processes(WORKLOAD)?,
            outside: processes(ALL)?,
            memory,
        })
    }
}

/// Bytes that can be used without swapping (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says_is_available() {
        let text = "MemTotal:  500 kB\nMemFree: 1 kB\nMemAvailable:    1234 kB\n";
        assert_eq!(available(text), Some(1234 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }
}
