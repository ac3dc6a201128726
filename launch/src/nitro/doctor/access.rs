//! Who may open the driver's device, and what keeps this user from it. A plain function over what
//! the kernel answered, who owns the device, and who this process is.

use crate::nitro::driver::DEVICE;
use crate::nitro::errors::DriverStep;
use api::Finding;
use nix::libc;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgroups};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

pub(super) const WHAT: &str = "driver";

const UDEV_RULE: &str = r#"printf '%s\n' 'KERNEL=="nitro_enclaves", GROUP="ne", MODE="0660"' >/etc/udev/rules.d/99-nitro_enclaves.rules"#;
const RESTART: &str = "systemctl try-restart host-proxy";

/// The device's file.
#[derive(Debug, Clone)]
pub(super) struct DeviceNode {
    group: String,
    gid: u32,
    mode: u32,
}

/// This process.
#[derive(Debug, Clone)]
pub(super) struct Me {
    name: String,
    groups: Vec<u32>,
}

impl DeviceNode {
    pub(super) fn of(path: &Path) -> Option<DeviceNode> {
        let metadata = std::fs::metadata(path).ok()?;
        let gid = metadata.gid();
        let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
        Some(DeviceNode {
            group: group.map_or_else(|| gid.to_string(), |group| group.name),
            gid,
            mode: metadata.mode() & 0o777,
        })
    }
}

impl Me {
    pub(super) fn find() -> Me {
        let uid: Uid = geteuid();
        let user = User::from_uid(uid).ok().flatten();
        let mut groups = getgroups().unwrap_or_default();
        groups.push(getegid());
        Me {
            name: user.map_or_else(|| uid.to_string(), |user| user.name),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        }
    }
}

/// Judges how opening the device ended.
pub(super) fn check(opened: io::Result<()>, node: Option<&DeviceNode>, me: &Me) -> Finding {
    let Some(node) = node else {
        return Finding::not_checked(WHAT, format!("the owner of {DEVICE} cannot be determined"));
    };
    match opened {
        Ok(()) => Finding::passed(
            WHAT,
            format!(
                "{DEVICE} can be opened by {} (group {}, mode {:o})",
                me.name, node.group, node.mode
            ),
        ),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Finding::wrong(
            WHAT,
            format!("the kernel denies {DEVICE} to this process ({error})"),
            "Add 'DeviceAllow=/dev/nitro_enclaves rw' to the daemon's systemd unit, and restart it.",
        )
        .with_fix([
            "install -d /etc/systemd/system/host-proxy.service.d",
            r"printf '[Service]\nDeviceAllow=/dev/nitro_enclaves rw\n' >/etc/systemd/system/host-proxy.service.d/nitro.conf",
            "systemctl daemon-reload",
            RESTART,
        ]),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied(node, me),
        Err(error) => Finding::failed(WHAT, &crate::LaunchError::from(DriverStep::Open.failed()(error))),
    }
}

fn denied(node: &DeviceNode, me: &Me) -> Finding {
    let DeviceNode { group, gid, mode } = node;
    let Me { name, groups } = me;
    let found = format!("{name} may not open {DEVICE} (group {group}, mode {mode:o})");
    // A group that owns more than this device is nothing to join.
    if *gid == 0 || mode & 0o060 != 0o060 {
        return Finding::wrong(
            WHAT,
            found,
            "Give the device to the group ne with a udev rule, and the daemon's user to that group.",
        )
        .with_fix([
            "groupadd --force --system ne".to_owned(),
            UDEV_RULE.to_owned(),
            "udevadm control --reload".to_owned(),
            "udevadm trigger --settle --name-match=/dev/nitro_enclaves".to_owned(),
            join("ne", name),
            RESTART.to_owned(),
        ]);
    }
    if groups.contains(gid) {
        return Finding::wrong(
            WHAT,
            found,
            format!(
                "{name} is in the group {group}: look for an ACL or a security module that forbids it."
            ),
        );
    }
    Finding::wrong(
        WHAT,
        found,
        format!("Add {name} to the group {group}, and restart the daemon."),
    )
    .with_fix([join(group, name), RESTART.to_owned()])
}

/// Both names come from the system's own tables.
fn join(group: &str, user: &str) -> String {
    format!("usermod -aG '{group}' '{user}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(group: &str, gid: u32, mode: u32) -> DeviceNode {
        DeviceNode {
            group: group.to_owned(),
            gid,
            mode,
        }
    }

    fn me() -> Me {
        Me {
            name: "redoubt".to_owned(),
            groups: vec![900],
        }
    }

    fn refused(errno: i32, node: &DeviceNode) -> Finding {
        check(Err(io::Error::from_raw_os_error(errno)), Some(node), &me())
    }

    #[test]
    fn who_may_open_it_is_said() {
        let finding = check(Ok(()), Some(&node("ne", 950, 0o660)), &me());
        assert_eq!(
            finding.to_string(),
            "✓ driver: /dev/nitro_enclaves can be opened by redoubt (group ne, mode 660)"
        );
        assert!(
            check(Ok(()), None, &me())
                .to_string()
                .contains("not checked")
        );
    }

    #[test]
    fn a_user_outside_of_the_group_joins_it() {
        let finding = refused(libc::EACCES, &node("ne", 950, 0o660));
        assert_eq!(
            finding.fix,
            [
                "usermod -aG 'ne' 'redoubt'",
                "systemctl try-restart host-proxy"
            ]
        );
        assert_eq!(
            finding.next_step.unwrap(),
            "Add redoubt to the group ne, and restart the daemon."
        );
    }

    #[test]
    fn a_device_that_is_roots_or_closed_to_its_group_gets_a_rule() {
        for node in [node("root", 0, 0o660), node("ne", 950, 0o600)] {
            let finding = refused(libc::EACCES, &node);
            assert!(finding.fix[1].contains("99-nitro_enclaves.rules"));
            assert!(finding.fix[4].starts_with("usermod -aG 'ne'"));
        }
    }

    #[test]
    fn other_refusals_are_not_the_groups() {
        let own = refused(libc::EACCES, &node("ne", 900, 0o660));
        assert!(own.is_failed() && own.fix.is_empty(), "{own}");
        let cgroup = refused(libc::EPERM, &node("ne", 950, 0o660));
        assert!(cgroup.next_step.unwrap().contains("DeviceAllow"));
        let busy = refused(libc::EBUSY, &node("ne", 950, 0o660));
        assert!(busy.is_failed() && busy.detail.contains("busy"), "{busy}");
    }
}
