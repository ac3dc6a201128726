//! Another sealed config for an enclave: the next one boots with it while the old one serves, and then they swap. The old one goes on if
//! the next is refused.

use super::OrderError;
use super::state::{Enclave, Replacing};
use super::steps::end;
use crate::deploy::{self, AttestedEnclave, ServingEnclave};
use crate::lifecycle::{Event, Refused};
use crate::sealed::CheckedConfig;
use api::{ConfigRecord, DeployError, EnclaveEvent, State, now};
use explain::Code;
use wire::spec::NetworkSpec;

impl Enclave {
    /// Stores the config, and launches what is deployed once more with it: PCR16 of the enclave that runs is locked. Where there is no
    /// room for two, the old one goes first.
    pub(super) async fn replace_config(
        &mut self,
        checked: CheckedConfig,
    ) -> Result<(), OrderError> {
        self.check_replaceable()?;
        let stored = self.context.configs.store(&self.record.id, &checked);
        stored.map_err(OrderError::Config)?;
        let config = checked.record;
        let built = self
            .serving
            .as_ref()
            .map(|serving| serving.enclave.built.clone());
        // Nothing is reserved where there is nothing to launch beside the old one.
        if let Some(built) = &built
            && let Ok(reservation) = self.launcher().reserve(self.record.spec.resources)
        {
            let request =
                self.request(Some(config.clone()), Some(built.clone()), Some(reservation));
            self.accept_replacement().await?;
            let (context, logs) = (self.context.clone(), self.logs.clone());
            let task = tokio::spawn(deploy::replace(context, request, logs));
            let generation = self.record.generation;
            self.replacing = Some(Replacing {
                task,
                config,
                generation,
            });
            return Ok(());
        }
        // The file of the config before stays until this one is attested.
        let before = self.record.config.replace(config);
        self.relaunch = built;
        let result = self.apply(Event::Redeploy).await;
        if result.is_err() {
            self.record.config = before;
            self.relaunch = None;
        }
        result
    }

    fn check_replaceable(&self) -> Result<(), Refused> {
        let status = self.record.state.status();
        if self.replacing.is_some() {
            let wanted = "configured while another config is on its way";
            return Err(Refused { status, wanted });
        }
        if matches!(self.record.state, State::Deployed | State::Failed(_)) {
            return Ok(());
        }
        Err(Refused {
            status,
            wanted: "configured",
        })
    }

    /// The order is accepted once it is on disk.
    async fn accept_replacement(&mut self) -> Result<(), OrderError> {
        let mut record = self.record.clone();
        record.generation += 1;
        record.updated_at = now();
        if let Err(error) = self.save(record, None, true).await {
            let before = self.record.config.as_ref();
            self.context.configs.remove_others(&self.record.id, before);
            return Err(error.into());
        }
        Ok(())
    }

    /// The old enclave hands over, or goes on.
    pub(super) async fn replaced(&mut self, result: Result<AttestedEnclave, DeployError>) {
        let Some(Replacing {
            config, generation, ..
        }) = self.replacing.take()
        else {
            return;
        };
        let version = config.version;
        let result = match result {
            Ok(next) => self.hand_over(next, config).await,
            Err(error) => Err(error),
        };
        self.report_config(version, generation, result.err()).await;
        if self.serving.is_none() {
            let error = DeployError::new(
                Code::LaunchFailed,
                "the enclave could not listen where it did before",
                "Find out what uses its addresses, and redeploy.",
            );
            self.step(Event::Failed(error)).await;
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
        config: ConfigRecord,
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
                self.record.config = Some(config);
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

    /// The enclave is stopped: whatever was to take its place will not.
    pub(super) async fn give_up_replacement(&mut self) {
        let Some(Replacing {
            task,
            config,
            generation,
        }) = self.replacing.take()
        else {
            return;
        };
        task.abort();
        drop(task.await);
        let error = DeployError::new(
            Code::ConfigRefused,
            "the enclave was stopped before the new config could run",
            "Provide it again with 'enclavectl configure'.",
        );
        self.report_config(config.version, generation, Some(error))
            .await;
    }
}

pub(super) async fn replacement(
    replacing: &mut Option<Replacing>,
) -> Result<AttestedEnclave, DeployError> {
    let Some(Replacing { task, .. }) = replacing else {
        return std::future::pending().await;
    };
    task.await.unwrap_or_else(|e| Err(DeployError::internal(e)))
}
