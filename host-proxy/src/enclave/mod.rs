//! One task owns one enclave: its record, its deploy, its processes. Everybody else sends orders and watches.

mod configure;

use self::configure::{Replacing, candidate};
use crate::attest::{self, FetchError};
use crate::control::Control;
use crate::deploy::{self, Candidate, Context, Live, Note, Order};
use crate::fault::Fault;
use crate::launch::{Running, Vsock};
use crate::lifecycle::{Action, Event, Refused, Stage, State, step};
use crate::logs::Logs;
use crate::record::{ConfigRecord, EnclaveEvent, Record};
use crate::sealed::Incoming;
use crate::store::{Store, StoreError};
use eif_builder::build::Built;
use oci::Reference;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use wire::spec::Spec;

/// How long a workload has between its stop signal and SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// And how long the enclave has after that to power off by itself.
const POWER_OFF: Duration = Duration::from_secs(5);
const RETRY_CLEAR: Duration = Duration::from_secs(10);
const QUEUE: usize = 16;
const NOTES: usize = 64;
const EVENTS: usize = 256;

type Answer = oneshot::Sender<Result<Record, OrderError>>;

enum Command {
    Redeploy(Answer),
    Destroy(Answer),
    Configure(Box<Incoming>, Answer),
}

/// How others reach the task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    record: watch::Receiver<Record>,
    vsock: watch::Receiver<Option<Vsock>>,
    events: broadcast::Sender<EnclaveEvent>,
    logs: Logs,
}

#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it could not be written down: {0}")]
    Store(#[from] StoreError),
    #[error("the config could not be kept: {0}")]
    Config(std::io::Error),
    #[error("the daemon is stopping")]
    Stopping,
}

impl Handle {
    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    pub fn events(&self) -> broadcast::Receiver<EnclaveEvent> {
        self.events.subscribe()
    }

    pub async fn redeploy(&self) -> Result<Record, OrderError> {
        self.order(Command::Redeploy).await
    }

    pub async fn destroy(&self) -> Result<Record, OrderError> {
        self.order(Command::Destroy).await
    }

    /// Gives the enclave another config. One that is deployed goes on until the next one is attested.
    pub async fn configure(&self, incoming: Incoming) -> Result<Record, OrderError> {
        self.order(|answer| Command::Configure(Box::new(incoming), answer))
            .await
    }

    async fn order(&self, command: impl FnOnce(Answer) -> Command) -> Result<Record, OrderError> {
        let (answer, result) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| OrderError::Stopping)?;
        result.await.map_err(|_| OrderError::Stopping)?
    }

    /// A fresh document of the running enclave; `None` if none is deployed.
    pub async fn attestation(&self, nonce: Option<&[u8]>) -> Option<Result<Vec<u8>, FetchError>> {
        let vsock = self.vsock.borrow().clone()?;
        Some(attest::fetch(&vsock, nonce).await)
    }
}

/// What the task works with.
#[derive(Debug)]
pub(crate) struct Enclave {
    record: Record,
    state: State,
    folder: PathBuf,
    context: Arc<Context>,
    store: Store,
    commands: mpsc::Receiver<Command>,
    stopping: watch::Receiver<bool>,
    view: watch::Sender<Record>,
    vsock: watch::Sender<Option<Vsock>>,
    events: broadcast::Sender<EnclaveEvent>,
    logs: Logs,
    deploying: Option<Deploying>,
    live: Option<Live>,
    replacing: Option<Replacing>,
    /// Enclaves that were replaced, and get time to end.
    ending: JoinSet<()>,
    /// The next deploy launches this instead of pulling and building.
    relaunch: Option<Built>,
}

#[derive(Debug)]
struct Deploying {
    task: JoinHandle<Result<Live, Fault>>,
    notes: mpsc::Receiver<Note>,
}

/// What the task wakes up for.
enum Wake {
    Command(Command),
    Note(Note),
    Deployed(Box<Result<Live, Fault>>),
    Replaced(Box<Result<Candidate, Fault>>),
    Ended(Fault),
    Stop,
}

/// Starts the task for a record, at the state that the record is in.
pub(crate) fn spawn(
    record: Record,
    folder: PathBuf,
    context: Arc<Context>,
    store: Store,
    stopping: watch::Receiver<bool>,
) -> (Handle, JoinHandle<()>) {
    let (commands, orders) = mpsc::channel(QUEUE);
    let (view, viewed) = watch::channel(record.clone());
    let (vsock, reachable) = watch::channel(None);
    let (events, _) = broadcast::channel(EVENTS);
    let logs = Logs::default();
    let handle = Handle {
        commands,
        record: viewed,
        vsock: reachable,
        events: events.clone(),
        logs: logs.clone(),
    };
    let enclave = Enclave {
        state: record.state(),
        record,
        folder,
        context,
        store,
        commands: orders,
        stopping,
        view,
        vsock,
        events,
        logs,
        deploying: None,
        live: None,
        replacing: None,
        ending: JoinSet::new(),
        relaunch: None,
    };
    (handle, tokio::spawn(enclave.run()))
}

impl Enclave {
    async fn run(mut self) {
        while self.state != State::Destroyed {
            if matches!(self.state, State::PendingDeploy | State::PendingDestroy) {
                // Never refused: these two states are the ones that can begin.
                let _ = self.apply(Event::Begin).await;
                continue;
            }
            match self.wake().await {
                Wake::Command(Command::Redeploy(answer)) => {
                    let result = self.apply(Event::Redeploy).await;
                    let _ = answer.send(result.map(|()| self.record.clone()));
                }
                Wake::Command(Command::Destroy(answer)) => {
                    let result = self.apply(Event::Destroy).await;
                    let _ = answer.send(result.map(|()| self.record.clone()));
                }
                Wake::Command(Command::Configure(incoming, answer)) => {
                    let result = self.configure(*incoming).await;
                    let _ = answer.send(result.map(|()| self.record.clone()));
                }
                Wake::Replaced(result) => self.replaced(*result).await,
                Wake::Note(note) => self.note(note).await,
                Wake::Deployed(result) => self.deployed(*result).await,
                Wake::Ended(fault) => {
                    let _ = self.apply(Event::Faulted(fault)).await;
                }
                Wake::Stop => {
                    // The record stays as it is: the next daemon brings the enclave back.
                    self.stop().await;
                    return;
                }
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let Enclave {
            commands,
            stopping,
            deploying,
            live,
            replacing,
            logs,
            ..
        } = self;
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => Wake::Stop,
            Some(command) = commands.recv() => Wake::Command(command),
            wake = progress(deploying) => wake,
            result = candidate(replacing) => Wake::Replaced(Box::new(result)),
            fault = ended(live, logs) => Wake::Ended(fault),
        }
    }

    /// Takes a step, writes it down, tells it, and does what it asks for. An order that cannot be written down is not taken, and
    /// an end that is not on disk has not come; what else has happened has happened, and is written with the next step.
    async fn apply(&mut self, event: Event) -> Result<(), OrderError> {
        let strict = matches!(event, Event::Redeploy | Event::Destroy | Event::Cleared);
        let Some((state, actions)) = step(&self.state, event)? else {
            return Ok(());
        };
        let mut record = self.record.clone();
        record.set_state(&state);
        if state == State::Destroyed {
            record.credentials_arn = None;
        }
        let told = EnclaveEvent::Status {
            at: record.updated_at.clone(),
            status: record.status,
            stage: record.stage,
            fault: record.fault.clone(),
        };
        self.save(record, Some(told), strict).await?;
        self.state = state;
        let Record {
            id,
            name,
            status,
            stage,
            fault,
            ..
        } = &self.record;
        let (stage, fault) = (
            stage.map(tracing::field::display),
            fault.as_ref().map(|fault| fault.message.as_str()),
        );
        tracing::info!(%id, name, %status, stage, fault, "enclave");
        for action in actions {
            match action {
                Action::Deploy => self.deploy(),
                Action::Stop => self.stop().await,
                Action::Clear => self.clear().await,
            }
        }
        Ok(())
    }

    /// Writes the record, and only then shows it. If it is not written, a strict caller gets the error and nothing changes.
    async fn save(
        &mut self,
        record: Record,
        event: Option<EnclaveEvent>,
        strict: bool,
    ) -> Result<(), StoreError> {
        if let Err(error) = self.store.update(record.clone(), event.clone()).await {
            tracing::error!(id = %record.id, %error, "a record could not be written");
            if strict {
                return Err(error);
            }
        }
        self.record = record;
        self.view.send_replace(self.record.clone());
        if let Some(event) = event {
            let _ = self.events.send(event);
        }
        Ok(())
    }

    fn order(&self, config: Option<ConfigRecord>, built: Option<Built>) -> Result<Order, Fault> {
        Ok(Order {
            id: self.record.id.clone(),
            image: Reference::parse(&self.record.image).map_err(Fault::internal)?,
            manifest: Spec::parse(&self.record.spec).map_err(Fault::internal)?,
            source_type: self.record.source_type,
            credentials_arn: self.record.credentials_arn.clone(),
            measured_before: self.record.measurements,
            config,
            built,
            folder: self.folder.clone(),
        })
    }

    fn deploy(&mut self) {
        let (sender, notes) = mpsc::channel(NOTES);
        let built = self.relaunch.take();
        let order = self.order(self.record.config.clone(), built);
        let (context, logs, folder) =
            (self.context.clone(), self.logs.clone(), self.folder.clone());
        let task = tokio::spawn(async move {
            let order = order?;
            tokio::fs::create_dir_all(&folder)
                .await
                .map_err(Fault::internal)?;
            deploy::run(context, order, logs, sender).await
        });
        self.deploying = Some(Deploying { task, notes });
    }

    async fn note(&mut self, note: Note) {
        match note {
            Note::Entered(stage) => {
                let _ = self.apply(Event::Entered(stage)).await;
            }
            Note::Progress { stage, done, total } => {
                let _ = self
                    .events
                    .send(EnclaveEvent::Progress { stage, done, total });
            }
            Note::Resolved(digest) => {
                let record = Record {
                    image_digest: Some(digest.to_string()),
                    ..self.record.clone()
                };
                let _ = self.save(record, None, false).await;
            }
            Note::Measured(measurements) => {
                let record = Record {
                    measurements: Some(measurements),
                    ..self.record.clone()
                };
                let _ = self.save(record, None, false).await;
            }
        }
    }

    async fn deployed(&mut self, result: Result<Live, Fault>) {
        // Whatever the deploy still had to tell comes before its end.
        if let Some(Deploying { mut notes, .. }) = self.deploying.take() {
            while let Ok(note) = notes.try_recv() {
                self.note(note).await;
            }
        }
        match result {
            Ok(live) => {
                self.serve(live);
                let _ = self.apply(Event::Attested).await;
                self.context
                    .configs
                    .forget_others(&self.record.id, self.record.config.as_ref());
            }
            Err(fault) => {
                let _ = self.apply(Event::Faulted(fault)).await;
            }
        }
    }

    /// Shows where the enclave can be reached, and watches it.
    fn serve(&mut self, live: Live) {
        self.record.ingress = live.gate.addresses.clone();
        self.record.attestation = live.gate.attestation;
        self.vsock.send_replace(Some(live.running.vsock().clone()));
        self.live = Some(live);
    }

    /// Ends whatever runs: a deploy at once, an enclave after its workload had time to end.
    async fn stop(&mut self) {
        self.vsock.send_replace(None);
        if let Some(Deploying { task, .. }) = self.deploying.take() {
            task.abort();
            // A deploy that finished in this very moment hands over a live enclave, which the drop kills.
            let _ = task.await;
        }
        self.give_up_replacement().await;
        if let Some(Live {
            running,
            control,
            gate,
            egress,
            ..
        }) = self.live.take()
        {
            gate.close().await;
            end(running, control).await;
            drop(egress);
        }
        while self.ending.join_next().await.is_some() {}
        if self.relaunch.is_none() {
            let _ = tokio::fs::remove_dir_all(&self.folder).await;
        }
    }

    /// Deletes the secret, and writes down that it is gone; tries until both worked, since a secret must not be forgotten and an
    /// enclave that was ended must not come back.
    async fn clear(&mut self) {
        self.context.configs.forget_others(&self.record.id, None);
        loop {
            let (context, id) = (self.context.clone(), self.record.id.clone());
            let deleted = tokio::select! {
                deleted = context.secrets.delete(&id) => deleted,
                _ = self.stopping.wait_for(|stop| *stop) => return,
            };
            match deleted {
                Ok(()) if Box::pin(self.apply(Event::Cleared)).await.is_ok() => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(id = %self.record.id, %error, "the secret could not be deleted; trying again")
                }
            }
            if timeout(RETRY_CLEAR, self.stopping.wait_for(|stop| *stop))
                .await
                .is_ok()
            {
                return;
            }
        }
    }
}

async fn progress(deploying: &mut Option<Deploying>) -> Wake {
    match deploying {
        None => std::future::pending().await,
        Some(Deploying { task, notes }) => tokio::select! {
            biased;
            Some(note) = notes.recv() => Wake::Note(note),
            result = task => Wake::Deployed(Box::new(result.unwrap_or_else(|e| Err(Fault::internal(e))))),
        },
    }
}

/// Gives a workload time to end, and then its enclave.
async fn end(mut running: Running, control: Control) {
    control.stop(STOP_DEADLINE).await;
    let _ = timeout(POWER_OFF, running.ended()).await;
    running.kill().await;
}

/// Waits until a deployed enclave is gone, and says why.
async fn ended(live: &mut Option<Live>, logs: &Logs) -> Fault {
    let Some(Live {
        running, control, ..
    }) = live
    else {
        return std::future::pending().await;
    };
    let report = tokio::select! {
        biased;
        report = control.report() => report,
        _ = running.ended() => {
            // The last word may still be on its way.
            let late = timeout(Duration::from_secs(1), control.report()).await;
            late.unwrap_or_else(|_| crate::control::Report::Lost("its process ended".to_owned()))
        }
    };
    deploy::ended(&report, running, logs)
}

/// The stage's name for people.
pub fn describe(stage: Stage) -> &'static str {
    match stage {
        Stage::Credentials => "fetching the registry credentials",
        Stage::Resolve => "looking up the image",
        Stage::Pull => "pulling the image",
        Stage::Verify => "verifying every layer",
        Stage::Build => "building the enclave image",
        Stage::Allocate => "checking for memory",
        Stage::Launch => "launching the enclave",
        Stage::Heartbeat => "waiting for the heartbeat",
        Stage::Configure => "starting the workload",
        Stage::Attest => "checking the attestation document",
    }
}
