//! Huge pages, by size and NUMA node.

use super::allocator::RESTART;
use crate::nitro::host::{CPU_POOL, HUGE_PAGES, NODES, Sysfs, cpu_list, of_node};
use crate::nitro::pages::{Pages, UNIT, size_name};
use api::Finding;
use std::io;
use std::path::Path;

pub(super) const WHAT: &str = "huge pages";

const NONE: &str =
    "Set memory_mib in /etc/nitro_enclaves/allocator.yaml, and restart nitro-enclaves-allocator.";
const OTHER_NODE: &str = "Have huge pages and CPU pool allocated on one NUMA node: restarting nitro-enclaves-allocator does.";

pub(super) fn check(root: &Sysfs) -> Finding {
    look(root).unwrap_or_else(|error| Finding::not_checked(WHAT, error.to_string()))
}

fn look(root: &Sysfs) -> io::Result<Finding> {
    let nodes = root.numbered(Path::new(NODES), "node");
    let (text, all) = counted(root, Path::new(HUGE_PAGES))?;
    if all == 0 {
        return Ok(Finding::wrong(WHAT, "none are allocated", NONE).with_fix([RESTART]));
    }
    if nodes.len() < 2 {
        return Ok(Finding::passed(WHAT, text));
    }
    let mut texts = Vec::new();
    let pool = root
        .read(Path::new(CPU_POOL))
        .and_then(|text| cpu_list(&text));
    let of_pool = root.node(&pool.unwrap_or_default())?;
    let mut beside_pool = 0;
    for node in nodes {
        let (text, count) = counted(root, &of_node(node))?;
        if of_pool.is_none_or(|of_pool| of_pool == node) {
            beside_pool += count;
        }
        texts.push(format!("node {node}: {text}"));
    }
    let text = texts.join("; ");
    if beside_pool == 0 {
        let found = format!("none are on the NUMA node of the CPU pool ({text})");
        return Ok(Finding::wrong(WHAT, found, OTHER_NODE).with_fix([RESTART]));
    }
    Ok(Finding::passed(WHAT, text))
}

/// Free and all pages of each size that enclaves can have, and how many there are in all.
fn counted(root: &Sysfs, directory: &Path) -> io::Result<(String, u64)> {
    let free: Pages = root.pages(directory, "free_hugepages")?;
    let all: Pages = root.pages(directory, "nr_hugepages")?;
    let sizes = all
        .iter()
        .filter(|(size, count)| **size >= UNIT && **count > 0);
    let texts: Vec<String> = sizes
        .clone()
        .map(|(size, count)| {
            let free = free.get(size).copied().unwrap_or_default();
            format!("{free} of {count} x {} free", size_name(*size))
        })
        .collect();
    let text = if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    };
    Ok((text, sizes.map(|(_, count)| count).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nitro::host::tree;

    /// The files of one size in one directory.
    fn pages(directory: &str, kib: u32, free: u32, all: u32) -> Vec<(String, String)> {
        let file = |name: &str, count: u32| {
            let path = format!("{directory}/hugepages-{kib}kB/{name}");
            (path, format!("{count}\n"))
        };
        vec![file("free_hugepages", free), file("nr_hugepages", all)]
    }

    fn found(files: &[Vec<(String, String)>]) -> Finding {
        let files = files.concat();
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let (_directory, root) = tree(&files);
        check(&root)
    }

    #[test]
    fn each_size_that_enclaves_can_have_is_counted() {
        let finding = found(&[
            pages(HUGE_PAGES, 64, 7, 7),
            pages(HUGE_PAGES, 2048, 500, 600),
            pages(HUGE_PAGES, 1_048_576, 0, 2),
        ]);
        let text = "✓ huge pages: 500 of 600 x 2 MiB free, 0 of 2 x 1 GiB free";
        assert_eq!(finding.to_string(), text);
    }

    #[test]
    fn without_any_the_allocator_makes_them() {
        for files in [
            vec![],
            vec![pages(HUGE_PAGES, 2048, 0, 0)],
            vec![pages(HUGE_PAGES, 64, 7, 7)],
        ] {
            let finding = found(&files);
            assert_eq!(finding.detail, "none are allocated");
            assert_eq!(finding.fix, [RESTART]);
        }
    }

    #[test]
    fn nodes_are_counted_and_the_pools_must_have_some() {
        let node = |node: u32, count: u32| {
            pages(&format!("{NODES}/node{node}/hugepages"), 2048, count, count)
        };
        let whole = pages(HUGE_PAGES, 2048, 9, 9);
        let pool = |cpu: u32, node: u32| {
            let place = format!("sys/devices/system/cpu/cpu{cpu}/node{node}/cpulist");
            vec![
                (CPU_POOL.to_owned(), format!("{cpu}\n")),
                (place, String::new()),
            ]
        };
        let finding = found(&[whole.clone(), node(0, 0), node(1, 9), pool(4, 1)]);
        let text = "✓ huge pages: node 0: none; node 1: 9 of 9 x 2 MiB free";
        assert_eq!(finding.to_string(), text);
        let finding = found(&[whole, node(0, 0), node(1, 9), pool(4, 0)]);
        assert!(
            finding.detail.starts_with("none are on the NUMA node"),
            "{finding}"
        );
    }

    #[test]
    fn what_the_kernel_does_not_write_is_not_judged() {
        let path = format!("{HUGE_PAGES}/hugepages-2048kB/free_hugepages");
        let finding = found(&[vec![(path, "many".to_owned())]]);
        assert!(finding.to_string().contains("not checked"), "{finding}");
    }
}
