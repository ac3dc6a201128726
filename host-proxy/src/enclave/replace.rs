//! Another enclave for one that runs: the next one is prepared and boots while the old one serves, and then they swap. The old one
//! goes on if the next one fails.

use super::OrderError;
use super::state::{Change, Enclave, Replacing};
use super::steps::end;
use crate::deploy::{self, AttestedEnclave, DeployRequest, Replacement, ServingEnclave, Target};
use crate::lifecycle::{Event, Refused};
use crate::sealed::CheckedConfig;
use api::{DeployError, EnclaveEvent, Release, State, now};
use explain::Code;
use wire::spec::NetworkSpec;

impl Enclave {
    /// Stores the config, and launches what is deployed once more with it: PCR16 of the enclave that runs is locked. Where there is no
    /// room for two, the old one goes first.
    pub(super) async fn replace_config(
        &mut self,
        checked: CheckedConfig,
    ) -> Result<(), OrderError> {
        self.check_replaceable("configured")?;
        let stored = self.context.configs.store(&self.record.id, &checked);
        stored.map_err(OrderError::Config)?;
        let config = checked.record;
        // Nothing is reserved where there is nothing to launch beside the old one.
        if self.serving.is_some()
            && let Ok(reservation) = self.launcher().reserve(self.record.spec.resources)
        {
            let target = Target::of(&self.record);
            let request = self.request(target, Some(config.clone()), Some(reservation));
            if let Err(error) = self.accept_replacement().await {
                let before = self.record.config.as_ref();
                self.context.configs.remove_others(&self.record.id, before);
                return Err(error);
            }
            self.begin_replacement(request, Change::Config(config));
            return Ok(());
        }
        // The file of the config before stays until this one is attested.
        let before = self.record.config.replace(config);
        let result = self.apply(Event::Redeploy).await;
        if result.is_err() {
            self.record.config = before;
        }
        result
    }

    pub(super) fn begin_replacement(&mut self, request: DeployRequest, change: Change) {
        let (context, logs) = (self.context.clone(), self.logs.clone());
        let is_dry_run = matches!(change, Change::DryRun);
        let task = tokio::spawn(deploy::replace(context, request, logs, is_dry_run));
        let generation = self.record.generation;
        self.replacing = Some(Replacing {
            task,
            change,
            generation,
        });
    }

    /// Whether it may be `wanted`, such as "configured": once it is deployed or failed, and unless something else is on its way.
    pub(super) fn check_replaceable(&self, wanted: &'static str) -> Result<(), Refused> {
        let wanted = match self.replacing.as_ref().map(|replacing| &replacing.change) {
            None => return self.check_settled(wanted),
            Some(Change::Config(_)) => "configured while another config is on its way",
            Some(Change::Release | Change::DryRun) => {
                "configured while a redeploy or a dry run is on its way"
            }
        };
        let status = self.record.state.status();
        Err(Refused { status, wanted })
    }

    pub(super) fn check_settled(&self, wanted: &'static str) -> Result<(), Refused> {
        if matches!(self.record.state, State::Deployed | State::Failed(_)) {
            return Ok(());
        }
        let status = self.record.state.status();
        Err(Refused { status, wanted })
    }

    /// The order is accepted once it is on disk.
    pub(super) async fn accept_replacement(&mut self) -> Result<(), OrderError> {
        let mut record = self.record.clone();
        record.generation += 1;
        record.updated_at = now();
        Ok(self.save(record, None, true).await?)
    }

    /// The old enclave hands over, or goes on.
    pub(super) async fn replaced(&mut self, result: Result<Replacement, DeployError>) {
        let Some(Replacing {
            change, generation, ..
        }) = self.replacing.take()
        else {
            return;
        };
        let was_serving = self.serving.is_some();
        let result = match result {
            Ok(Replacement::Attested(next)) => self
                .hand_over(*next, &change)
                .await
                .map(|()| self.record.release()),
            Ok(Replacement::Planned(release)) => Ok(Some(*release)),
            Ok(Replacement::NoRoom(prepared)) => match self.restart_with(*prepared).await {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.report_change(change, generation, result).await;
        if was_serving && self.serving.is_none() {
            let error = DeployError::new(
                Code::LaunchFailed,
                "the enclave could not listen where it did before",
                "Find out what uses its addresses, and redeploy.",
            );
            self.step(Event::Failed(error)).await;
        }
    }

    async fn report_change(
        &mut self,
        change: Change,
        generation: u64,
        result: Result<Option<Release>, DeployError>,
    ) {
        match change {
            Change::Config(config) => {
                let failure = result.err();
                self.report_config(config.version, generation, failure)
                    .await;
            }
            Change::Release => self.report_release(false, generation, result).await,
            Change::DryRun => self.report_release(true, generation, result).await,
        }
    }

    /// Writes down how it went with a config, and only then removes the files of the others.
    async fn report_config(&mut self, version: u64, generation: u64, failure: Option<DeployError>) {
        let reason = failure.as_ref().map(|failure| failure.message.as_str());
        tracing::info!(name = self.record.name, version, failure = reason, "config");
        let event = EnclaveEvent::Config {
            at: now(),
            generation,
            version,
            failure,
        };
        if self
            .save(self.record.clone(), Some(event), true)
            .await
            .is_ok()
        {
            let config = self.record.config.as_ref();
            self.context.configs.remove_others(&self.record.id, config);
        }
    }

    async fn hand_over(
        &mut self,
        next: AttestedEnclave,
        change: &Change,
    ) -> Result<(), DeployError> {
        let Some(ServingEnclave {
            enclave: old,
            listeners,
        }) = self.serving.take()
        else {
            return Err(DeployError::internal(
                "the enclave that was to be replaced is gone",
            ));
        };
        let mut network: NetworkSpec = self.record.spec.network.clone();
        // The next one listens where the old one did, also where the system chose; for a moment connections are refused.
        for rule in &mut network.ingress {
            let held = listeners
                .addresses
                .iter()
                .find(|held| held.port == rule.port);
            rule.listen = held.map(|held| held.address).or(rule.listen);
        }
        network.attestation = listeners.attestation.or(network.attestation);
        let open = listeners.close().await;
        let resources = self.record.spec.resources;
        match next.open(&network, resources).await {
            Ok(serving) => {
                if let Change::Config(config) = change {
                    self.record.config = Some(config.clone());
                }
                self.serve(serving);
                self.ending.spawn(end(old, open));
                Ok(())
            }
            Err((next, error)) => {
                drop(next);
                if let Ok(mut serving) = old.open(&network, resources).await {
                    serving.listeners.keep(open);
                    self.serve(serving);
                }
                Err(error)
            }
        }
    }

    /// The enclave is stopped, or something else is ordered: whatever was to take its place will not.
    pub(super) async fn give_up_replacement(&mut self) {
        let Some(Replacing {
            task,
            change,
            generation,
        }) = self.replacing.take()
        else {
            return;
        };
        task.abort();
        drop(task.await);
        let error = match &change {
            Change::Config(_) => DeployError::new(
                Code::ConfigRefused,
                "the enclave was stopped before the new config could run, or something else was ordered",
                "Provide it again with 'enclavectl configure'.",
            ),
            Change::Release | Change::DryRun => DeployError::new(
                Code::StateConflict,
                "the enclave was stopped before this was done, or something else was ordered",
                "Order it again.",
            ),
        };
        self.report_change(change, generation, Err(error)).await;
    }
}

pub(super) async fn replacement(
    replacing: &mut Option<Replacing>,
) -> Result<Replacement, DeployError> {
    let Some(Replacing { task, .. }) = replacing else {
        return std::future::pending().await;
    };
    task.await.unwrap_or_else(|e| Err(DeployError::internal(e)))
}
