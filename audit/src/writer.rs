//! The files of a log: appends lines, goes on in a new file, and repairs what a crash left.
//!
//! Lines count as written after fdatasync alone. A write that fails is cut off again, so the file
//! holds whole lines and nothing that was not answered.

use crate::chain::{self, ChainHead};
use crate::scan::{Found, Rest, end_of, remove_empty, scan, start_of};
use crate::{Actor, AuditAction, AuditEntry, AuditError, AuditOutcome, files};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A file that is longer is followed by the next, in bytes.
pub(crate) const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// Disk space that is kept ahead of the last line, in bytes: for the outcomes of orders that were
/// begun, and for those that free space.
const RESERVE: u64 = 256 * 1024;
/// How long another writer may take to let go, and how often it is asked.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What an entry may use of the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It is refused if the reserve cannot be kept.
    Ahead,
    /// It is written as long as there is any room.
    Reserve,
}

/// The one writer of a log. All methods block on the disk.
#[derive(Debug)]
pub(crate) struct Writer {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    /// Bytes of the file that are whole lines on disk.
    len: u64,
    /// Up to here disk space is reserved.
    reserved: u64,
    head: ChainHead,
    limit: u64,
    /// A write failed, and what it left is not cut off yet.
    is_torn: bool,
    /// Held as long as the writer lives.
    _lock: Flock<File>,
}

impl Writer {
    /// Locks the log, repairs its end, and says so in a line.
    pub(crate) fn open(directory: &Path, limit: u64) -> Result<Writer, AuditError> {
        let failed = |source| AuditError::file(directory, source);
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        let lock = lock(directory)?;
        let files = remove_empty(files::list(directory).map_err(failed)?)?;
        let (head, path, found) = match files.as_slice() {
            [] => (ChainHead::genesis(), directory.join(files::name(1)), None),
            [before @ .., (first, path)] => {
                let found = scan(path)?;
                let head = match (&found.head, before.last()) {
                    (Some(head), _) => head.clone(),
                    (None, Some((_, before))) => end_of(before, *first)?,
                    (None, None) => start_of(*first),
                };
                (head, path.clone(), Some(found))
            }
        };
        let (len, rest) = found.map_or((0, Rest::Nothing), |Found { len, rest, .. }| (len, rest));
        let file = open_file(&path)?;
        let mut writer = Writer {
            directory: directory.to_owned(),
            path,
            file,
            len,
            reserved: 0,
            head,
            limit,
            is_torn: false,
            _lock: lock,
        };
        writer.sync_directory()?;
        writer.repair(rest)?;
        Ok(writer)
    }

    fn repair(&mut self, rest: Rest) -> Result<(), AuditError> {
        let aside = self.directory.join(files::torn_name(self.head.seq + 1));
        match rest {
            Rest::Wrong { line, seq } => return self.start_again(line, seq),
            Rest::Torn(bytes) => {
                let failed = |source| AuditError::file(&aside, source);
                fs::write(&aside, &bytes).map_err(failed)?;
                File::open(&aside)
                    .and_then(|file| file.sync_all())
                    .map_err(failed)?;
                self.sync_directory()?;
                self.cut()?;
            }
            Rest::Nothing => {}
        }
        // Also if a crash came between the cut and this line.
        let Ok(bytes) = fs::read(&aside) else {
            return Ok(());
        };
        let digest = hex::encode(Sha256::digest(&bytes));
        let name = files::torn_name(self.head.seq + 1);
        let note = format!(
            "{} bytes of an unfinished line are in {name}, SHA-256 {digest}",
            bytes.len()
        );
        self.append_own(AuditOutcome::Recovered, &note)
    }

    /// Leaves a file with a wrong line as it is, and goes on in a new one.
    fn start_again(&mut self, line: usize, seq: u64) -> Result<(), AuditError> {
        let named = files::first(&self.path).unwrap_or_default();
        let name = self
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.head.seq = seq.max(self.head.seq).max(named);
        let path = self.directory.join(files::name(self.head.seq + 1));
        self.file = open_file(&path)?;
        (self.path, self.len, self.reserved) = (path, 0, 0);
        self.sync_directory()?;
        self.append_own(
            AuditOutcome::Broken,
            &format!("line {line} of {name} is wrong"),
        )
    }

    fn append_own(&mut self, outcome: AuditOutcome, note: &str) -> Result<(), AuditError> {
        let entry = AuditEntry::new(AuditAction::Log, outcome, Actor::daemon()).note(note);
        let written = self.append(&[(entry, Room::Reserve)]);
        written
            .into_iter()
            .next()
            .ok_or(AuditError::Closed)?
            .map(drop)
    }

    /// Appends entries with one fdatasync; their numbers, or why they are not in the log.
    pub(crate) fn append(
        &mut self,
        entries: &[(AuditEntry, Room)],
    ) -> Vec<Result<u64, AuditError>> {
        let full = self.prepare().err();
        let time = api::now();
        let (mut bytes, mut head, mut results) = (Vec::new(), self.head.clone(), Vec::new());
        for (entry, room) in entries {
            if let (Some(error), Room::Ahead) = (&full, room) {
                results.push(Err(error.clone()));
                continue;
            }
            match chain::line(&head, &time, entry) {
                Ok((line, next)) => {
                    bytes.extend(line);
                    head = next;
                    results.push(Ok(head.seq));
                }
                Err(error) => results.push(Err(AuditError::file(&self.path, error.into()))),
            }
        }
        if let Err(error) = self.write(&bytes) {
            let failed = |result: Result<u64, AuditError>| result.and(Err(error.clone()));
            return results.into_iter().map(failed).collect();
        }
        self.head = head;
        results
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.is_torn {
            self.cut()?;
        }
        self.is_torn = true;
        let written = self
            .file
            .write_all(bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // If this fails too, the next write starts with it, and so does the next start.
            self.cut().ok();
            return Err(AuditError::file(&self.path, source));
        }
        self.is_torn = false;
        self.len += u64::try_from(bytes.len()).unwrap_or_default();
        Ok(())
    }

    /// Removes what is not a whole line on disk.
    fn cut(&mut self) -> Result<(), AuditError> {
        let cut = self
            .file
            .set_len(self.len)
            .and_then(|()| self.file.sync_all());
        cut.map_err(|source| AuditError::file(&self.path, source))?;
        (self.reserved, self.is_torn) = (0, false);
        Ok(())
    }

    /// Goes on in a new file if it is time, and keeps the reserve. Without either, writing goes on
    /// where it is.
    fn prepare(&mut self) -> Result<(), AuditError> {
        if self.len >= self.limit {
            self.rotate()?;
        }
        if self.reserved < self.len + RESERVE / 2 {
            reserve(&self.file, self.reserved.max(self.len), self.len + RESERVE)
                .map_err(|e| AuditError::file(&self.path, e))?;
            self.reserved = self.len + RESERVE;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), AuditError> {
        let path = self.directory.join(files::name(self.head.seq + 1));
        let file = open_file(&path)?;
        if let Err(source) = reserve(&file, 0, RESERVE).and_then(|()| sync(&self.directory)) {
            // An empty one that stays is removed at the next start.
            fs::remove_file(&path).ok();
            return Err(AuditError::file(path, source));
        }
        // Gives back what was reserved; it lasts without.
        self.file.set_len(self.len).ok();
        (self.file, self.path, self.len, self.reserved) = (file, path, 0, RESERVE);
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), AuditError> {
        sync(&self.directory).map_err(|source| AuditError::file(&self.directory, source))
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Waits a moment for a writer that is about to end.
fn lock(directory: &Path) -> Result<Flock<File>, AuditError> {
    let path = directory.join("lock");
    let mut file = open_file(&path)?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() >= give_up => {
                return Err(AuditError::Locked(directory.to_owned()));
            }
            Err((unlocked, _)) => file = unlocked,
        }
        sleep(LOCK_PAUSE);
    }
}

fn open_file(path: &Path) -> Result<File, AuditError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
        .open(path)
        .map_err(|source| AuditError::file(path, source))
}

/// Reserves disk space without a change of the file's length. File systems that cannot do it give
/// no such promise.
fn reserve(file: &File, from: u64, to: u64) -> io::Result<()> {
    let number = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, flags, number(from)?, number(to - from)?) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;
