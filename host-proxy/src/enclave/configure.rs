//! Another config for an enclave: the next one boots with it while the old one serves, and then they swap. The old one goes on if the
//! next is refused.

use super::{Enclave, OrderError, end};
use crate::deploy::{self, Candidate, Live};
use crate::fault::{Code, Fault};
use crate::launch::Qemu;
use crate::lifecycle::{Event, Refused, State};
use crate::record::{ConfigRecord, EnclaveEvent, Record};
use crate::sealed::Incoming;
use tokio::task::JoinHandle;
use wire::spec::Spec;

/// The next enclave, which boots with another config while the old one serves.
#[derive(Debug)]
pub(super) struct Replacing {
    task: JoinHandle<Result<Candidate, Fault>>,
    config: ConfigRecord,
}

impl Enclave {
    /// Keeps the config, and launches what is deployed once more with it: PCR16 of the enclave that runs is locked. Where there is no
    /// room for two, the old one goes first.
    pub(super) async fn configure(&mut self, incoming: Incoming) -> Result<(), OrderError> {
        let busy = |wanted| {
            OrderError::Refused(Refused {
                status: self.state.status(),
                wanted,
            })
        };
        if self.replacing.is_some() {
            return Err(busy("configured while another config is on its way"));
        }
        if !matches!(self.state, State::Deployed | State::Failed(_)) {
            return Err(busy("configured"));
        }
        self.context
            .configs
            .keep(&self.record.id, &incoming)
            .map_err(OrderError::Config)?;
        let config = incoming.record;
        let built = self.live.as_ref().map(|live| live.built.clone());
        let order = self.order(Some(config.clone()), built.clone());
        match order {
            Ok(order)
                if built.is_some() && Qemu::check_memory(order.manifest.resources).is_ok() =>
            {
                // Whoever waits for this order tells its events from earlier ones by the time.
                let record = Record {
                    updated_at: crate::record::now(),
                    ..self.record.clone()
                };
                if let Err(error) = self.save(record, None, true).await {
                    self.context
                        .configs
                        .forget_others(&self.record.id, self.record.config.as_ref());
                    return Err(error.into());
                }
                let (context, logs) = (self.context.clone(), self.logs.clone());
                let task = tokio::spawn(deploy::replace(context, order, logs));
                self.replacing = Some(Replacing { task, config });
                Ok(())
            }
            _ => {
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
        }
    }

    /// The old enclave hands over, or goes on.
    pub(super) async fn replaced(&mut self, result: Result<Candidate, Fault>) {
        let Some(Replacing { config, .. }) = self.replacing.take() else {
            return;
        };
        let version = config.version;
        let result = match result {
            Ok(candidate) => self.hand_over(candidate, config).await,
            Err(fault) => Err(fault),
        };
        self.tell_config(version, result.err()).await;
        if self.live.is_none() {
            let fault = Fault::new(
                Code::LaunchFailed,
                "the enclave could not listen where it did before",
                "see who took its addresses, and redeploy",
            );
            let _ = self.apply(Event::Faulted(fault)).await;
        }
    }

    /// Writes down how it went with a config, and only then forgets the files of the others.
    async fn tell_config(&mut self, version: u64, fault: Option<Fault>) {
        let (name, reason) = (
            &self.record.name,
            fault.as_ref().map(|fault| fault.message.as_str()),
        );
        tracing::info!(name, version, fault = reason, "config");
        let event = EnclaveEvent::Config {
            at: crate::record::now(),
            version,
            fault,
        };
        if self
            .save(self.record.clone(), Some(event), true)
            .await
            .is_ok()
        {
            self.context
                .configs
                .forget_others(&self.record.id, self.record.config.as_ref());
        }
    }

    async fn hand_over(&mut self, candidate: Candidate, config: ConfigRecord) -> Result<(), Fault> {
        let mut manifest = Spec::parse(&self.record.spec).map_err(Fault::internal)?;
        let Some(Live {
            running,
            control,
            gate,
            built,
            egress,
        }) = self.live.take()
        else {
            return Err(Fault::internal(
                "the enclave that was to be replaced is gone",
            ));
        };
        // The new one listens where the old one did, also where the system chose; nobody is let in for a moment.
        for rule in &mut manifest.network.ingress {
            let held = gate.addresses.iter().find(|held| held.port == rule.port);
            rule.listen = held.map(|held| held.address).or(rule.listen);
        }
        manifest.network.attestation = gate.attestation.or(manifest.network.attestation);
        gate.close().await;
        match candidate.open(&manifest).await {
            Ok(live) => {
                self.record.config = Some(config);
                self.serve(live);
                // The old one keeps its way out until it has ended.
                self.ending.spawn(async move {
                    end(running, control).await;
                    drop(egress);
                });
                Ok(())
            }
            Err(fault) => {
                let old = Candidate {
                    running,
                    control,
                    built,
                    egress,
                };
                if let Ok(live) = old.open(&manifest).await {
                    self.serve(live);
                }
                Err(fault)
            }
        }
    }

    /// The enclave is stopped: whatever was to take its place will not.
    pub(super) async fn give_up_replacement(&mut self) {
        if let Some(Replacing { task, config }) = self.replacing.take() {
            task.abort();
            let _ = task.await;
            let fault = Fault::new(
                Code::ConfigRefused,
                "the enclave was stopped before the new config could run",
                "give it again with 'enclavectl configure'",
            );
            self.tell_config(config.version, Some(fault)).await;
        }
    }
}

pub(super) async fn candidate(replacing: &mut Option<Replacing>) -> Result<Candidate, Fault> {
    match replacing {
        None => std::future::pending().await,
        Some(Replacing { task, .. }) => task.await.unwrap_or_else(|e| Err(Fault::internal(e))),
    }
}
