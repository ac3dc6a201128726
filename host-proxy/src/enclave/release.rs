//! Which code an enclave runs: a redeploy resolves the image again, a rollback takes what was attested before, and a dry run only says
//! what a redeploy would bring. Nothing else changes what a record names.

use super::OrderError;
use super::state::{Change, Enclave};
use super::steps::audited;
use crate::deploy::{Prepared, Target};
use crate::lifecycle::Event;
use api::{DeployError, EnclaveEvent, Record, Release, State, now};
use audit::{Actor, AuditAction, AuditEntry, AuditOutcome};

/// What the audit log says of a redeploy or rollback that came to nothing.
fn not_released(record: &Record, failure: &DeployError) -> AuditEntry {
    AuditEntry::new(AuditAction::Redeploy, AuditOutcome::Failed, Actor::daemon())
        .record(record)
        .code(failure.code)
}

impl Enclave {
    pub(super) async fn redeploy(&mut self, target: Target) -> Result<(), OrderError> {
        self.check_settled("redeployed")?;
        self.change_release(target).await
    }

    pub(super) async fn rollback(&mut self) -> Result<(), OrderError> {
        self.check_settled("rolled back")?;
        let target = self.record.rollback_target();
        let target = target.cloned().ok_or(OrderError::NoRollback)?;
        self.change_release(target.into()).await
    }

    /// Takes the place of whatever else is on its way.
    async fn change_release(&mut self, target: Target) -> Result<(), OrderError> {
        self.give_up_replacement().await;
        if self.serving.is_some() {
            self.accept_replacement().await?;
            let request = self.request(target, self.record.config.clone(), None);
            self.begin_replacement(request, Change::Release);
            return Ok(());
        }
        let before = self.record.clone();
        let Target {
            image,
            digest,
            measurements,
        } = target;
        self.record.image = image;
        self.record.image_digest = digest;
        self.record.measurements = measurements;
        let result = self.apply(Event::Redeploy).await;
        if result.is_err() {
            self.record = before;
        }
        result
    }

    /// Builds and measures, and changes nothing.
    pub(super) async fn dry_run(&mut self, target: Target) -> Result<(), OrderError> {
        self.check_replaceable("redeployed")?;
        self.accept_replacement().await?;
        let request = self.request(target, None, None);
        self.begin_replacement(request, Change::DryRun);
        Ok(())
    }

    /// There is no room for two: the old enclave ends, and the new one is launched. It is on disk by then, and so is the old one's EIF.
    pub(super) async fn restart_with(&mut self, prepared: Prepared) -> Result<(), DeployError> {
        let before = self.record.clone();
        self.record.set_release(prepared.release);
        self.is_risky = true;
        let result = self.apply(Event::Relaunch).await;
        if result.is_err() {
            self.record = before;
            self.is_risky = false;
        }
        result.map_err(DeployError::from)
    }

    /// After a deploy that an enclave had to end for, and that failed: that enclave comes back.
    pub(super) async fn fall_back(&mut self) {
        let is_failed = matches!(self.record.state, State::Failed(_));
        if !std::mem::take(&mut self.is_risky) || !is_failed {
            return;
        }
        let Some(last) = self.record.attested.first().cloned() else {
            return;
        };
        let (name, pcr0) = (&self.record.name, last.measurements.pcr0);
        tracing::warn!(name, %pcr0, "the redeploy failed; what was attested before comes back");
        self.record.set_release(last);
        self.step(Event::Relaunch).await;
    }

    /// Writes down how a redeploy, a rollback or a dry run ended, and only then removes the EIFs that are not needed any more.
    pub(super) async fn report_release(
        &mut self,
        dry_run: bool,
        generation: u64,
        result: Result<Option<Release>, DeployError>,
    ) {
        let (release, failure) = match result {
            Ok(release) => (release.map(Box::new), None),
            Err(error) => (None, Some(error)),
        };
        let Record { id, name, .. } = &self.record;
        let pcr0 = release.as_ref().map(|release| release.measurements.pcr0);
        let pcr0 = pcr0.map(tracing::field::display);
        let reason = failure.as_ref().map(|failure| failure.message.as_str());
        tracing::info!(%id, name, dry_run, pcr0, failure = reason, "release");
        if !dry_run {
            let entry = match &failure {
                None => audited(&self.record),
                Some(failure) => Some(not_released(&self.record, failure)),
            };
            self.context.audit.note(entry).await;
        }
        let event = EnclaveEvent::Release {
            at: now(),
            generation,
            dry_run,
            release,
            failure,
        };
        let saved = self.save(self.record.clone(), Some(event), true).await;
        if saved.is_ok() {
            self.context.eifs.collect(&self.store).await;
        }
    }
}
