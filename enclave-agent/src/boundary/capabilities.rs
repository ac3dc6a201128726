//! Sets of capabilities (capabilities(7)).

use super::sys;
use std::io;
use wire::spec::Capability;

/// linux/capability.h, CAP_KILL.
const KILL: u8 = 5;
/// linux/capability.h, CAP_SYS_RESOURCE.
const RESOURCE: u8 = 24;
/// linux/capability.h: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_BOOT,
/// CAP_SYS_TIME.
const AGENT: [u8; 6] = [KILL, 10, 12, 21, 22, 25];
/// The last that any kernel has a number for; those that this one lacks cannot be dropped.
const LAST: u8 = 63;

/// A set, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) const NONE: Set = Set(0);

    pub(super) fn of(capabilities: &[Capability]) -> Set {
        Set::numbered(capabilities.iter().map(|capability| capability.number()))
    }

    /// What init needs: it signals the workload, which is another user's.
    pub(super) fn init() -> Set {
        Set::numbered([KILL])
    }

    /// What init needs to start programs once more: those must not be able to take back that they
    /// die first when memory runs out (`oom_score_adj`, proc_pid_oom_score_adj(5)). It needs nothing
    /// to enter the workload's user namespace, which it owns (user_namespaces(7)).
    pub(super) fn resident_init() -> Set {
        Set::numbered([KILL, RESOURCE])
    }

    /// What the agent needs once the workload runs: to signal it, to enter its network, to set the
    /// clock and to power off.
    pub(super) fn agent() -> Set {
        Set::numbered(AGENT)
    }

    fn numbered(numbers: impl IntoIterator<Item = u8>) -> Set {
        Set(numbers.into_iter().fold(0, |set, number| set | 1 << number))
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn from_bits(bits: u64) -> Set {
        Set(bits)
    }

    fn has(self, number: u8) -> bool {
        self.0 & 1 << number != 0
    }

    /// No program that this process or a child runs gets more than this.
    pub(super) fn bound(self) -> io::Result<()> {
        let missing = (0..=LAST).filter(|number| !self.has(*number));
        missing
            .into_iter()
            .try_for_each(sys::drop_from_bounding_set)
    }

    /// This thread has these, and hands none on but through the rules for root.
    pub(super) fn take(self) -> io::Result<()> {
        sys::set_capabilities(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_kernels_bits() {
        assert_eq!(
            Set::of(&[Capability::Chown, Capability::Setfcap]).0,
            0x8000_0001
        );
        assert_eq!(Set::init().0, 0x20);
        assert_eq!(Set::of(&Capability::DEFAULT).0, 0x8000_05fb);
    }
}
