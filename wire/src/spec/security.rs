//! `[security]`: how far the workload is kept away from the agent. Left out, it is as far as
//! ordinary programs allow; every key that loosens it is measured.

use super::error::{InvalidValue, SpecError};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

const PIDS: RangeInclusive<u32> = 8..=4_194_304;
const MEMORY_PERCENT: RangeInclusive<u8> = 10..=95;

/// `security` of the measured spec, and `[security]` as written: both are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecurityRules {
    /// The workload gets every capability, every device and every system call, and runs as root of
    /// the agent's own users. What the spec says of network and logs then binds it only as long as
    /// it is honest.
    pub privileged: bool,
    /// The enclave also runs in debug mode, where the parent reads its console and its registers
    /// prove nothing.
    pub allow_debug: bool,
    /// The capabilities of a workload that runs as root. Other users have none.
    pub capabilities: Vec<Capability>,
    /// Processes and threads of the workload together, 8 to 4194304.
    pub pids: u32,
    /// How much the workload may use of the memory that is free when it starts, in percent, 10 to
    /// 95; files that it writes count. The rest is the agent's.
    pub memory_percent: u8,
}

/// A part of root's power that makes sense in a user namespace (capabilities(7)), named as Docker
/// and Kubernetes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capability {
    /// Change the owner of files.
    Chown,
    /// Read and write files whatever their mode.
    DacOverride,
    /// Act as the owner of files.
    Fowner,
    /// Keep set-user-ID bits where they would be cleared.
    Fsetid,
    /// Signal processes of other users.
    Kill,
    /// Change groups.
    Setgid,
    /// Change users.
    Setuid,
    /// Give up capabilities of the bounding set.
    Setpcap,
    /// Listen on ports below 1024.
    NetBindService,
    /// Set capabilities of files.
    Setfcap,
    /// Use chroot(2). Not in the default.
    SysChroot,
    /// Trace processes of other users. Not in the default; lifts the ban on attaching to any.
    SysPtrace,
}

impl Capability {
    /// What a workload has that runs as root: Docker's default without `NET_RAW`, `MKNOD`,
    /// `AUDIT_WRITE` and `SYS_CHROOT`.
    pub const DEFAULT: [Capability; 10] = [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Setgid,
        Capability::Setuid,
        Capability::Setpcap,
        Capability::NetBindService,
        Capability::Setfcap,
    ];

    /// Its number (linux/capability.h).
    pub const fn number(self) -> u8 {
        match self {
            Capability::Chown => 0,
            Capability::DacOverride => 1,
            Capability::Fowner => 3,
            Capability::Fsetid => 4,
            Capability::Kill => 5,
            Capability::Setgid => 6,
            Capability::Setuid => 7,
            Capability::Setpcap => 8,
            Capability::NetBindService => 10,
            Capability::SysChroot => 18,
            Capability::SysPtrace => 19,
            Capability::Setfcap => 31,
        }
    }
}

impl Default for SecurityRules {
    fn default() -> Self {
        SecurityRules {
            privileged: false,
            allow_debug: false,
            capabilities: Capability::DEFAULT.to_vec(),
            pids: 4096,
            memory_percent: 85,
        }
    }
}

impl SecurityRules {
    /// In the order of the numbers, each once, so that two ways to write a set measure the same.
    pub(super) fn resolve(&self) -> SecurityRules {
        let mut rules = self.clone();
        rules.capabilities.sort_unstable();
        rules.capabilities.dedup();
        rules
    }

    pub(super) fn is_default(&self) -> bool {
        *self == SecurityRules::default()
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let SecurityRules {
            privileged: _,
            allow_debug: _,
            capabilities: _,
            pids,
            memory_percent,
        } = self;
        if PIDS.contains(pids) && MEMORY_PERCENT.contains(memory_percent) {
            Ok(())
        } else {
            Err(InvalidValue::Limits.of("security"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ImageDefaults, MeasuredSpec, Spec};

    fn resolve(text: &str) -> Result<MeasuredSpec, SpecError> {
        Spec::parse(text)?.resolve(ImageDefaults::any())
    }

    #[test]
    fn only_what_differs_from_the_default_is_in_the_measured_bytes() {
        let plain = resolve("").unwrap();
        assert_eq!(plain.security, SecurityRules::default());
        assert!(
            !String::from_utf8(plain.to_json())
                .unwrap()
                .contains("security")
        );
        let loose = resolve("[security]\nprivileged = true").unwrap();
        let json = String::from_utf8(loose.to_json()).unwrap();
        assert!(json.contains(r#""security":{"privileged":true,"#), "{json}");
        assert_eq!(MeasuredSpec::parse(json.as_bytes()).unwrap(), loose);
    }

    #[test]
    fn a_set_of_capabilities_measures_the_same_however_it_is_written() {
        let one = resolve("[security]\ncapabilities = ['SYS_CHROOT', 'CHOWN']").unwrap();
        let other = resolve("[security]\ncapabilities = ['CHOWN', 'SYS_CHROOT', 'CHOWN']").unwrap();
        assert_eq!(one, other);
        let reversed: Vec<_> = Capability::DEFAULT.into_iter().rev().collect();
        let written = serde_json::to_string(&reversed).unwrap();
        let spelled_out = resolve(&format!("[security]\ncapabilities = {written}")).unwrap();
        assert_eq!(spelled_out, resolve("").unwrap());
    }

    #[test]
    fn limits_have_limits_and_other_capabilities_are_unknown() {
        let limits = |text: &str| resolve(&format!("[security]\n{text}")).map(drop);
        let refused = Err(InvalidValue::Limits.of("security"));
        for text in [
            "pids = 8",
            "pids = 4194304",
            "memory_percent = 10",
            "memory_percent = 95",
        ] {
            assert_eq!(limits(text), Ok(()), "{text}");
        }
        for text in [
            "pids = 7",
            "pids = 4194305",
            "memory_percent = 9",
            "memory_percent = 96",
        ] {
            assert_eq!(limits(text), refused, "{text}");
        }
        for name in ["NET_RAW", "SYS_ADMIN", "MKNOD", "CAP_CHOWN", "chown"] {
            let error = limits(&format!("capabilities = ['{name}']")).unwrap_err();
            assert!(error.to_string().contains("unknown variant"), "{error}");
        }
    }
}
