//! The service that sets CPUs and huge pages aside: what its configuration asks for against what
//! sysfs shows, and whether it starts at boot. Files only, no D-Bus: the daemon may not need it.

use crate::nitro::host::{CPU_POOL, HUGE_PAGES, Sysfs, cpu_list};
use crate::nitro::pages::UNIT;
use api::Finding;
use std::io;
use std::path::Path;

pub(super) const WHAT: &str = "allocator";
/// Has the service read its configuration again.
pub(super) const RESTART: &str = "systemctl restart nitro-enclaves-allocator";

const SERVICE: &str = "nitro-enclaves-allocator.service";
const CONFIGURATION: &str = "etc/nitro_enclaves/allocator.yaml";
/// Where systemd looks (systemd.unit(5)), the distribution's last.
const UNITS: [&str; 4] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
const ENABLE: &str = "systemctl enable nitro-enclaves-allocator";
const NO_CONFIGURATION: &str = "Set memory_mib and cpu_count in /etc/nitro_enclaves/allocator.yaml to the sums for all \
    enclaves, and restart nitro-enclaves-allocator.";

/// What is asked for, or what there is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Amount {
    memory_mib: u64,
    cpus: usize,
}

pub(super) fn check(root: &Sysfs) -> Finding {
    let there = allocated(root);
    if !is_installed(root) {
        return not_installed(root, there);
    }
    let text = match root.read(Path::new(CONFIGURATION)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return no_configuration(format!("/{CONFIGURATION} does not exist"));
        }
        Err(error) => return Finding::not_checked(WHAT, error.to_string()),
    };
    let Some(asked) = asked(&text) else {
        let problem = "does not set memory_mib and cpu_count or cpu_pool";
        return no_configuration(format!("/{CONFIGURATION} {problem}"));
    };
    let Amount { memory_mib, cpus } = asked;
    let is_enabled = is_enabled(root);
    if there.memory_mib < memory_mib || there.cpus < cpus {
        let found = format!(
            "{memory_mib} MiB and {cpus} CPUs are configured, but only {} MiB and {} CPUs are set aside",
            there.memory_mib, there.cpus
        );
        let next = "Restart nitro-enclaves-allocator; if it fails, its journal says why. Memory for huge pages is least fragmented right after boot.";
        let enable = (!is_enabled).then_some(ENABLE);
        return Finding::wrong(WHAT, found, next).with_fix(enable.into_iter().chain([RESTART]));
    }
    if !is_enabled {
        let next = "Enable it: 'systemctl enable nitro-enclaves-allocator'.";
        return Finding::wrong(WHAT, "the service does not start at boot", next).with_fix([ENABLE]);
    }
    let found = format!("{memory_mib} MiB and {cpus} CPUs are configured and set aside");
    Finding::passed(WHAT, found)
}

/// That something else does its work is fine, as far as it goes.
fn not_installed(root: &Sysfs, there: Amount) -> Finding {
    if there.memory_mib > 0 && there.cpus > 0 {
        let why = format!(
            "{SERVICE} is not installed, so it is unknown whether CPUs and huge pages return after a reboot"
        );
        return Finding::not_checked(WHAT, why);
    }
    let next = "Install aws-nitro-enclaves-cli, which has it, or set huge pages and the module's ne_cpus in another way.";
    let finding = Finding::wrong(WHAT, format!("{SERVICE} is not installed"), next);
    if root.path("usr/bin/dnf").exists() {
        return finding.with_fix(["dnf install -y aws-nitro-enclaves-cli", ENABLE, RESTART]);
    }
    finding
}

fn no_configuration(problem: String) -> Finding {
    Finding::wrong(WHAT, problem, NO_CONFIGURATION).with_fix([
        "install -d /etc/nitro_enclaves",
        "# These are the sums for all enclaves: change them as you need.",
        r"printf 'memory_mib: 1024\ncpu_count: 2\n' >/etc/nitro_enclaves/allocator.yaml",
        ENABLE,
        RESTART,
    ])
}

/// The keys that AWS's service reads. The rest of YAML is not needed for them.
fn asked(text: &str) -> Option<Amount> {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix(':')?;
            let value = value.split('#').next().unwrap_or_default();
            Some(value.trim().trim_matches(['"', '\'']).to_owned())
        })
    };
    let cpus = match value("cpu_pool") {
        Some(list) => cpu_list(&list).ok()?.len(),
        None => value("cpu_count")?.parse().ok()?,
    };
    Some(Amount {
        memory_mib: value("memory_mib")?.parse().ok()?,
        cpus,
    })
}

/// Free or not; nothing where there is no driver or no support for huge pages.
fn allocated(root: &Sysfs) -> Amount {
    let pages = root.pages(Path::new(HUGE_PAGES), "nr_hugepages");
    let pages = pages.unwrap_or_default();
    let usable = pages.iter().filter(|(size, _)| **size >= UNIT);
    let bytes: u64 = usable
        .map(|(size, count)| size.saturating_mul(*count))
        .sum();
    let pool = root
        .read(Path::new(CPU_POOL))
        .and_then(|text| cpu_list(&text));
    Amount {
        memory_mib: bytes >> 20,
        cpus: pool.unwrap_or_default().len(),
    }
}

fn is_installed(root: &Sysfs) -> bool {
    UNITS
        .iter()
        .any(|directory| root.path(directory).join(SERVICE).exists())
}

/// Another unit wants it: by a link, or in words in a drop-in of its own.
fn is_enabled(root: &Sysfs) -> bool {
    UNITS.iter().map(Path::new).any(|directory| {
        root.names(directory).iter().any(|name| {
            let below = directory.join(name);
            if name.ends_with(".wants") || name.ends_with(".requires") {
                return root.names(&below).iter().any(|unit| unit == SERVICE);
            }
            name.ends_with(".service.d")
                && root.names(&below).iter().any(|file| {
                    let text = root.read(&below.join(file)).unwrap_or_default();
                    let wants =
                        |line: &str| line.starts_with("Wants=") || line.starts_with("Requires=");
                    text.lines()
                        .any(|line| wants(line) && line.contains(SERVICE))
                })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nitro::host::tree;

    const UNIT_FILE: (&str, &str) = (
        "usr/lib/systemd/system/nitro-enclaves-allocator.service",
        "",
    );
    const ENABLED: (&str, &str) = (
        "etc/systemd/system/multi-user.target.wants/nitro-enclaves-allocator.service",
        "",
    );
    const POOL: (&str, &str) = (CPU_POOL, "2-3\n");
    const PAGES: (&str, &str) = (
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        "256\n",
    );
    const YAML: (&str, &str) = (
        CONFIGURATION,
        "---\n# sums\nmemory_mib: 512 # MiB\n#cpu_pool: 4-9\ncpu_count: \"2\"\n",
    );

    fn found(files: &[(&str, &str)]) -> Finding {
        let (_directory, root) = tree(files);
        check(&root)
    }

    #[test]
    fn what_is_configured_is_set_aside_and_comes_back() {
        let finding = found(&[UNIT_FILE, ENABLED, POOL, PAGES, YAML]);
        let text = "✓ allocator: 512 MiB and 2 CPUs are configured and set aside";
        assert_eq!(finding.to_string(), text);
        let drop_in = "etc/systemd/system/host-proxy.service.d/a.conf";
        let wants = "[Unit]\nWants=nitro-enclaves-allocator.service\n";
        let finding = found(&[UNIT_FILE, (drop_in, wants), POOL, PAGES, YAML]);
        assert_eq!(finding.to_string(), text);
    }

    #[test]
    fn what_is_configured_and_not_there_needs_a_restart() {
        let more = (CONFIGURATION, "memory_mib: 514\ncpu_pool: 2-3\n");
        let wider = (CONFIGURATION, "memory_mib: 512\ncpu_pool: 2-4\n");
        for yaml in [more, wider] {
            let finding = found(&[UNIT_FILE, ENABLED, POOL, PAGES, yaml]);
            assert_eq!(finding.fix, [RESTART]);
            assert!(
                finding.detail.ends_with("512 MiB and 2 CPUs are set aside"),
                "{finding}"
            );
        }
    }

    #[test]
    fn a_service_that_does_not_start_at_boot_is_enabled() {
        let finding = found(&[UNIT_FILE, POOL, PAGES, YAML]);
        assert_eq!(finding.detail, "the service does not start at boot");
        assert_eq!(finding.fix, [ENABLE]);
        let finding = found(&[UNIT_FILE, PAGES, YAML]);
        assert_eq!(finding.fix, [ENABLE, RESTART]);
    }

    #[test]
    fn without_a_configuration_one_is_written() {
        let half = (CONFIGURATION, "cpu_count: 2\n");
        for files in [&[UNIT_FILE][..], &[UNIT_FILE, half]] {
            let finding = found(files);
            assert!(finding.is_failed());
            assert!(
                finding
                    .fix
                    .iter()
                    .any(|line| line.contains("memory_mib: 1024"))
            );
        }
    }

    #[test]
    fn without_the_service_it_is_installed_unless_something_else_does_its_work() {
        let finding = found(&[("usr/bin/dnf", "")]);
        assert_eq!(finding.fix[0], "dnf install -y aws-nitro-enclaves-cli");
        let finding = found(&[]);
        assert!(finding.is_failed() && finding.fix.is_empty());
        let finding = found(&[POOL, PAGES]);
        assert!(finding.to_string().contains("not checked"), "{finding}");
    }
}
