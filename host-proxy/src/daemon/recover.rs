//! The start after an end of any kind: what is left over is removed, and every enclave is brought back to where it should be.

use super::{Daemon, StartError};
use crate::lifecycle::{Event, step};
use crate::store::Loaded;
use api::{DeployError, Record, SourceType, State};
use explain::Code;
use std::collections::BTreeSet;
use std::path::Path;

impl Daemon {
    /// Nothing of an earlier daemon runs any more, since its enclaves die with it.
    pub(super) async fn recover(&self) -> Result<(), StartError> {
        let Loaded {
            records,
            unreadable,
        } = self.store.load().await?;
        for (id, error) in &unreadable {
            tracing::error!(id, %error, "this version cannot read the enclave's record: it stays as it is, and down");
        }
        let unreadable: Vec<String> = unreadable.into_iter().map(|(id, _)| id).collect();
        self.sweep(&records, &unreadable);
        for record in records {
            let record = self.recovered(record).await;
            let (id, name, status) = (&record.id, &record.name, record.state.status());
            tracing::info!(%id, name, %status, "recovered");
            self.store.update(record.clone(), None).await?;
            self.adopt(record);
        }
        self.context.eifs.collect(&self.store).await;
        Ok(())
    }

    /// Removes files that no record names. What a record that cannot be read names is not known: all of its enclave stays.
    fn sweep(&self, records: &[Record], unreadable: &[String]) {
        let state = &self.context.config.state_dir;
        let ids = records.iter().map(|record| record.id.to_string());
        let known: BTreeSet<String> = ids.chain(unreadable.iter().cloned()).collect();
        let is_unreadable = |name: &str| unreadable.iter().any(|id| name.starts_with(id.as_str()));
        let configs: BTreeSet<String> = records
            .iter()
            .filter_map(|record| Some(format!("{}.{}", record.id, record.config.as_ref()?.sha256)))
            .collect();
        sweep(&state.join("enclaves"), |_| false);
        sweep(&self.context.config.run_dir, |name| !name.starts_with("e-"));
        sweep(&state.join("secrets"), |name| {
            name.strip_suffix(".sealed")
                .is_none_or(|id| known.contains(id))
        });
        sweep(&state.join("configs"), |name| {
            configs.contains(name) || is_unreadable(name)
        });
    }

    /// The record as it is after a restart.
    async fn recovered(&self, mut record: Record) -> Record {
        if let Ok(Some((state, _))) = step(&record.state, Event::Recovered) {
            record.set_state(state);
        }
        let is_half_made = record.state == State::PendingDeploy
            && record.source_type == SourceType::PrivateRegistry
            && record.credentials_arn.is_none();
        if is_half_made {
            // The daemon died between the record and its secret; a secret that was half made goes.
            if let Err(error) = self.context.secrets.delete(&record.id).await {
                tracing::warn!(id = %record.id, %error, "a half-made secret could not be deleted");
            }
            record.set_state(State::Failed(DeployError::new(
                Code::SecretUnavailable,
                "the credentials were never stored",
                "Terminate this enclave and create it again.",
            )));
        }
        record
    }
}

/// Removes what is in a directory, but for the names to keep.
fn sweep(directory: &Path, keep: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if keep(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        let path = path.display();
        match removed {
            Ok(()) => tracing::info!(%path, "removed what an earlier daemon left"),
            Err(error) => {
                tracing::warn!(%path, %error, "cannot remove what an earlier daemon left");
            }
        }
    }
}
