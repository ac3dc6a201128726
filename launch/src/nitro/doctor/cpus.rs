//! The driver's CPU pool: whole cores, and none of CPU 0's.

use super::allocator::RESTART;
use crate::nitro::host::{CPU_POOL, CPUS, Sysfs, cpu_list};
use api::Finding;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

pub(super) const WHAT: &str = "CPU pool";

const EMPTY: &str =
    "Set cpu_count in /etc/nitro_enclaves/allocator.yaml, and restart nitro-enclaves-allocator.";
const WHOLE_CORES: &str = "Set cpu_count or cpu_pool in /etc/nitro_enclaves/allocator.yaml to whole cores without CPU 0 and \
    its siblings, and restart nitro-enclaves-allocator.";

pub(super) fn check(root: &Sysfs) -> Finding {
    look(root).unwrap_or_else(|error| Finding::not_checked(WHAT, error.to_string()))
}

fn look(root: &Sysfs) -> io::Result<Finding> {
    let pool = match root.read(Path::new(CPU_POOL)) {
        Ok(pool) => cpu_list(&pool)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Finding::not_checked(WHAT, "the driver is not loaded"));
        }
        Err(error) => return Err(error),
    };
    let first = Path::new(CPUS).join("cpu0/topology/thread_siblings_list");
    let first = cpu_list(&root.read(&first)?)?;
    Ok(judge(&pool, &first))
}

/// The pool against CPU 0 and its siblings. Those of the pool are offline and show no topology, but
/// all cores of an instance have the same number of threads.
fn judge(pool: &BTreeSet<u32>, first: &BTreeSet<u32>) -> Finding {
    let threads = first.len().max(1);
    let list = ranges(pool);
    if pool.is_empty() {
        return Finding::wrong(WHAT, "it is empty", EMPTY).with_fix([RESTART]);
    }
    if !pool.is_disjoint(first) {
        let found =
            format!("{list} has CPU 0 or one of its siblings, which stay with this machine");
        return Finding::wrong(WHAT, found, WHOLE_CORES);
    }
    if !pool.len().is_multiple_of(threads) {
        let found = format!("{list} is not made of whole cores of {threads} CPUs");
        return Finding::wrong(WHAT, found, WHOLE_CORES);
    }
    Finding::passed(WHAT, format!("{list} in whole cores ({threads} a core)"))
}

/// As the kernel writes lists.
fn ranges(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let texts: Vec<String> = ranges
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nitro::host::tree;

    fn found(pool: &str, first: &str) -> Finding {
        let siblings = "sys/devices/system/cpu/cpu0/topology/thread_siblings_list";
        let (_directory, root) = tree(&[(CPU_POOL, pool), (siblings, first)]);
        check(&root)
    }

    #[test]
    fn whole_cores_will_do() {
        for (pool, first, text) in [
            (
                "2-3,6-7\n",
                "0-1\n",
                "✓ CPU pool: 2-3,6-7 in whole cores (2 a core)",
            ),
            (
                "2-3,6-7",
                "0,4",
                "✓ CPU pool: 2-3,6-7 in whole cores (2 a core)",
            ),
            ("1,3", "0", "✓ CPU pool: 1,3 in whole cores (1 a core)"),
        ] {
            assert_eq!(found(pool, first).to_string(), text);
        }
    }

    #[test]
    fn a_pool_must_be_there_leave_cpu_0_alone_and_split_no_core() {
        let empty = found("\n", "0-1");
        assert_eq!(
            (empty.detail.as_str(), &*empty.fix),
            ("it is empty", &[RESTART.to_owned()][..])
        );
        let sibling = found("4-5", "0,4");
        assert!(sibling.detail.contains("CPU 0"), "{sibling}");
        let half = found("2", "0-1");
        assert_eq!(half.detail, "2 is not made of whole cores of 2 CPUs");
    }

    #[test]
    fn without_a_driver_there_is_nothing_to_judge() {
        let (_directory, root) = tree(&[]);
        let finding = check(&root).to_string();
        assert_eq!(finding, "- CPU pool: not checked: the driver is not loaded");
    }
}
