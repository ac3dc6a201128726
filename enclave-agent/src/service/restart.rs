//! When a program that ended is started once more. Pure: what happened comes in, how long to wait
//! comes out.

use std::time::Duration;
use wire::control::WorkloadExit;
use wire::spec::RestartPolicy;

/// Before the first start after a healthy run. Short: most programs that fail once do not fail
/// twice.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait; each one is twice as long as the one before. A program that cannot run costs a
/// start a minute, and one whose database comes back waits no longer than that.
const LONGEST: Duration = Duration::from_secs(60);
/// A program that ran for this long was well: waits begin anew. As long as the longest wait, so that
/// one that always fails after its start never counts as well between two waits.
const WELL: Duration = Duration::from_secs(60);

pub(super) struct Restarts {
    policy: RestartPolicy,
    count: u32,
    wait: Duration,
}

/// What comes after a program's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Restart {
    /// How many there were, this one included.
    pub(super) count: u32,
    pub(super) wait: Duration,
}

impl Restarts {
    pub(super) fn new(policy: RestartPolicy) -> Restarts {
        Restarts {
            policy,
            count: 0,
            wait: FIRST,
        }
    }

    /// Whether an unhealthy program is ended, so that it is started once more.
    pub(super) fn heals(&self) -> bool {
        self.policy != RestartPolicy::Never
    }

    /// The program ended after it `ran` for so long; it may have been ended because it was
    /// `unhealthy`. `None` if it stays so.
    pub(super) fn ended(
        &mut self,
        exit: WorkloadExit,
        ran: Duration,
        unhealthy: bool,
    ) -> Option<Restart> {
        let again = match self.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => unhealthy || exit != WorkloadExit::Code(0),
            RestartPolicy::Always => true,
        };
        if !again {
            return None;
        }
        if ran >= WELL {
            self.wait = FIRST;
        }
        let wait = self.wait;
        self.wait = LONGEST.min(wait * 2);
        self.count = self.count.saturating_add(1);
        Some(Restart {
            count: self.count,
            wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: WorkloadExit = WorkloadExit::Code(1);

    fn waits(restarts: &mut Restarts, runs: &[u64]) -> Vec<u64> {
        let wait = |seconds: &u64| {
            let restart = restarts.ended(FAILED, Duration::from_secs(*seconds), false);
            restart.unwrap().wait.as_secs()
        };
        runs.iter().map(wait).collect()
    }

    #[test]
    fn waits_double_to_a_minute_and_begin_anew_after_a_minute_of_running() {
        let mut restarts = Restarts::new(RestartPolicy::OnFailure);
        let found = waits(&mut restarts, &[0, 0, 59, 0, 0, 0, 0, 0]);
        assert_eq!(found, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits(&mut restarts, &[60, 0]), [1, 2]);
        assert_eq!(
            restarts.ended(FAILED, Duration::ZERO, false).unwrap().count,
            11
        );
    }

    #[test]
    fn the_policy_decides_which_ends_are_final() {
        let again = |policy, exit, unhealthy| {
            let mut restarts = Restarts::new(policy);
            restarts.ended(exit, Duration::ZERO, unhealthy).is_some()
        };
        let clean = WorkloadExit::Code(0);
        for exit in [clean, FAILED, WorkloadExit::Signal(9)] {
            assert!(!again(RestartPolicy::Never, exit, false));
            assert!(again(RestartPolicy::Always, exit, false));
            let failed = exit != clean;
            assert_eq!(again(RestartPolicy::OnFailure, exit, false), failed);
            assert!(again(RestartPolicy::OnFailure, exit, true));
        }
    }
}
