//! Answers that go on: events and logs.

use super::respond::{Answer, Body, response};
use crate::daemon::Daemon;
use crate::enclave::Handle;
use api::{EnclaveEvent, State};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper::{Response, StatusCode};
use launch::LogReader;
use serde::Serialize;
use std::convert::Infallible;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

const QUEUE: usize = 16;

/// What happened, and with `follow` what happens.
pub(super) async fn events(daemon: &Daemon, handle: &Handle, follow: bool) -> Answer {
    // Subscribed before the stored ones are read, so that none is missed in between; one may come twice.
    let live = handle.events();
    let record = handle.record();
    let past = daemon.store().events(record.id.clone()).await?;
    let live = (follow && record.state != State::Destroyed).then_some(live);
    let (sender, body) = Channel::<Bytes, Infallible>::new(QUEUE);
    tokio::spawn(send_events(sender, past, live));
    Ok(response(
        StatusCode::OK,
        "application/x-ndjson",
        body.boxed(),
    ))
}

async fn send_events(
    mut sender: Sender<Bytes, Infallible>,
    past: Vec<EnclaveEvent>,
    live: Option<Receiver<EnclaveEvent>>,
) {
    for event in &past {
        if sender.send_data(line(event)).await.is_err() {
            return;
        }
    }
    let Some(mut live) = live else { return };
    loop {
        match live.recv().await {
            Ok(event) if Some(&event) == past.last() => {}
            Ok(event) => {
                let ends = matches!(
                    event,
                    EnclaveEvent::Status {
                        state: State::Destroyed,
                        ..
                    }
                );
                if sender.send_data(line(&event)).await.is_err() || ends {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn line(value: &impl Serialize) -> Bytes {
    let mut json = serde_json::to_vec(value).unwrap_or_default();
    json.push(b'\n');
    Bytes::from(json)
}

/// What the workload printed, and with `follow` what it prints.
pub(super) fn logs(handle: &Handle, follow: bool) -> Response<Body> {
    let reader = handle.logs().reader();
    let (sender, body) = Channel::<Bytes, Infallible>::new(QUEUE);
    tokio::spawn(send_logs(sender, reader, follow));
    response(StatusCode::OK, "application/x-ndjson", body.boxed())
}

/// At the reader's pace: what is pushed out of the log in the meantime is missing, and said to be.
async fn send_logs(mut sender: Sender<Bytes, Infallible>, mut reader: LogReader, follow: bool) {
    loop {
        let entries = if follow {
            reader.next().await
        } else {
            reader.take()
        };
        let lines: Vec<Bytes> = entries.iter().map(line).collect();
        if lines.is_empty() || sender.send_data(lines.concat().into()).await.is_err() {
            return;
        }
    }
}
