//! What may happen to an enclave, as a pure function: no clock, no I/O.
//!
//! ```text
//!              deploy                attested
//! PENDING_DEPLOY ──► DEPLOYING(stage) ──────► DEPLOYED
//!       ▲                │ failure              │ failure
//!       │   redeploy     ▼                      │
//!       ├──────────── FAILED ◄──────────────────┘
//!       │                          DEPLOYED stays while a replacement is made beside it; where there is
//!       │                          no room for two, it goes to PENDING_DEPLOY first
//!       │
//!   any of these ──destroy──► PENDING_DESTROY ──► DESTROYING ──► DESTROYED
//! ```
//!
//! DEPLOYED means that a fresh attestation document from the running enclave carried the measurements that were built.

use api::{DeployError, Stage, State, Status};

/// What happens to an enclave, or is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The enclave's task is free to begin what is pending.
    Begin,
    /// A deploy came to this stage.
    Entered(Stage),
    /// A fresh document matched the build.
    Attested,
    /// The deploy failed, or the enclave ended.
    Failed(DeployError),
    /// An order.
    Redeploy,
    /// The same without an order of its own: there is no room for two enclaves, or an older one comes back.
    Relaunch,
    /// An order.
    Destroy,
    /// The enclave is gone, its secret and its files too.
    Cleared,
    /// The daemon started and found this state in its store; whatever ran before is gone.
    Recovered,
}

/// What the enclave's task has to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Start the deploy.
    Deploy,
    /// Stop the enclave, or the deploy that is under way, and free what it used.
    Stop,
    /// Delete the secret and the files.
    Clear,
}

/// An order that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an enclave that is {status} cannot be {wanted}")]
pub struct Refused {
    /// What it is.
    pub status: Status,
    /// What it was to be.
    pub wanted: &'static str,
}

/// One step. `None` for events that came too late to mean anything, such as a stage of a deploy that was stopped.
pub fn step(state: &State, event: Event) -> Result<Option<(State, Vec<Effect>)>, Refused> {
    let refused = |wanted| {
        Err(Refused {
            status: state.status(),
            wanted,
        })
    };
    Ok(Some(match (state, event) {
        (State::PendingDeploy, Event::Begin) => {
            (State::Deploying(Stage::Credentials), vec![Effect::Deploy])
        }
        (State::PendingDestroy, Event::Begin) => {
            (State::Destroying, vec![Effect::Stop, Effect::Clear])
        }

        (State::Deploying(at), Event::Entered(stage)) if stage > *at => {
            (State::Deploying(stage), vec![])
        }
        (State::Deploying(_), Event::Attested) => (State::Deployed, vec![]),
        (State::Deploying(_) | State::Deployed, Event::Failed(error)) => {
            (State::Failed(error), vec![Effect::Stop])
        }
        (State::Destroying, Event::Cleared) => (State::Destroyed, vec![]),

        (State::Deployed | State::Failed(_), Event::Redeploy | Event::Relaunch) => {
            (State::PendingDeploy, vec![Effect::Stop])
        }
        (_, Event::Redeploy) => return refused("redeployed"),

        (State::PendingDestroy | State::Destroying | State::Destroyed, Event::Destroy) => {
            return refused("terminated again");
        }
        (_, Event::Destroy) => (State::PendingDestroy, vec![]),

        // An enclave that ran or was about to comes back; one that was going goes on going.
        (State::Deploying(_) | State::Deployed, Event::Recovered) => (State::PendingDeploy, vec![]),
        (State::Destroying, Event::Recovered) => (State::PendingDestroy, vec![]),

        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use explain::Code;
    use proptest::prelude::*;

    fn failure() -> DeployError {
        DeployError::new(Code::Internal, "m", "h")
    }

    fn walk(events: Vec<Event>) -> State {
        events
            .into_iter()
            .fold(State::PendingDeploy, |state, event| {
                match step(&state, event) {
                    Ok(Some((next, _))) => next,
                    _ => state,
                }
            })
    }

    #[test]
    fn a_deploy_goes_through_its_stages_in_order() {
        use Event::*;
        assert_eq!(
            walk(vec![Begin, Entered(Stage::Pull)]),
            State::Deploying(Stage::Pull)
        );
        assert_eq!(
            walk(vec![Begin, Entered(Stage::Pull), Entered(Stage::Resolve)]),
            State::Deploying(Stage::Pull)
        );
        assert_eq!(walk(vec![Begin, Attested]), State::Deployed);
        assert_eq!(
            walk(vec![Begin, Attested, Event::Failed(failure())]),
            State::Failed(failure())
        );
        assert_eq!(
            walk(vec![Begin, Event::Failed(failure()), Redeploy]),
            State::PendingDeploy
        );
        assert_eq!(walk(vec![Begin, Destroy, Begin, Cleared]), State::Destroyed);
    }

    #[test]
    fn a_late_stage_of_a_stopped_deploy_changes_nothing() {
        assert_eq!(
            step(&State::PendingDestroy, Event::Entered(Stage::Attest)),
            Ok(None)
        );
        assert_eq!(step(&State::Destroying, Event::Attested), Ok(None));
        assert_eq!(step(&State::Destroyed, Event::Failed(failure())), Ok(None));
    }

    #[test]
    fn says_why_an_order_is_refused() {
        let error = step(&State::Deploying(Stage::Pull), Event::Redeploy).unwrap_err();
        assert_eq!(
            error.to_string(),
            "an enclave that is DEPLOYING cannot be redeployed"
        );
        assert!(step(&State::Destroyed, Event::Destroy).is_err());
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Begin),
            Just(Event::Entered(Stage::Build)),
            Just(Event::Attested),
            Just(Event::Failed(failure())),
            Just(Event::Redeploy),
            Just(Event::Relaunch),
            Just(Event::Destroy),
            Just(Event::Cleared),
            Just(Event::Recovered),
        ]
    }

    proptest! {
        #[test]
        fn nothing_comes_back_from_destruction(events in proptest::collection::vec(event(), 0..20)) {
            let mut state = State::PendingDeploy;
            let mut going = false;
            for event in events {
                let attested = event == Event::Attested;
                let before = state.clone();
                if let Ok(Some((next, _))) = step(&state, event) {
                    // Only a fresh document makes an enclave DEPLOYED.
                    prop_assert!(next != State::Deployed || attested && matches!(before, State::Deploying(_)));
                    state = next;
                }
                let now = matches!(state, State::PendingDestroy | State::Destroying | State::Destroyed);
                prop_assert!(now || !going);
                going = now;
            }
        }

        #[test]
        fn whatever_leaves_the_running_states_is_stopped(events in proptest::collection::vec(event(), 0..20)) {
            let mut state = State::PendingDeploy;
            for event in events {
                if let Ok(Some((next, actions))) = step(&state, event.clone()) {
                    let ran = matches!(state, State::Deploying(_) | State::Deployed);
                    let runs = matches!(next, State::Deploying(_) | State::Deployed | State::PendingDestroy);
                    prop_assert!(!ran || runs || event == Event::Recovered || actions.contains(&Effect::Stop));
                    state = next;
                }
            }
        }
    }
}
