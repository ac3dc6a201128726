//! Waits until an order is carried out, and shows how far it is. What ends a wait is decided by
//! functions over events: an order has a generation, and events of earlier orders do not count.

use crate::progress::DeployProgress;
use crate::{show, ui};
use api::client::Client;
use api::{DeployError, EnclaveEvent, Record, Release, State, Status};
use explain::{CliError, Exit};
use hyper::Method;

/// An accepted order.
#[derive(Debug, Clone, Copy)]
struct Order {
    generation: u64,
    /// Whether it ends the enclave.
    is_ending: bool,
}

impl Order {
    /// From the record that the daemon answered the order with.
    fn of(record: &Record) -> Order {
        Order {
            generation: record.generation,
            is_ending: record.state.is_ending(),
        }
    }

    /// Whether an event belongs to this order or to a later one. An enclave that is deployed again
    /// has older events too.
    fn concerns(self, event: &EnclaveEvent) -> bool {
        match event {
            EnclaveEvent::Status { generation, .. }
            | EnclaveEvent::Config { generation, .. }
            | EnclaveEvent::Release { generation, .. } => *generation >= self.generation,
            EnclaveEvent::Progress { .. } => true,
        }
    }

    /// Whether the enclave stays as it is after this event, until the next order.
    fn is_settled_by(self, event: &EnclaveEvent) -> bool {
        let EnclaveEvent::Status { state, .. } = event else {
            return false;
        };
        match state.status() {
            Status::Destroyed => true,
            Status::Deployed | Status::Failed => !self.is_ending,
            Status::PendingDeploy
            | Status::Deploying
            | Status::PendingDestroy
            | Status::Destroying => false,
        }
    }

    /// What an event means for an order that brought a config to a deployed enclave: `None` to wait
    /// on, or else why the config was refused. Whatever happens to the enclave itself ends the wait
    /// too.
    fn config_result(self, event: EnclaveEvent) -> Option<Result<(), DeployError>> {
        if !self.concerns(&event) {
            return None;
        }
        match event {
            EnclaveEvent::Config { failure, .. } => Some(failure.map_or(Ok(()), Err)),
            EnclaveEvent::Status { .. } | EnclaveEvent::Release { .. } => Some(Ok(())),
            EnclaveEvent::Progress { .. } => None,
        }
    }

    /// What an event means for an order of other code for a deployed enclave, or for a dry run:
    /// `None` to wait on. Where there is no room for two enclaves, the order ends in another state.
    fn release_result(self, event: EnclaveEvent) -> Option<Result<Option<Release>, DeployError>> {
        if !self.concerns(&event) {
            return None;
        }
        match event {
            EnclaveEvent::Release {
                failure: Some(failure),
                ..
            } => Some(Err(DeployError {
                message: format!("{}; the enclave runs what it ran before", failure.message),
                ..failure
            })),
            EnclaveEvent::Release { release, .. } => Some(Ok(release.map(|release| *release))),
            // What ran before may come back after this.
            EnclaveEvent::Status {
                state: State::Failed(failure),
                ..
            } => Some(Err(failure)),
            EnclaveEvent::Status { .. } if self.is_settled_by(&event) => Some(Ok(None)),
            EnclaveEvent::Status { .. }
            | EnclaveEvent::Config { .. }
            | EnclaveEvent::Progress { .. } => None,
        }
    }
}

/// Waits until a redeploy or a rollback runs or failed. A failed enclave is deployed again.
pub(crate) async fn until_released(
    client: &Client,
    record: Record,
    no_wait: bool,
    json: bool,
) -> Result<(), CliError> {
    if no_wait || record.state != State::Deployed {
        return until_settled(client, record, no_wait, json).await;
    }
    ui::tell("the current enclave keeps serving until the next one is attested");
    release(client, &record).await?;
    let record = fetch(client, &record).await?;
    print_record(&record, json)?;
    settled(&record.state)
}

/// Waits for the end of a dry run, and prints what a redeploy would bring.
pub(crate) async fn until_measured(
    client: &Client,
    record: Record,
    json: bool,
) -> Result<(), CliError> {
    let release = release(client, &record).await?.ok_or_else(|| {
        CliError::new(
            Exit::Negative,
            "something else was ordered in the meantime",
            "Read 'enclavectl events', then order it again.",
        )
    })?;
    if json {
        return ui::print_json(&release);
    }
    let Release {
        digest,
        measurements: new,
        ..
    } = release;
    let change = match record.measurements {
        Some(old) if old == new => "as now".to_owned(),
        Some(old) => format!("now {}", old.pcr0),
        None => "nothing was built before".to_owned(),
    };
    ui::print(&format!(
        "digest  {digest}\nPCR0    {} ({change})",
        new.pcr0
    ))
}

async fn release(client: &Client, record: &Record) -> Result<Option<Release>, CliError> {
    let order = Order::of(record);
    let path = ui::path(record.id.as_str(), "/events?follow")?;
    let mut events = client.stream(&path).await?;
    while let Some(event) = events.line::<EnclaveEvent>().await {
        match order.release_result(event) {
            None => {}
            Some(Ok(release)) => return Ok(release),
            Some(Err(DeployError {
                message, next_step, ..
            })) => return Err(CliError::new(Exit::Negative, message, next_step)),
        }
    }
    Ok(None)
}

/// Shows an enclave's way until it is deployed, failed or gone; a failure becomes exit code 1.
pub(crate) async fn until_settled(
    client: &Client,
    record: Record,
    no_wait: bool,
    json: bool,
) -> Result<(), CliError> {
    if no_wait {
        return if json {
            ui::print_json(&record)
        } else {
            ui::print(&format!("{} {}", record.name, record.state.status()))
        };
    }
    let order = Order::of(&record);
    let rest = "/events?follow";
    // Without events there is no progress to show, and the record says whether there is more to
    // report.
    if let Ok(mut events) = client.stream(&ui::path(record.id.as_str(), rest)?).await {
        let mut progress = DeployProgress::new();
        while let Some(event) = events.line::<EnclaveEvent>().await {
            if !order.concerns(&event) {
                continue;
            }
            progress.show(&event);
            if order.is_settled_by(&event) {
                break;
            }
        }
        progress.finish();
    }
    let record = fetch(client, &record).await?;
    print_record(&record, json)?;
    settled(&record.state)
}

/// Waits until a config, known by the SHA-256 of its sealed file, runs or was refused. A failed
/// enclave is deployed again with it.
pub(crate) async fn until_configured(
    client: &Client,
    record: Record,
    sha256: &str,
    no_wait: bool,
    json: bool,
) -> Result<(), CliError> {
    if no_wait || record.state != State::Deployed {
        return until_settled(client, record, no_wait, json).await;
    }
    ui::tell("the current enclave keeps serving while the next one boots with the new config");
    let order = Order::of(&record);
    let path = ui::path(record.id.as_str(), "/events?follow")?;
    let mut events = client.stream(&path).await?;
    while let Some(event) = events.line::<EnclaveEvent>().await {
        match order.config_result(event) {
            None => {}
            Some(Ok(())) => break,
            Some(Err(DeployError {
                message, next_step, ..
            })) => {
                let message = format!("{message}; the previous config still runs");
                return Err(CliError::new(Exit::Negative, message, next_step));
            }
        }
    }
    let record = fetch(client, &record).await?;
    configured(&record, sha256)?;
    print_record(&record, json)
}

async fn fetch(client: &Client, record: &Record) -> Result<Record, CliError> {
    let path = ui::path(record.id.as_str(), "")?;
    Ok(client.json(Method::GET, &path, Vec::new()).await?)
}

fn print_record(record: &Record, json: bool) -> Result<(), CliError> {
    if json {
        ui::print_json(record)
    } else {
        ui::print(&show::summary(record))
    }
}

/// How a wait for a settled enclave ends.
fn settled(state: &State) -> Result<(), CliError> {
    match state {
        State::Deployed | State::Destroyed => Ok(()),
        State::Failed(DeployError {
            message, next_step, ..
        }) => Err(CliError::new(Exit::Negative, message, next_step)),
        State::PendingDeploy | State::Deploying(_) | State::PendingDestroy | State::Destroying => {
            Err(CliError::new(
                Exit::Unavailable,
                "the daemon stopped sending events before this was done",
                "Check with 'enclavectl show', and read the daemon's journal.",
            ))
        }
    }
}

/// How a wait for a config ends that was not refused.
fn configured(record: &Record, sha256: &str) -> Result<(), CliError> {
    let config = record.config.as_ref();
    let runs = config.is_some_and(|config| config.sha256 == sha256);
    if runs && record.state == State::Deployed {
        return Ok(());
    }
    let status = record.state.status();
    Err(CliError::new(
        Exit::Negative,
        format!("the enclave is {status} and does not run the new config"),
        "Read 'enclavectl events', then run 'enclavectl configure' again.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Stage;
    use explain::Code;

    fn status(generation: u64, state: State) -> EnclaveEvent {
        EnclaveEvent::Status {
            at: String::new(),
            generation,
            state,
        }
    }

    fn config(generation: u64, failure: Option<DeployError>) -> EnclaveEvent {
        EnclaveEvent::Config {
            at: String::new(),
            generation,
            version: 7,
            failure,
        }
    }

    fn failure() -> DeployError {
        DeployError::new(Code::KmsRefused, "no", "Ask.")
    }

    const DEPLOY: Order = Order {
        generation: 4,
        is_ending: false,
    };
    const TERMINATE: Order = Order {
        generation: 4,
        is_ending: true,
    };

    /// How many events a wait takes, the one that ends it included; `None` if it goes on.
    fn events_until_settled(order: Order, events: &[EnclaveEvent]) -> Option<usize> {
        let ends = |event: &EnclaveEvent| order.concerns(event) && order.is_settled_by(event);
        events.iter().position(ends).map(|index| index + 1)
    }

    #[test]
    fn events_of_earlier_orders_do_not_end_a_wait() {
        let events = [
            status(1, State::Deployed),
            status(3, State::Failed(failure())),
            status(4, State::PendingDeploy),
            status(4, State::Deploying(Stage::Pull)),
            config(4, None),
            status(4, State::Deployed),
        ];
        assert_eq!(events_until_settled(DEPLOY, &events), Some(6));
        assert_eq!(events_until_settled(DEPLOY, &events[..5]), None);
    }

    #[test]
    fn a_failure_ends_a_deploy_and_a_later_termination_does_too() {
        let failed = [status(4, State::Failed(failure()))];
        assert_eq!(events_until_settled(DEPLOY, &failed), Some(1));
        let ended = [
            status(5, State::PendingDestroy),
            status(5, State::Destroying),
            status(5, State::Destroyed),
        ];
        assert_eq!(events_until_settled(DEPLOY, &ended), Some(3));
    }

    #[test]
    fn only_the_end_of_the_enclave_ends_the_wait_for_a_termination() {
        let events = [
            status(4, State::PendingDestroy),
            status(4, State::Failed(failure())),
            status(4, State::Deployed),
            status(4, State::Destroyed),
        ];
        assert_eq!(events_until_settled(TERMINATE, &events), Some(4));
    }

    #[test]
    fn a_config_runs_or_is_refused_or_something_else_happens_to_the_enclave() {
        let progress = EnclaveEvent::Progress {
            stage: Stage::Launch,
            done: 1,
            total: 2,
        };
        for (event, expected) in [
            (config(3, Some(failure())), None),
            (status(3, State::Deployed), None),
            (progress, None),
            (config(4, None), Some(Ok(()))),
            (config(4, Some(failure())), Some(Err(failure()))),
            (status(5, State::PendingDeploy), Some(Ok(()))),
        ] {
            assert_eq!(DEPLOY.config_result(event), expected);
        }
    }

    #[test]
    fn a_release_runs_or_failed_and_the_state_says_so_where_two_had_no_room() {
        let release = |generation, failure| EnclaveEvent::Release {
            at: String::new(),
            generation,
            dry_run: false,
            release: None,
            failure,
        };
        let kept = DeployError {
            message: "no; the enclave runs what it ran before".to_owned(),
            ..failure()
        };
        for (event, expected) in [
            (release(3, Some(failure())), None),
            (status(4, State::PendingDeploy), None),
            (config(4, None), None),
            (release(4, None), Some(Ok(None))),
            (release(4, Some(failure())), Some(Err(kept))),
            (status(4, State::Deployed), Some(Ok(None))),
            (status(4, State::Failed(failure())), Some(Err(failure()))),
        ] {
            assert_eq!(DEPLOY.release_result(event), expected);
        }
    }

    #[test]
    fn a_wait_ends_with_what_the_state_is_worth() {
        let exit = |state| settled(&state).err().map(|error| error.exit);
        assert_eq!(exit(State::Deployed), None);
        assert_eq!(exit(State::Destroyed), None);
        assert_eq!(exit(State::Failed(failure())), Some(Exit::Negative));
        assert_eq!(exit(State::Deploying(Stage::Pull)), Some(Exit::Unavailable));
    }

    #[test]
    fn a_config_runs_if_the_enclave_is_deployed_with_that_very_file() {
        let record = |status: &str, sha256: &str| -> Record {
            let json = serde_json::json!({
                "id": "e-0123456789abcdef", "name": "web", "status": status, "generation": 4, "provider": "qemu",
                "source_type": "public-registry", "image": "docker.io/library/httpd:2.4",
                "config": { "name": "web", "version": 7, "kms_key": "arn", "sha256": sha256 },
                "created_at": "T", "updated_at": "T",
            });
            serde_json::from_value(json).unwrap()
        };
        assert_eq!(configured(&record("DEPLOYED", "aa"), "aa"), Ok(()));
        for other in [record("DEPLOYED", "bb"), record("PENDING_DESTROY", "aa")] {
            let error = configured(&other, "aa").unwrap_err();
            assert_eq!(error.exit, Exit::Negative);
            assert!(error.message.ends_with("does not run the new config"));
        }
    }
}
