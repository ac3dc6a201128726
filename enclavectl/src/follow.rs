//! Follows an enclave: its stages with progress bars, its events, its logs.

use super::{CliError, path, print, print_json, tell};
use host_proxy::client::Client;
use host_proxy::enclave::describe;
use host_proxy::fault::Fault;
use host_proxy::lifecycle::{Stage, Status};
use host_proxy::record::{EnclaveEvent, Record};
use hyper::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Shows an enclave's way until it is deployed, failed or gone; a failure becomes exit code 1.
pub(super) async fn until_settled(
    client: &Client,
    record: Record,
    no_wait: bool,
    json: bool,
) -> Result<(), CliError> {
    if no_wait {
        return if json {
            print_json(&record)
        } else {
            print(&format!("{} {}", record.name, record.status))
        };
    }
    let going = matches!(record.status, Status::PendingDestroy | Status::Destroying);
    let events = client
        .stream(&path(record.id.as_str(), "/events?follow")?)
        .await;
    if let Ok(mut events) = events {
        let mut bars = Bars::new();
        // An enclave that is deployed again has events of its first life: the ones before this order do not count.
        while let Some(event) = events.line::<EnclaveEvent>().await {
            if let EnclaveEvent::Status { at, .. } = &event
                && *at < record.updated_at
            {
                continue;
            }
            bars.show(&event);
            if let EnclaveEvent::Status { status, .. } = event
                && (status == Status::Destroyed
                    || !going && matches!(status, Status::Deployed | Status::Failed))
            {
                break;
            }
        }
        bars.finish();
    }
    let record: Record = client
        .json(Method::GET, &path(record.id.as_str(), "")?, Vec::new())
        .await?;
    if json {
        print_json(&record)?;
    } else {
        print(&super::show::summary(&record))?;
    }
    match (record.status, record.fault) {
        (Status::Failed, Some(Fault { message, hint, .. })) => {
            Err(CliError::new(Exit::Negative, message, hint))
        }
        (
            Status::PendingDeploy | Status::Deploying | Status::PendingDestroy | Status::Destroying,
            _,
        ) => Err(CliError::new(
            Exit::Unavailable,
            "the daemon stopped telling before this was done",
            "see 'enclavectl show', or the daemon's journal",
        )),
        _ => Ok(()),
    }
}

/// Waits until a config that was ordered, known by the SHA-256 of its file, runs, or failed to. A failed enclave is deployed again for it.
pub(super) async fn until_configured(
    client: &Client,
    record: Record,
    wanted: &str,
    no_wait: bool,
    json: bool,
) -> Result<(), CliError> {
    if no_wait || record.status != Status::Deployed {
        return until_settled(client, record, no_wait, json).await;
    }
    tell("the enclave serves on while the next one boots with the new config");
    let mut events = client
        .stream(&path(record.id.as_str(), "/events?follow")?)
        .await?;
    while let Some(event) = events.line::<EnclaveEvent>().await {
        match event {
            EnclaveEvent::Config { at, fault, .. } if at >= record.updated_at => match fault {
                Some(Fault { message, hint, .. }) => {
                    return Err(CliError::new(
                        Exit::Negative,
                        format!("{message}; the config before still runs"),
                        hint,
                    ));
                }
                None => break,
            },
            // Whatever happens to the enclave now, this order is over.
            EnclaveEvent::Status { at, .. } if at >= record.updated_at => break,
            _ => {}
        }
    }
    let record: Record = client
        .json(Method::GET, &path(record.id.as_str(), "")?, Vec::new())
        .await?;
    if record
        .config
        .as_ref()
        .is_none_or(|config| config.sha256 != wanted)
        || record.status != Status::Deployed
    {
        return Err(CliError::new(
            Exit::Negative,
            format!(
                "the enclave is {}, and does not run the new config",
                record.status
            ),
            "see 'enclavectl events', and give the config again",
        ));
    }
    if json {
        print_json(&record)
    } else {
        print(&super::show::summary(&record))
    }
}

pub(super) async fn events(
    client: &Client,
    name: &str,
    follow: bool,
    json: bool,
) -> Result<(), CliError> {
    let query = if follow { "/events?follow" } else { "/events" };
    let mut events = client.stream(&path(name, query)?).await?;
    while let Some(event) = events.line::<EnclaveEvent>().await {
        match (&event, json) {
            (event, true) => print(&serde_json::to_string(event).unwrap_or_default())?,
            (
                EnclaveEvent::Status {
                    at,
                    status,
                    stage,
                    fault,
                },
                false,
            ) => {
                let stage = stage
                    .map(|stage| format!(" ({})", describe(stage)))
                    .unwrap_or_default();
                let fault = fault
                    .as_ref()
                    .map(|fault| format!(": {}\n  {}", fault.message, fault.hint))
                    .unwrap_or_default();
                print(&format!("{at}  {status}{stage}{fault}"))?;
            }
            (EnclaveEvent::Config { at, version, fault }, false) => {
                let result = match fault {
                    None => "runs".to_owned(),
                    Some(fault) => format!("was refused: {}\n  {}", fault.message, fault.hint),
                };
                print(&format!("{at}  config version {version} {result}"))?;
            }
            (EnclaveEvent::Progress { .. }, false) => {}
        }
    }
    Ok(())
}

pub(super) async fn logs(client: &Client, name: &str, follow: bool) -> Result<(), CliError> {
    let query = if follow { "/logs?follow" } else { "/logs" };
    let mut stream = client.stream(&path(name, query)?).await?;
    while let Some(piece) = stream.piece().await {
        let mut stdout = std::io::stdout();
        let written = stdout.write_all(&piece).and_then(|()| stdout.flush());
        written
            .map_err(|e| CliError::new(Exit::Unavailable, e, "the reader of the output is gone"))?;
    }
    Ok(())
}

/// A line a stage, with a bar below on a terminal.
struct Bars {
    bar: ProgressBar,
    terminal: bool,
    stage: Option<(Stage, Instant)>,
}

impl Bars {
    fn new() -> Bars {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(100));
        Bars {
            bar,
            terminal,
            stage: None,
        }
    }

    fn line(&self, text: &str) {
        if self.terminal {
            self.bar.println(text)
        } else {
            tell(text)
        }
    }

    fn close_stage(&mut self, mark: &str) {
        if let Some((stage, began)) = self.stage.take() {
            self.line(&format!(
                "  {mark} {:<44} {:>6.1} s",
                describe(stage),
                began.elapsed().as_secs_f64()
            ));
        }
    }

    fn show(&mut self, event: &EnclaveEvent) {
        match event {
            EnclaveEvent::Progress { stage, done, total }
                if self.stage.is_some_and(|(current, _)| current == *stage) =>
            {
                self.style("  {spinner} {msg} {wide_bar} {bytes}/{total_bytes} {eta}");
                self.bar.set_length(*total);
                self.bar.set_position(*done);
            }
            EnclaveEvent::Progress { .. } | EnclaveEvent::Config { .. } => {}
            EnclaveEvent::Status {
                stage: Some(stage), ..
            } => {
                self.close_stage("✓");
                self.stage = Some((*stage, Instant::now()));
                self.style("  {spinner} {msg} {elapsed}");
                self.bar.reset();
                self.bar.set_message(describe(*stage));
            }
            EnclaveEvent::Status {
                status,
                stage: None,
                ..
            } => {
                self.close_stage(if *status == Status::Failed {
                    "✗"
                } else {
                    "✓"
                });
                self.line(&status.to_string());
            }
        }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
