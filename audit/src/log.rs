//! The handle that the daemon and the broker write through. One thread owns the files, and writes
//! what arrives at the same time with one fdatasync.

use crate::refusals::Refusals;
use crate::writer::{FILE_LIMIT, Room, Writer};
use crate::{Actor, AuditAction, AuditEntry, AuditError, AuditOutcome};
use explain::Code;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// More than there can be requests at once.
const QUEUE: usize = 4096;
/// Lines that are written at once.
const MAX_BATCH: usize = 256;
/// How often refusals are looked at that are due.
const TICK: Duration = Duration::from_secs(5);
/// How long the disk may take.
const DEADLINE: Duration = Duration::from_secs(30);

type Answer = oneshot::Sender<Result<u64, AuditError>>;

enum Job {
    Write(Box<AuditEntry>, Room, Answer),
    /// Write all refusals that were counted.
    Flush(oneshot::Sender<()>),
    /// A refusal is due.
    Wake,
}

/// Writes a log. Cheap to clone; the log is closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct AuditLog {
    jobs: SyncSender<Job>,
    refusals: Arc<Mutex<Refusals>>,
}

/// An order whose beginning is on disk.
#[derive(Debug)]
pub struct BegunOrder {
    log: AuditLog,
    entry: AuditEntry,
}

impl AuditLog {
    /// Opens the log in a directory, which is made if it is missing. An unfinished last line is set
    /// aside; a wrong one stays where it is, and a new file begins. Blocks on the disk.
    ///
    /// # Errors
    /// Another process writes this log, or a file cannot be used.
    pub fn open(directory: &Path) -> Result<AuditLog, AuditError> {
        let writer = Writer::open(directory, FILE_LIMIT)?;
        let (jobs, queue) = sync_channel(QUEUE);
        let refusals = Arc::new(Mutex::new(Refusals::default()));
        let counted = refusals.clone();
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread
            .spawn(move || run(writer, &queue, &counted))
            .map_err(|source| AuditError::file(directory, source))?;
        Ok(AuditLog { jobs, refusals })
    }

    /// Writes an entry and returns its number. It is on disk then.
    ///
    /// # Errors
    /// It is not in the log, and must not be acted upon; or the disk took longer than 30 seconds.
    pub async fn record(&self, entry: AuditEntry) -> Result<u64, AuditError> {
        self.write(entry, Room::Ahead).await
    }

    /// Writes that an order begins; the order's end is written by [`BegunOrder`]. An order to
    /// terminate may use disk space that is kept for it.
    ///
    /// # Errors
    /// As for [`AuditLog::record`].
    pub async fn begin(
        &self,
        action: AuditAction,
        by: Actor,
        describe: impl FnOnce(AuditEntry) -> AuditEntry,
    ) -> Result<BegunOrder, AuditError> {
        let room = if action == AuditAction::Terminate {
            Room::Reserve
        } else {
            Room::Ahead
        };
        let entry = describe(AuditEntry::new(action, AuditOutcome::Begun, by));
        let order = Some(self.write(entry.clone(), room).await?);
        let log = self.clone();
        let entry = AuditEntry { order, ..entry };
        Ok(BegunOrder { log, entry })
    }

    /// Writes what has happened already, as long as there is any room; the journal has what cannot
    /// be written.
    pub async fn note(&self, entry: impl Into<Option<AuditEntry>>) {
        let Some(entry) = entry.into() else {
            return;
        };
        let (action, outcome) = (entry.action.clone(), entry.outcome.clone());
        if let Err(error) = self.write(entry, Room::Reserve).await {
            tracing::error!(action, outcome, %error, "the audit log lacks a line");
        }
    }

    /// Counts a refusal: the first of an address and code is written at once, further ones once a
    /// minute, as a number. Does not block.
    pub fn count_refusal(&self, by: Actor, code: Code) {
        if self.refusals().add(by, code) {
            // If the queue is full, the thread is awake.
            self.jobs.try_send(Job::Wake).ok();
        }
    }

    /// Writes the refusals that were counted since the last minute ended.
    pub async fn flush(&self) {
        let (answer, done) = oneshot::channel();
        if self.jobs.try_send(Job::Flush(answer)).is_ok() {
            // What could not be written is in the journal.
            timeout(DEADLINE, done).await.ok();
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, entry: AuditEntry, room: Room) -> Result<u64, AuditError> {
        let (answer, result) = oneshot::channel();
        let job = Job::Write(Box::new(entry), room, answer);
        self.jobs.try_send(job).map_err(|_| AuditError::Busy)?;
        let result = timeout(DEADLINE, result).await;
        result
            .map_err(|_| AuditError::TimedOut)?
            .map_err(|_| AuditError::Closed)?
    }
}

impl BegunOrder {
    /// Writes that the order is on disk, and what it is about.
    pub async fn accepted(self, describe: impl FnOnce(AuditEntry) -> AuditEntry) {
        let BegunOrder { log, entry } = self;
        let outcome = AuditOutcome::Accepted.as_str().to_owned();
        log.note(describe(AuditEntry { outcome, ..entry })).await;
    }

    /// Writes that the order was refused.
    pub async fn refused(self, code: Code) {
        let BegunOrder { log, entry } = self;
        let outcome = AuditOutcome::Refused.as_str().to_owned();
        log.note(AuditEntry { outcome, ..entry }.code(code)).await;
    }
}

fn run(mut writer: Writer, queue: &Receiver<Job>, refusals: &Mutex<Refusals>) {
    let refusals = || refusals.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let first = match queue.recv_timeout(TICK) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let (mut entries, mut answers, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
        for job in first.into_iter().chain(queue.try_iter()).take(MAX_BATCH) {
            match job {
                Job::Write(entry, room, answer) => {
                    entries.push((*entry, room));
                    answers.push(answer);
                }
                Job::Flush(answer) => flushed.push(answer),
                Job::Wake => {}
            }
        }
        for (result, answer) in writer.append(&entries).into_iter().zip(answers) {
            // That no one waits any more is no error.
            answer.send(result).ok();
        }
        let now = Instant::now();
        let due = if flushed.is_empty() {
            refusals().take_due(now)
        } else {
            refusals().take_all(now)
        };
        write_refusals(&mut writer, due);
        for answer in flushed {
            answer.send(()).ok();
        }
    }
    let left = refusals().take_all(Instant::now());
    write_refusals(&mut writer, left);
}

fn write_refusals(writer: &mut Writer, entries: Vec<AuditEntry>) {
    if entries.is_empty() {
        return;
    }
    let entries: Vec<_> = entries
        .into_iter()
        .map(|entry| (entry, Room::Ahead))
        .collect();
    for ((entry, _), result) in entries.iter().zip(writer.append(&entries)) {
        if let Err(error) = result {
            let (address, count) = (&entry.by.address, entry.count);
            tracing::error!(address, count, %error, "refusals are not in the audit log");
        }
    }
}

#[cfg(test)]
mod tests;
