//! What an enclave's task does: takes steps and writes them down, deploys, serves, stops, and clears away.

use super::OrderError;
use super::state::{Deploying, Enclave, Reported};
use crate::deploy::{self, AttestedEnclave, DeployEvent, DeployRequest, ServingEnclave, Target};
use crate::lifecycle::{Effect, Event, step};
use crate::store::StoreError;
use api::{ConfigRecord, DeployError, EnclaveEvent, Record, State, WorkloadRecord};
use audit::{Actor, AuditAction, AuditEntry, AuditOutcome};
use launch::{Launcher, Reservation};
use relay::ingress::OpenConnections;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a workload has between its stop signal and SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// And how long the enclave has after that to power off by itself.
const POWER_OFF: Duration = Duration::from_secs(5);
const RETRY_CLEAR: Duration = Duration::from_secs(10);
const EVENTS: usize = 64;

impl Enclave {
    /// Takes a step that is not an order: it has happened, and is written with the next step if it cannot be now.
    pub(super) async fn step(&mut self, event: Event) {
        if let Err(error) = self.apply(event).await {
            tracing::error!(id = %self.record.id, %error, "a step was not taken");
        }
    }

    /// Takes a step, writes it down, shows it, and does what it asks for. An order that cannot be written down is not accepted, and
    /// an end that is not on disk has not come; what else has happened has happened, and is written with the next step.
    pub(super) async fn apply(&mut self, event: Event) -> Result<(), OrderError> {
        let is_order = matches!(event, Event::Redeploy | Event::Destroy);
        let strict = is_order || matches!(event, Event::Cleared | Event::Relaunch);
        let Some((state, actions)) = step(&self.record.state, event)? else {
            return Ok(());
        };
        let mut record = self.record.clone();
        record.generation += u64::from(is_order);
        record.set_state(state);
        if record.state == State::Destroyed {
            record.credentials_arn = None;
        }
        let event = EnclaveEvent::Status {
            at: record.updated_at.clone(),
            generation: record.generation,
            state: record.state.clone(),
        };
        // What becomes of an enclave is written before it is shown; an end that may not come, once it is on disk.
        let (audit, entry) = (self.context.audit.clone(), audited(&record));
        let (early, late) = if strict { (None, entry) } else { (entry, None) };
        audit.note(early).await;
        self.save(record, Some(event), strict).await?;
        audit.note(late).await;
        self.log_state();
        for action in actions {
            match action {
                Effect::Deploy => self.deploy(),
                Effect::Stop => self.stop().await,
                Effect::Clear => self.clear().await,
            }
        }
        Ok(())
    }

    fn log_state(&self) {
        let Record {
            id,
            name,
            state,
            generation,
            ..
        } = &self.record;
        let stage = state.stage().map(tracing::field::display);
        let failure = state.failure().map(|failure| failure.message.as_str());
        tracing::info!(%id, name, status = %state.status(), generation, stage, failure, debug = self.record.debug, "enclave");
    }

    /// Writes the record, and only then shows it. If it is not written, a strict caller gets the error and nothing changes.
    pub(super) async fn save(
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
            self.show(event);
        }
        Ok(())
    }

    /// That no one watches is no error.
    fn show(&self, event: EnclaveEvent) {
        self.events.send(event).ok();
    }

    pub(super) fn launcher(&self) -> &dyn Launcher {
        self.context.launchers.of(self.record.provider)
    }

    pub(super) fn request(
        &self,
        target: Target,
        config: Option<ConfigRecord>,
        reservation: Option<Reservation>,
    ) -> DeployRequest {
        DeployRequest {
            id: self.record.id.clone(),
            target,
            spec: (*self.record.spec).clone(),
            source_type: self.record.source_type,
            provider: self.record.provider,
            debug: self.record.debug,
            credentials_arn: self.record.credentials_arn.clone(),
            measured_before: self.record.attested.first().map(|last| last.measurements),
            config,
            reservation,
            directory: self.directory.clone(),
        }
    }

    fn deploy(&mut self) {
        self.record.workload = WorkloadRecord::default();
        let (sender, events) = mpsc::channel(EVENTS);
        let target = Target::of(&self.record);
        let request = self.request(target, self.record.config.clone(), None);
        let (context, logs) = (self.context.clone(), self.logs.clone());
        let task = tokio::spawn(deploy::run(context, request, logs, sender));
        self.deploying = Some(Deploying { task, events });
    }

    /// Shows what a deploy reports, and writes down what lasts. A record that is not written now is written with the next step.
    pub(super) async fn report(&mut self, event: DeployEvent) {
        let mut record = self.record.clone();
        match event {
            DeployEvent::Entered(stage) => return self.step(Event::Entered(stage)).await,
            DeployEvent::Progress { stage, done, total } => {
                return self.show(EnclaveEvent::Progress { stage, done, total });
            }
            DeployEvent::Resolved(digest) => record.image_digest = Some(digest),
            DeployEvent::Measured(measurements) => record.measurements = Some(measurements),
        }
        self.save(record, None, false).await.ok();
    }

    pub(super) async fn deployed(&mut self, result: Result<ServingEnclave, DeployError>) {
        // Whatever the deploy still had to report comes before its end.
        if let Some(Deploying { mut events, .. }) = self.deploying.take() {
            while let Ok(event) = events.try_recv() {
                self.report(event).await;
            }
        }
        match result {
            Ok(serving) => {
                self.is_risky = false;
                self.serve(serving);
                self.step(Event::Attested).await;
                let Record { id, config, .. } = &self.record;
                self.context.configs.remove_others(id, config.as_ref());
                self.context.eifs.collect(&self.store).await;
            }
            Err(error) => {
                self.step(Event::Failed(error)).await;
                self.fall_back().await;
            }
        }
    }

    /// Shows where the enclave can be reached, and watches it.
    pub(super) fn serve(&mut self, serving: ServingEnclave) {
        self.record.ingress = serving.listeners.addresses.clone();
        self.record.attestation = serving.listeners.attestation;
        let release = serving.enclave.prepared.release.clone();
        self.record.set_attested(release);
        self.workload = Some(Reported::new(serving.enclave.control.workload()));
        self.vsock
            .send_replace(Some(serving.enclave.instance.vsock().clone()));
        self.serving = Some(serving);
    }

    /// Takes over what the enclave said of its workload; the next record that is saved has it.
    pub(super) fn take_workload(&mut self) {
        if let Some(reported) = &mut self.workload {
            self.record.workload = reported.take();
        }
    }

    /// A record that is not written now is written with the next step.
    pub(super) async fn report_workload(&mut self) {
        self.take_workload();
        let WorkloadRecord {
            restarts, health, ..
        } = &self.record.workload;
        let health = health.as_ref().map(|health| health.state.to_string());
        tracing::info!(name = self.record.name, restarts, health, "workload");
        self.save(self.record.clone(), None, false).await.ok();
    }

    /// Ends whatever runs: a deploy at once, an enclave after its workload had time to end.
    pub(super) async fn stop(&mut self) {
        self.vsock.send_replace(None);
        if let Some(Deploying { task, .. }) = self.deploying.take() {
            task.abort();
            // A deploy that finished in this very moment hands over an enclave, which the drop kills.
            drop(task.await);
        }
        self.give_up_replacement().await;
        if let Some(ServingEnclave { enclave, listeners }) = self.serving.take() {
            let open = listeners.close().await;
            end(enclave, open).await;
            self.take_workload();
            self.workload = None;
        }
        while self.ending.join_next().await.is_some() {}
        if let Err(error) = tokio::fs::remove_dir_all(&self.directory).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(id = %self.record.id, %error, "the enclave's files could not be removed");
        }
    }

    /// Deletes the secret, and writes down that it is gone; tries until both worked, since a secret must not be forgotten and an
    /// enclave that was ended must not come back.
    async fn clear(&mut self) {
        self.context.configs.remove_others(&self.record.id, None);
        self.context.eifs.collect(&self.store).await;
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
                    tracing::warn!(id = %self.record.id, %error, "the secret could not be deleted; trying again");
                }
            }
            let stopping = self.stopping.wait_for(|stop| *stop);
            if timeout(RETRY_CLEAR, stopping).await.is_ok() {
                return;
            }
        }
    }
}

/// What the audit log says of a state that an enclave came to, if anything.
pub(super) fn audited(record: &Record) -> Option<AuditEntry> {
    let outcome = match record.state {
        State::Deployed => AuditOutcome::Deployed,
        State::Failed(_) => AuditOutcome::Failed,
        State::Destroyed => AuditOutcome::Destroyed,
        _ => return None,
    };
    let entry = AuditEntry::new(AuditAction::Enclave, outcome, Actor::daemon()).record(record);
    Some(match record.state.failure() {
        Some(failure) => entry.code(failure.code),
        None => entry,
    })
}

/// Gives a workload time to end, and then its enclave. Its way out and what is open to its clients stay open until then.
pub(super) async fn end(enclave: AttestedEnclave, open: OpenConnections) {
    let AttestedEnclave {
        mut instance,
        control,
        prepared: _,
        egress,
    } = enclave;
    control.stop(STOP_DEADLINE).await;
    if timeout(POWER_OFF, instance.ended()).await.is_err() {
        tracing::info!("an enclave did not power off by itself");
    }
    instance.kill().await;
    drop((egress, open));
}
