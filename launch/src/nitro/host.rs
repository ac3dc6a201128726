//! What the parent instance has for enclaves, as sysfs shows it: the driver's CPU pool, the threads
//! of a core, and the huge pages of the NUMA node that the pool is on. Reads only.

use super::pages::Pages;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

pub(super) const CPU_POOL: &str = "sys/module/nitro_enclaves/parameters/ne_cpus";
pub(super) const CPUS: &str = "sys/devices/system/cpu";
pub(super) const NODES: &str = "sys/devices/system/node";
pub(super) const HUGE_PAGES: &str = "sys/kernel/mm/hugepages";

/// A directory that stands for `/`.
#[derive(Debug, Clone)]
pub(super) struct Sysfs(PathBuf);

/// What there is for enclaves; other enclaves may have a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostResources {
    /// The CPUs of the driver's pool.
    pub(super) cpu_pool: BTreeSet<u32>,
    /// How many CPUs make a core.
    pub(super) threads_per_core: u32,
    /// The NUMA node of the pool, if there are several nodes and it is known.
    pub(super) node: Option<u32>,
    /// Huge pages that are free and not promised to other mappings.
    pub(super) free: Pages,
}

impl HostResources {
    /// Whole cores of the pool.
    pub(super) fn cores(&self) -> u32 {
        let cpus = u32::try_from(self.cpu_pool.len()).unwrap_or(u32::MAX);
        cpus / self.threads_per_core.max(1)
    }
}

impl Sysfs {
    pub(super) fn new(root: impl Into<PathBuf>) -> Sysfs {
        Sysfs(root.into())
    }

    /// A path below `/`, as this program has to open it.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// Reads everything anew: the allocator's service may have changed it.
    ///
    /// # Errors
    /// A file is missing or holds something else than the kernel writes. Its path is in the error.
    pub(super) fn resources(&self) -> io::Result<HostResources> {
        let cpu_pool = cpu_list(&self.read(Path::new(CPU_POOL))?)?;
        let node = self.node(&cpu_pool)?;
        Ok(HostResources {
            threads_per_core: self.threads_per_core()?,
            free: self.free_pages(node)?,
            cpu_pool,
            node,
        })
    }

    /// Of CPU 0, which is always online; those of the pool are offline and have no topology.
    pub(super) fn threads_per_core(&self) -> io::Result<u32> {
        let path = Path::new(CPUS).join("cpu0/topology/thread_siblings_list");
        let siblings = cpu_list(&self.read(&path)?)?;
        Ok(u32::try_from(siblings.len()).unwrap_or(1).max(1))
    }

    /// The node of the pool. A CPU that is offline belongs to no node any more: then it is the only
    /// node that has huge pages, which the allocator's service makes on the pool's node.
    pub(super) fn node(&self, cpu_pool: &BTreeSet<u32>) -> io::Result<Option<u32>> {
        let nodes = self.numbered(Path::new(NODES), "node");
        if nodes.len() < 2 {
            return Ok(None);
        }
        let of_pool = cpu_pool.iter().find_map(|cpu| {
            let directory = Path::new(CPUS).join(format!("cpu{cpu}"));
            self.numbered(&directory, "node").first().copied()
        });
        if of_pool.is_some() {
            return Ok(of_pool);
        }
        let mut with_pages = Vec::new();
        for node in nodes {
            let pages = self.pages(&of_node(node), "nr_hugepages")?;
            if pages.values().any(|count| *count > 0) {
                with_pages.push(node);
            }
        }
        match with_pages.as_slice() {
            [only] => Ok(Some(*only)),
            _ => Ok(None),
        }
    }

    /// Free pages, less those that were mapped and not taken yet. Of the latter the kernel keeps
    /// one count for all nodes.
    fn free_pages(&self, node: Option<u32>) -> io::Result<Pages> {
        let directory = node.map_or_else(|| PathBuf::from(HUGE_PAGES), of_node);
        let mut free = self.pages(&directory, "free_hugepages")?;
        let all = self.pages(Path::new(HUGE_PAGES), "nr_hugepages")?;
        let promised = self.pages(Path::new(HUGE_PAGES), "resv_hugepages")?;
        for (size, free) in &mut free {
            let promised = promised.get(size).copied().unwrap_or_default();
            // The count falls below zero, and so becomes enormous, while an enclave keeps pages that
            // its launcher has unmapped.
            let is_sane = promised <= all.get(size).copied().unwrap_or_default();
            *free = free.saturating_sub(if is_sane { promised } else { 0 });
        }
        Ok(free)
    }

    /// One count of each size of huge pages, as a directory of sysfs has them.
    pub(super) fn pages(&self, directory: &Path, count: &str) -> io::Result<Pages> {
        let mut pages = Pages::new();
        for name in self.names(directory) {
            let kib = name
                .strip_prefix("hugepages-")
                .and_then(|name| name.strip_suffix("kB"))
                .and_then(|kib| kib.parse::<u64>().ok());
            if let Some(kib) = kib {
                let path = directory.join(&name).join(count);
                let text = self.read(&path)?;
                let number = text
                    .trim()
                    .parse()
                    .map_err(|_| not_a_number(&path, &text))?;
                pages.insert(kib * 1024, number);
            }
        }
        Ok(pages)
    }

    /// The numbers behind a prefix in the names of a directory, in order; none without it.
    pub(super) fn numbered(&self, directory: &Path, prefix: &str) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .names(directory)
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    pub(super) fn names(&self, directory: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.0.join(directory)) else {
            return Vec::new();
        };
        entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<String> {
        let path = self.0.join(path);
        std::fs::read_to_string(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }
}

pub(super) fn of_node(node: u32) -> PathBuf {
    Path::new(NODES).join(format!("node{node}/hugepages"))
}

fn not_a_number(path: &Path, text: &str) -> io::Error {
    io::Error::other(format!("{}: not a number: {text:?}", path.display()))
}

/// A list like `2-3,6` (Documentation/admin-guide/kernel-parameters.rst, "cpu lists"); empty if no
/// pool was set.
pub(super) fn cpu_list(text: &str) -> io::Result<BTreeSet<u32>> {
    let bad = || io::Error::other(format!("not a list of CPUs: {:?}", text.trim()));
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| bad());
        let (first, last) = (number(first)?, number(last)?);
        // No machine has more, and the list would only be long.
        if first > last || last > 65_535 {
            return Err(bad());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// A machine that has these files; it is gone with the directory.
#[cfg(test)]
pub(super) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Sysfs) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let sysfs = Sysfs::new(directory.path());
    (directory, sysfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with one node, as the driver left it.
    const PLAIN: [(&str, &str); 9] = [
        (CPU_POOL, "2-3,6\n"),
        (
            "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
            "0-1\n",
        ),
        ("sys/devices/system/node/node0/cpulist", "0-1\n"),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            "600\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "500\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
            "100\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
            "2\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
            "2\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages",
            "18446744073709551615\n",
        ),
    ];

    #[test]
    fn a_machine_with_one_node() {
        let (_directory, sysfs) = tree(&PLAIN);
        let resources = sysfs.resources().unwrap();
        let expected = HostResources {
            cpu_pool: [2, 3, 6].into(),
            threads_per_core: 2,
            node: None,
            free: [(2 << 20, 400), (1 << 30, 2)].into(),
        };
        assert_eq!(resources, expected);
        assert_eq!(resources.cores(), 1);
    }

    /// Two nodes; the second one has huge pages.
    fn two_nodes() -> Vec<(&'static str, &'static str)> {
        let nodes = [
            (
                "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
                "0",
            ),
            (
                "sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages",
                "0",
            ),
            (
                "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
                "600",
            ),
            (
                "sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages",
                "350",
            ),
        ];
        PLAIN.into_iter().chain(nodes).collect()
    }

    #[test]
    fn a_pool_is_on_the_node_that_has_huge_pages() {
        let (_directory, sysfs) = tree(&two_nodes());
        let resources = sysfs.resources().unwrap();
        assert_eq!(resources.node, Some(1));
        assert_eq!(resources.free, [(2 << 20, 250)].into());
    }

    #[test]
    fn a_pool_that_is_online_names_its_node() {
        let mut files = two_nodes();
        files.push(("sys/devices/system/cpu/cpu3/node0/cpulist", ""));
        let (_directory, sysfs) = tree(&files);
        assert_eq!(sysfs.resources().unwrap().node, Some(0));
    }

    #[test]
    fn lists_of_cpus_are_the_kernels() {
        assert_eq!(cpu_list("\n").unwrap(), [].into());
        assert_eq!(cpu_list("2-3,6\n").unwrap(), [2, 3, 6].into());
        for bad in ["3-2", "x", "1-", "-1", "0-4294967295"] {
            assert!(cpu_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_directory, sysfs) = tree(&[]);
        let error = sysfs.resources().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("ne_cpus"), "{error}");
    }
}
