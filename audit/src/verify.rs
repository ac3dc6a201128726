//! Reads a log without a daemon, and checks every line of it.

use crate::chain::{self, AuditLine, ChainHead, LineFault, MAX_LINE};
use crate::{AuditAction, files};
use explain::{Code, Explain};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// What a log holds whose chain is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Number of its files.
    pub files: usize,
    /// Number of its lines.
    pub lines: u64,
    /// Number of its first line: 1 unless older files are kept elsewhere.
    pub first: u64,
    /// Its last line.
    pub head: ChainHead,
    /// What was found when the log was opened, by line.
    pub notes: Vec<(u64, String)>,
}

/// Why a log is not whole.
#[derive(Debug, thiserror::Error)]
pub enum AuditVerifyError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It has no line.
    #[error("{0}: there is no audit log, or it is empty")]
    Empty(PathBuf),
    /// The first line that is wrong.
    #[error("{path}, line {line}: {fault}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line's place in the file; the first is 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// A head that was kept is not in the log.
    #[error("no line has the hash {0}: lines were removed, or the log is another one")]
    NoHead(String),
}

impl Explain for AuditVerifyError {
    fn code(&self) -> Code {
        match self {
            AuditVerifyError::Read { .. } | AuditVerifyError::Empty(_) => Code::DiskFailed,
            AuditVerifyError::Wrong { .. } | AuditVerifyError::NoHead(_) => Code::AuditBroken,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            AuditVerifyError::Read { .. } => "Run it as root or as the daemon's user.".into(),
            AuditVerifyError::Empty(_) => {
                "Name the directory audit in the daemon's state_dir.".into()
            }
            _ => self.code().next_step().into(),
        }
    }
}

/// Checks a log: a directory, or one of its files. Blocks on the disk. If `head` is a hash that was
/// kept, a line of the log must have it.
///
/// Lines that are missing at the end are found by `head` alone.
///
/// # Errors
/// The first line that is wrong, or why the log cannot be read.
pub fn verify(path: &Path, head: Option<&str>) -> Result<AuditReport, AuditVerifyError> {
    let (mut first, mut last, mut lines) = (None, None, 0);
    let (mut notes, mut is_found) = (Vec::new(), head.is_none());
    let files = walk(path, |line| {
        first.get_or_insert(line.seq);
        lines += 1;
        is_found |= head == Some(line.hash.as_str());
        if line.entry.action == AuditAction::Log.as_str() {
            notes.push((line.seq, line.entry.note.clone().unwrap_or_default()));
        }
        last = Some(line.head());
    })?;
    match (first, last, head) {
        (_, _, Some(head)) if !is_found => Err(AuditVerifyError::NoHead(head.to_owned())),
        (Some(first), Some(head), _) => Ok(AuditReport {
            files,
            lines,
            first,
            head,
            notes,
        }),
        _ => Err(AuditVerifyError::Empty(path.to_owned())),
    }
}

/// Reads a log, a directory or one of its files, line by line, and returns the number of files.
/// Blocks on the disk.
///
/// # Errors
/// The first line that is wrong, or why the log cannot be read. The lines before it were seen.
pub fn walk(path: &Path, mut see: impl FnMut(&AuditLine)) -> Result<usize, AuditVerifyError> {
    let paths: Vec<PathBuf> = if path.is_dir() {
        let found = files::list(path).map_err(|source| AuditVerifyError::Read {
            path: path.to_owned(),
            source,
        })?;
        found.into_iter().map(|(_, path)| path).collect()
    } else {
        vec![path.to_owned()]
    };
    let mut head = None;
    for (index, path) in paths.iter().enumerate() {
        let lines = walk_file(path, &mut head, &mut see)?;
        // A crash leaves an empty file at the end alone.
        if lines == 0 && index + 1 < paths.len() {
            return Err(AuditVerifyError::Empty(path.clone()));
        }
    }
    Ok(paths.len())
}

fn walk_file(
    path: &Path,
    head: &mut Option<ChainHead>,
    see: &mut impl FnMut(&AuditLine),
) -> Result<usize, AuditVerifyError> {
    let failed = |source| AuditVerifyError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let named = files::first(path);
    let mut lines = 0;
    while let Some(line) = next_line(&mut reader).map_err(failed)? {
        let number = lines + 1;
        let wrong = |fault| AuditVerifyError::Wrong {
            path: path.to_owned(),
            line: number,
            fault,
        };
        let line = line
            .strip_suffix(b"\n")
            .ok_or_else(|| wrong(LineFault::Unfinished))?;
        let line = chain::read(line, head.as_ref()).map_err(wrong)?;
        if let Some(expected) = named.filter(|named| number == 1 && *named != line.seq) {
            let found = line.seq;
            return Err(wrong(LineFault::FileName { expected, found }));
        }
        *head = Some(line.head());
        see(&line);
        lines = number;
    }
    Ok(lines)
}

/// A line with its newline, or without if it has none or is too long.
fn next_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests;
