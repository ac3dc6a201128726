//! Records and events in SQLite (WAL, synchronous=FULL): what was answered is on disk. One thread owns the database.

use api::{EnclaveEvent, EnclaveId, Record, State};
use explain::{Code, Explain};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::borrow::Cow;
use std::path::Path;
use tokio::sync::{mpsc, oneshot};

const QUEUE: usize = 64;
/// Events kept for each enclave.
const MAX_EVENTS: i64 = 500;
/// Destroyed enclaves that are remembered.
const MAX_DESTROYED: i64 = 100;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS enclaves (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        record TEXT NOT NULL,
        created INTEGER NOT NULL DEFAULT (unixepoch())
    ) STRICT;
    CREATE UNIQUE INDEX IF NOT EXISTS living_names ON enclaves (name) WHERE status != 'DESTROYED';
    CREATE TABLE IF NOT EXISTS events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        enclave TEXT NOT NULL REFERENCES enclaves (id) ON DELETE CASCADE,
        event TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS events_of ON events (enclave, number);
";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("an enclave named '{0}' exists already")]
    NameTaken(String),
    #[error("the store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the store holds a record that this version cannot read: {0}")]
    Record(#[from] serde_json::Error),
    #[error("the store is closed")]
    Closed,
}

impl Explain for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::NameTaken(_) => Code::NameTaken,
            StoreError::Sqlite(_) => Code::DiskFailed,
            StoreError::Record(_) | StoreError::Closed => Code::Internal,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            StoreError::Record(_) => {
                "Use the version of host-proxy that wrote it, or remove its row from redoubt.db."
                    .into()
            }
            _ => self.code().next_step().into(),
        }
    }
}

/// What the store holds of enclaves that are not destroyed.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Oldest first.
    pub(crate) records: Vec<Record>,
    /// Ids of enclaves whose records another version wrote, or that are damaged; and why they cannot be read.
    pub(crate) unreadable: Vec<(String, serde_json::Error)>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the thread that owns the database.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.execute_batch(SCHEMA)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
        });
        Ok(Store { jobs })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            answer.send(work(connection)).ok();
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// Adds a new enclave; the name must be free.
    pub async fn insert(&self, record: Record) -> Result<(), StoreError> {
        self.run(move |connection| {
            let json = serde_json::to_string(&record)?;
            let values = params![
                record.id.as_str(),
                record.name,
                record.state.status().to_string(),
                json
            ];
            let result = connection.execute(
                "INSERT INTO enclaves (id, name, status, record) VALUES (?1, ?2, ?3, ?4)",
                values,
            );
            match result {
                Err(error)
                    if error.sqlite_error_code()
                        == Some(rusqlite::ErrorCode::ConstraintViolation) =>
                {
                    Err(StoreError::NameTaken(record.name))
                }
                other => Ok(other.map(|_| ())?),
            }
        })
        .await
    }

    /// Writes a record and, in the same transaction, the event that changed it.
    pub async fn update(
        &self,
        record: Record,
        event: Option<EnclaveEvent>,
    ) -> Result<(), StoreError> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let id = record.id.as_str();
            transaction.execute(
                "UPDATE enclaves SET status = ?2, record = ?3 WHERE id = ?1",
                params![id, record.state.status().to_string(), serde_json::to_string(&record)?],
            )?;
            if let Some(event) = event {
                let json = serde_json::to_string(&event)?;
                transaction.execute("INSERT INTO events (enclave, event) VALUES (?1, ?2)", params![id, json])?;
                transaction.execute(
                    "DELETE FROM events WHERE enclave = ?1 AND number <=
                         (SELECT number FROM events WHERE enclave = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                    params![id, MAX_EVENTS],
                )?;
            }
            if record.state == State::Destroyed {
                transaction.execute(
                    "DELETE FROM enclaves WHERE status = 'DESTROYED' AND id NOT IN
                         (SELECT id FROM enclaves WHERE status = 'DESTROYED' ORDER BY created DESC LIMIT ?1)",
                    params![MAX_DESTROYED],
                )?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    /// Forgets an enclave as if it had never been.
    pub async fn remove(&self, id: EnclaveId) -> Result<(), StoreError> {
        self.run(move |connection| {
            connection.execute("DELETE FROM enclaves WHERE id = ?1", params![id.as_str()])?;
            Ok(())
        })
        .await
    }

    /// By id or by the name of a living enclave.
    pub async fn find(&self, id_or_name: String) -> Result<Option<Record>, StoreError> {
        self.run(move |connection| {
            let json: Option<String> = connection
                .query_row(
                    "SELECT record FROM enclaves WHERE id = ?1 OR (name = ?1 AND status != 'DESTROYED') LIMIT 1",
                    params![id_or_name],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(json.map(|json| serde_json::from_str(&json)).transpose()?)
        })
        .await
    }

    /// All enclaves that are not destroyed, oldest first.
    pub async fn list(&self) -> Result<Vec<Record>, StoreError> {
        Ok(self.load().await?.records)
    }

    /// Everything about enclaves that are not destroyed. One record that this version cannot read must not keep the others down.
    pub(crate) async fn load(&self) -> Result<Loaded, StoreError> {
        self.run(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, record FROM enclaves WHERE status != 'DESTROYED' ORDER BY created, rowid",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            let mut loaded = Loaded::default();
            for row in rows {
                let (id, json) = row?;
                match serde_json::from_str(&json) {
                    Ok(record) => loaded.records.push(record),
                    Err(error) => loaded.unreadable.push((id, error)),
                }
            }
            Ok(loaded)
        })
        .await
    }

    /// The stored events of an enclave, oldest first.
    pub async fn events(&self, id: EnclaveId) -> Result<Vec<EnclaveEvent>, StoreError> {
        self.run(move |connection| {
            let mut statement = connection
                .prepare("SELECT event FROM events WHERE enclave = ?1 ORDER BY number")?;
            let rows = statement.query_map(params![id.as_str()], |row| row.get::<_, String>(0))?;
            rows.map(|json| Ok(serde_json::from_str(&json?)?)).collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Provider, SourceType, Stage, now};

    fn record(name: &str) -> Record {
        Record {
            id: EnclaveId::random().unwrap(),
            name: name.into(),
            state: State::PendingDeploy,
            generation: 1,
            provider: Provider::Qemu,
            debug: false,
            source_type: SourceType::PrivateRegistry,
            image: oci::Reference::parse("r.example/a:v1").unwrap(),
            image_digest: None,
            credentials_arn: None,
            spec: Default::default(),
            measurements: None,
            attested: vec![],
            config: None,
            ingress: vec![],
            attestation: None,
            workload: Default::default(),
            created_at: now(),
            updated_at: now(),
        }
    }

    #[tokio::test]
    async fn a_name_is_free_again_once_its_enclave_is_destroyed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("db")).unwrap();
        let mut first = record("app");
        store.insert(first.clone()).await.unwrap();
        assert!(
            matches!(store.insert(record("app")).await, Err(StoreError::NameTaken(name)) if name == "app")
        );
        first.set_state(State::Destroyed);
        store.update(first.clone(), None).await.unwrap();
        let second = record("app");
        store.insert(second.clone()).await.unwrap();
        assert_eq!(store.find("app".into()).await.unwrap(), Some(second));
        assert_eq!(store.find(first.id.to_string()).await.unwrap(), Some(first));
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart_and_events_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let record = record("app");
        {
            let store = Store::open(&path).unwrap();
            store.insert(record.clone()).await.unwrap();
            for done in 0..=600 {
                let event = EnclaveEvent::Progress {
                    stage: Stage::Pull,
                    done,
                    total: 600,
                };
                store.update(record.clone(), Some(event)).await.unwrap();
            }
        }
        let store = Store::open(&path).unwrap();
        let events = store.events(record.id.clone()).await.unwrap();
        assert_eq!(events.len(), usize::try_from(MAX_EVENTS).unwrap());
        assert!(matches!(
            events.last(),
            Some(EnclaveEvent::Progress { done: 600, .. })
        ));
        assert_eq!(store.list().await.unwrap(), [record]);
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_keeps_no_other_down() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("db")).unwrap();
        let (good, bad) = (record("good"), record("bad"));
        store.insert(bad.clone()).await.unwrap();
        store.insert(good.clone()).await.unwrap();
        let id = bad.id.to_string();
        store
            .run(move |connection| {
                let sql = "UPDATE enclaves SET record = '{\"name\":1}' WHERE id = ?1";
                Ok(connection.execute(sql, params![id])?)
            })
            .await
            .unwrap();
        let Loaded {
            records,
            unreadable,
        } = store.load().await.unwrap();
        assert_eq!(records, [good]);
        assert_eq!(unreadable[0].0, bad.id.to_string());
        assert!(matches!(
            store.find("bad".into()).await,
            Err(StoreError::Record(_))
        ));
    }
}
