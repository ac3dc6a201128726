//! Everything that launches on a Nitro parent instance need, one check each. Looks only: what would
//! fix it is in the findings, as commands.

mod access;
mod allocator;
mod bounded;
mod cpus;
mod driver;
mod huge_pages;
mod vsock;

use self::bounded::{Check, LIMIT};
use super::host::Sysfs;
use crate::error::LaunchError;
use api::Finding;

pub(super) use self::vsock::{PortState, look_at_ports};

/// All checks at once, for 5 seconds at most. The order of the findings is that of what builds on
/// what. Whether a launch could begin is said last, unless driver or CPU pool say why not.
pub(super) fn examine(
    root: &Sysfs,
    ports: Vec<PortState>,
    preflight: impl FnOnce() -> Result<Finding, LaunchError> + Send + 'static,
) -> Vec<Finding> {
    let check = |what: &'static str, check: fn(&Sysfs) -> Finding| -> (&'static str, Check) {
        let root = root.clone();
        (what, Box::new(move || check(&root)))
    };
    let holders = root.clone();
    let mut findings = bounded::run(
        vec![
            check(access::WHAT, driver::check),
            check(allocator::WHAT, allocator::check),
            check(huge_pages::WHAT, huge_pages::check),
            check(cpus::WHAT, cpus::check),
            check(vsock::WHAT, |_| vsock::check(vsock::local())),
            (
                vsock::PORTS,
                Box::new(move || vsock::check_ports(&ports, &vsock::holders(&holders))),
            ),
            (
                "launcher",
                Box::new(move || {
                    preflight().unwrap_or_else(|error| Finding::failed("launcher", &error))
                }),
            ),
        ],
        LIMIT,
    );
    let explains = |finding: &Finding| {
        finding.is_failed() && [access::WHAT, cpus::WHAT].contains(&finding.what.as_str())
    };
    if findings.iter().any(explains) && findings.last().is_some_and(Finding::is_failed) {
        findings.pop();
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::FixPlan;

    fn bare(preflight: Result<Finding, LaunchError>) -> Vec<Finding> {
        let root = tempfile::tempdir().unwrap();
        examine(&Sysfs::new(root.path()), Vec::new(), move || preflight)
    }

    #[test]
    fn a_launcher_that_cannot_launch_is_named_once() {
        let findings = bare(Err(LaunchError::NoCpuPool));
        assert!(!findings.iter().any(|finding| finding.what == "launcher"));
        assert!(findings.iter().any(Finding::is_failed));
        let findings = bare(Ok(Finding::passed("launcher", "fine")));
        assert_eq!(findings.last().unwrap().what, "launcher");
    }

    #[test]
    fn a_bare_machine_gets_a_plan_that_a_shell_can_read() {
        let script = FixPlan::new(&bare(Err(LaunchError::NoCpuPool))).to_string();
        let checked = std::process::Command::new("bash")
            .args(["-nc", &script])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{script}\n{checked:?}");
    }
}
