//! `enclavectl events`: what happened to an enclave.

use crate::{show, ui};
use api::client::Client;
use api::{DeployError, EnclaveEvent, Release};
use explain::CliError;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or id
    name: String,
    /// Keep printing what comes
    #[arg(short, long)]
    follow: bool,
}

pub(crate) async fn events(
    client: &Client,
    Args { name, follow }: &Args,
    json: bool,
) -> Result<(), CliError> {
    show::warn_of_debug(client, name).await?;
    let rest = if *follow { "/events?follow" } else { "/events" };
    let mut events = client.stream(&ui::path(name, rest)?).await?;
    while let Some(event) = events.line::<EnclaveEvent>().await {
        if json {
            ui::print(&serde_json::to_string(&event).map_err(CliError::bug)?)?;
        } else if let Some(text) = describe(&event) {
            ui::print(&text)?;
        }
    }
    Ok(())
}

/// One event for people; progress within a stage is not worth a line.
fn describe(event: &EnclaveEvent) -> Option<String> {
    let why = |failure: &DeployError| format!(": {}\n  {}", failure.message, failure.next_step);
    match event {
        EnclaveEvent::Status { at, state, .. } => {
            let stage = state
                .stage()
                .map(|stage| format!(" ({})", stage.describe()))
                .unwrap_or_default();
            let failure = state.failure().map(why).unwrap_or_default();
            Some(format!("{at}  {}{stage}{failure}", state.status()))
        }
        EnclaveEvent::Config {
            at,
            version,
            failure,
            ..
        } => {
            let result = match failure {
                None => "runs".to_owned(),
                Some(failure) => format!("was refused{}", why(failure)),
            };
            Some(format!("{at}  config version {version} {result}"))
        }
        EnclaveEvent::Release {
            at,
            dry_run,
            release,
            failure,
            ..
        } => {
            let what = if *dry_run { "dry run" } else { "release" };
            let result = release.as_deref().map(|release| {
                let Release {
                    digest,
                    measurements,
                    ..
                } = release;
                format!("{digest} with PCR0 {}", measurements.pcr0)
            });
            let failure = failure
                .as_ref()
                .map(|failure| format!("failed{}", why(failure)));
            let result = result.or(failure).unwrap_or_default();
            Some(format!("{at}  {what} {result}"))
        }
        EnclaveEvent::Progress { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Stage, State};
    use explain::Code;

    fn status(state: State) -> EnclaveEvent {
        EnclaveEvent::Status {
            at: "T".to_owned(),
            generation: 1,
            state,
        }
    }

    fn config(failure: Option<DeployError>) -> EnclaveEvent {
        EnclaveEvent::Config {
            at: "T".to_owned(),
            generation: 2,
            version: 3,
            failure,
        }
    }

    #[test]
    fn an_event_is_one_line_and_a_failure_adds_its_next_step() {
        let failure = DeployError::new(Code::KmsRefused, "KMS said no", "Ask it.");
        for (event, expected) in [
            (
                status(State::Deploying(Stage::Pull)),
                "T  DEPLOYING (pulling the image)",
            ),
            (status(State::Deployed), "T  DEPLOYED"),
            (
                status(State::Failed(failure.clone())),
                "T  FAILED: KMS said no\n  Ask it.",
            ),
            (config(None), "T  config version 3 runs"),
            (
                config(Some(failure)),
                "T  config version 3 was refused: KMS said no\n  Ask it.",
            ),
        ] {
            assert_eq!(describe(&event).as_deref(), Some(expected));
        }
        let progress = EnclaveEvent::Progress {
            stage: Stage::Pull,
            done: 1,
            total: 2,
        };
        assert_eq!(describe(&progress), None);
    }
}
