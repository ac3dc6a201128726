//! The daemon's own process under systemd: its user, and what the unit gave it (systemd.exec(5)).

use api::Finding;
use std::ffi::OsString;
use std::os::unix::process::parent_id;
use std::path::Path;

const WHAT: &str = "systemd unit";
const NEXT: &str = "Use the unit that comes with Redoubt, host-proxy/systemd/host-proxy.service.";
const DROP_IN: &str = "/etc/systemd/system/host-proxy.service.d/doctor.conf";

/// What this process can tell of its unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    /// systemd started it.
    is_started_by_systemd: bool,
    is_root: bool,
    /// The socket for READY=1 is there.
    can_notify: bool,
    /// WatchdogSec= is set.
    is_watched: bool,
}

impl Service {
    pub(super) fn find() -> Service {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        // An abstract socket is no file.
        let is_there = |socket: &OsString| {
            socket.to_string_lossy().starts_with('@') || Path::new(socket).exists()
        };
        Service {
            is_started_by_systemd: std::env::var_os("INVOCATION_ID").is_some() && parent_id() == 1,
            is_root: nix::unistd::geteuid().is_root(),
            can_notify: socket.as_ref().is_some_and(is_there),
            is_watched: std::env::var_os("WATCHDOG_USEC").is_some(),
        }
    }
}

pub(super) fn check(service: &Service) -> Finding {
    let Service {
        is_started_by_systemd,
        is_root,
        can_notify,
        is_watched,
    } = *service;
    if !is_started_by_systemd {
        let why = "systemd did not start this process; 'enclavectl doctor' asks the daemon";
        return Finding::not_checked(WHAT, why);
    }
    let problems: Vec<(&str, &str)> = [
        (
            is_root,
            "the daemon runs as root",
            "User=redoubt\\nGroup=redoubt",
        ),
        (
            !can_notify,
            "it has no notify socket",
            "Type=notify\\nNotifyAccess=main",
        ),
        (!is_watched, "it has no watchdog", "WatchdogSec=30"),
    ]
    .into_iter()
    .filter(|(is_wrong, ..)| *is_wrong)
    .map(|(_, problem, setting)| (problem, setting))
    .collect();
    if problems.is_empty() {
        return Finding::passed(WHAT, "a user of its own, a notify socket and a watchdog");
    }
    let (problems, settings): (Vec<&str>, Vec<&str>) = problems.into_iter().unzip();
    let settings = settings.join("\\n");
    Finding::wrong(WHAT, problems.join("; "), NEXT).with_fix([
        "install -d /etc/systemd/system/host-proxy.service.d".to_owned(),
        format!("printf '[Service]\\n{settings}\\n' >{DROP_IN}"),
        "systemctl daemon-reload".to_owned(),
        "systemctl try-restart host-proxy".to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Service = Service {
        is_started_by_systemd: true,
        is_root: false,
        can_notify: true,
        is_watched: true,
    };

    #[test]
    fn the_unit_that_comes_with_redoubt_will_do() {
        let text = "✓ systemd unit: a user of its own, a notify socket and a watchdog";
        assert_eq!(check(&GOOD).to_string(), text);
    }

    #[test]
    fn what_a_unit_lacks_is_added_and_nothing_else() {
        let finding = check(&Service {
            is_root: true,
            is_watched: false,
            ..GOOD
        });
        assert_eq!(
            finding.detail,
            "the daemon runs as root; it has no watchdog"
        );
        assert_eq!(
            finding.fix[1],
            format!(
                r"printf '[Service]\nUser=redoubt\nGroup=redoubt\nWatchdogSec=30\n' >{DROP_IN}"
            )
        );
        let finding = check(&Service {
            can_notify: false,
            ..GOOD
        });
        assert_eq!(finding.detail, "it has no notify socket");
    }

    #[test]
    fn without_systemd_nothing_is_judged() {
        let finding = check(&Service {
            is_started_by_systemd: false,
            is_root: true,
            ..GOOD
        });
        assert!(finding.to_string().contains("not checked"), "{finding}");
    }
}
