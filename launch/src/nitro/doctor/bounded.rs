//! Checks side by side, each on a thread of its own: one that hangs or panics costs its own finding
//! and nothing else.

use api::Finding;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long all of them have.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// One of them.
pub(super) type Check = Box<dyn FnOnce() -> Finding + Send>;

/// Runs checks, and gives their findings in the same order. A thread that hangs is left alone.
pub(super) fn run(checks: Vec<(&'static str, Check)>, limit: Duration) -> Vec<Finding> {
    let deadline = Instant::now() + limit;
    let running: Vec<_> = checks
        .into_iter()
        .map(|(what, check)| {
            let (sender, receiver) = channel();
            let thread = std::thread::Builder::new().name("doctor".to_owned());
            let started = thread.spawn(move || sender.send(check()).ok());
            (what, started.map(|_| receiver))
        })
        .collect();
    running
        .into_iter()
        .map(|(what, receiver)| {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.map(|receiver| receiver.recv_timeout(left)) {
                Ok(Ok(finding)) => finding,
                Ok(Err(RecvTimeoutError::Timeout)) => {
                    Finding::not_checked(what, format!("no answer within {limit:?}"))
                }
                Ok(Err(RecvTimeoutError::Disconnected)) => {
                    Finding::not_checked(what, "the check failed unexpectedly; please report it")
                }
                Err(error) => {
                    Finding::not_checked(what, format!("no thread could be started: {error}"))
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(checks: Vec<(&'static str, Check)>, limit: Duration) -> Vec<String> {
        let found = run(checks, limit);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_check_that_panics_costs_its_own_finding() {
        let checks: Vec<(&'static str, Check)> = vec![
            (
                "a",
                Box::new(|| std::panic::resume_unwind(Box::new("on purpose"))),
            ),
            ("b", Box::new(|| Finding::passed("b", "fine"))),
        ];
        assert_eq!(
            lines(checks, Duration::from_secs(60)),
            [
                "- a: not checked: the check failed unexpectedly; please report it",
                "✓ b: fine",
            ]
        );
    }

    #[test]
    fn a_check_that_hangs_is_left_alone() {
        let (_keep, never) = channel::<()>();
        let hangs = move || {
            never.recv().ok();
            Finding::passed("a", "late")
        };
        let checks: Vec<(&'static str, Check)> = vec![("a", Box::new(hangs))];
        assert_eq!(
            lines(checks, Duration::from_millis(50)),
            ["- a: not checked: no answer within 50ms"]
        );
    }
}
