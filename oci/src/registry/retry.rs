//! Whether a request that was not answered with a success is sent again. Pure: `mod` sends, sleeps
//! and logs in.

use hyper::StatusCode;
use std::time::Duration;

/// How often one request is sent, not counting the time after a login.
const MAX_TRIES: u32 = 4;
/// The longest wait that a registry may ask for.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The pause after the first try is twice this; each later one is twice as long.
const BACKOFF: Duration = Duration::from_millis(250);

/// What became of a request that brought no success and no redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `None` where there was no response.
    pub(super) status: Option<StatusCode>,
    /// Whether the registry called the login expired: ECR answers 403 where others answer 401.
    pub(super) is_expired: bool,
    /// Whether the same request may succeed later.
    pub(super) is_retryable: bool,
    /// `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

/// What was tried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// From 1.
    tries: u32,
    logged_in: bool,
}

impl Attempt {
    pub(super) const FIRST: Attempt = Attempt {
        tries: 1,
        logged_in: false,
    };

    pub(super) fn after_login(self) -> Attempt {
        Attempt {
            logged_in: true,
            ..self
        }
    }

    pub(super) fn after_pause(self) -> Attempt {
        Attempt {
            tries: self.tries.saturating_add(1),
            ..self
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Answer the challenge, then send the request again.
    LogIn,
    /// Send the request again after this time.
    RetryAfter(Duration),
    /// The error stands.
    GiveUp,
}

/// Logs in once where the registry asks for it; otherwise tries at most four times, and only what
/// may pass.
pub(super) fn next(outcome: &Outcome, attempt: Attempt) -> Decision {
    let wants_login = match outcome.status {
        Some(StatusCode::UNAUTHORIZED) => true,
        Some(StatusCode::FORBIDDEN) => outcome.is_expired,
        _ => false,
    };
    if wants_login && !attempt.logged_in {
        return Decision::LogIn;
    }
    if !outcome.is_retryable || attempt.tries >= MAX_TRIES {
        return Decision::GiveUp;
    }
    let backoff = BACKOFF * 2u32.saturating_pow(attempt.tries);
    let pause = outcome.retry_after.unwrap_or(backoff);
    Decision::RetryAfter(pause.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcomes() -> impl Strategy<Value = Outcome> {
        let status = prop_oneof![
            Just(None),
            Just(Some(401)),
            Just(Some(403)),
            Just(Some(429)),
            (400u16..600).prop_map(Some)
        ];
        let retry_after = proptest::option::of(0..u64::MAX);
        (status, any::<bool>(), any::<bool>(), retry_after).prop_map(
            |(status, is_expired, is_retryable, seconds)| Outcome {
                status: status.map(|status| StatusCode::from_u16(status).unwrap()),
                is_expired,
                is_retryable,
                retry_after: seconds.map(Duration::from_secs),
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_a_registry_answers_it_is_asked_five_times_at_most(
            outcomes in proptest::collection::vec(outcomes(), 10)
        ) {
            let (mut attempt, mut logins, mut pauses) = (Attempt::FIRST, 0, 0);
            let mut decisions = Vec::new();
            for outcome in &outcomes {
                let decision = next(outcome, attempt);
                decisions.push(decision);
                match decision {
                    Decision::LogIn => {
                        logins += 1;
                        attempt = attempt.after_login();
                    }
                    Decision::RetryAfter(pause) => {
                        prop_assert!(outcome.is_retryable && pause <= MAX_RETRY_AFTER);
                        pauses += 1;
                        attempt = attempt.after_pause();
                    }
                    Decision::GiveUp => break,
                }
            }
            prop_assert!(logins <= 1 && pauses < MAX_TRIES, "{decisions:?}");
            prop_assert_eq!(decisions.last(), Some(&Decision::GiveUp));
        }

        #[test]
        fn a_login_is_tried_for_401_and_for_an_expired_403_alone(outcome in outcomes()) {
            let wanted = match outcome.status.map(|status| status.as_u16()) {
                Some(401) => true,
                Some(403) => outcome.is_expired,
                _ => false,
            };
            prop_assert_eq!(next(&outcome, Attempt::FIRST) == Decision::LogIn, wanted);
            prop_assert_ne!(next(&outcome, Attempt::FIRST.after_login()), Decision::LogIn);
        }
    }

    #[test]
    fn waits_as_long_as_it_is_told_to_and_else_twice_as_long_each_time() {
        let busy = |retry_after| Outcome {
            status: Some(StatusCode::TOO_MANY_REQUESTS),
            is_expired: false,
            is_retryable: true,
            retry_after,
        };
        let first = Attempt::FIRST;
        let [second, third, last] = [
            first.after_pause(),
            first.after_pause().after_pause(),
            first.after_pause().after_pause().after_pause(),
        ];
        for (attempt, milliseconds) in [(first, 500), (second, 1000), (third, 2000)] {
            let pause = Duration::from_millis(milliseconds);
            assert_eq!(next(&busy(None), attempt), Decision::RetryAfter(pause));
            let told = Some(Duration::from_secs(7));
            let pause = Duration::from_secs(7);
            assert_eq!(next(&busy(told), attempt), Decision::RetryAfter(pause));
        }
        assert_eq!(next(&busy(None), last), Decision::GiveUp);
    }
}
