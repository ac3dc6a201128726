//! The workload's output, line by line: the last of it in memory, and a reader for each who follows.
//! An enclave that writes without end pushes out its own older lines and nothing else; a reader that
//! is slower than it is told how many lines it missed.

use api::{LogEntry, LogStream};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use wire::control::{OutputLine, OutputStream};

/// Bytes kept for each enclave.
const KEPT: usize = 1024 * 1024;
/// What a line costs beside its bytes: many short ones must not outgrow the limit.
const OVERHEAD: usize = 64;
/// Lines that a reader gets at once.
const BATCH: usize = 128;
/// More than an enclave can drop while its host does not look; it names the number, and numbers of
/// lines must not end.
const MAX_DROPPED: u64 = 1 << 32;
/// Characters of a line that is quoted in a fault.
const MAX_QUOTE: usize = 300;

/// A line, or how many are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Line(OutputLine),
    Dropped(u64),
}

/// Cheap to clone; all clones are one log, and readers end with the last of them.
#[derive(Debug, Clone)]
pub struct Logs {
    kept: Arc<Mutex<Kept>>,
    added: Arc<watch::Sender<()>>,
}

/// Entries, each with the number of its first line. Lines that were dropped have numbers too.
#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<(u64, Entry)>,
    bytes: usize,
    /// The number of the line that comes next.
    next: u64,
}

/// Reads a log from its oldest entry on.
#[derive(Debug)]
pub struct LogReader {
    kept: Arc<Mutex<Kept>>,
    added: watch::Receiver<()>,
    /// The number of the first line that it has not read.
    next: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            kept: Arc::default(),
            added: Arc::new(watch::channel(()).0),
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logs {
    /// Lines, after so many that were dropped on their way.
    pub fn add(&self, dropped: u64, lines: Vec<OutputLine>) {
        let mut kept = lock(&self.kept);
        if dropped > 0 {
            kept.push(Entry::Dropped(dropped.min(MAX_DROPPED)));
        }
        lines
            .into_iter()
            .for_each(|line| kept.push(Entry::Line(line)));
        drop(kept);
        self.added.send_replace(());
    }

    /// The last line, printable characters only; empty if there is none.
    pub fn last_line(&self) -> String {
        let kept = lock(&self.kept);
        let mut text = String::new();
        let mut of = None;
        for (_, entry) in kept.entries.iter().rev() {
            let Entry::Line(line) = entry else { continue };
            let is_part = line.partial && of == Some(line.stream);
            if of.is_some() && !is_part {
                break;
            }
            let part = String::from_utf8_lossy(&line.bytes);
            if !part.trim().is_empty() || of.is_some() {
                text.insert_str(0, &part);
                of = Some(line.stream);
            }
        }
        let printable = text.chars().filter(|c| !c.is_control());
        printable.take(MAX_QUOTE).collect()
    }

    /// Reads what is kept, and then what comes.
    pub fn reader(&self) -> LogReader {
        let kept = lock(&self.kept);
        LogReader {
            kept: self.kept.clone(),
            added: self.added.subscribe(),
            next: kept.first(),
        }
    }
}

impl Entry {
    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Entry::Line(line) => line.bytes.len(),
                Entry::Dropped(_) => 0,
            }
    }

    fn lines(&self) -> u64 {
        match self {
            Entry::Line(_) => 1,
            Entry::Dropped(lines) => *lines,
        }
    }

    fn shown(&self) -> LogEntry {
        match self {
            Entry::Dropped(lines) => LogEntry::Dropped { lines: *lines },
            Entry::Line(line) => LogEntry::Line {
                time: api::at_milliseconds(line.time_ms),
                stream: match line.stream {
                    OutputStream::Stdout => LogStream::Stdout,
                    OutputStream::Stderr => LogStream::Stderr,
                },
                text: String::from_utf8_lossy(&line.bytes).into_owned(),
                partial: line.partial,
            },
        }
    }
}

impl Kept {
    fn push(&mut self, entry: Entry) {
        let number = self.next;
        self.bytes += entry.size();
        self.next = number.saturating_add(entry.lines());
        self.entries.push_back((number, entry));
        while self.bytes > KEPT
            && let Some((_, oldest)) = self.entries.pop_front()
        {
            self.bytes -= oldest.size();
        }
    }

    /// The number of the oldest line.
    fn first(&self) -> u64 {
        self.entries
            .front()
            .map_or(self.next, |(number, _)| *number)
    }
}

impl LogReader {
    /// What is there by now, at most some; empty if nothing is.
    pub fn take(&mut self) -> Vec<LogEntry> {
        let kept = lock(&self.kept);
        let lines = kept.first().saturating_sub(self.next);
        let missed = (lines > 0).then_some(LogEntry::Dropped { lines });
        self.next = self.next.max(kept.first());
        let there = kept
            .entries
            .partition_point(|(number, _)| *number < self.next);
        let entries: Vec<&Entry> = kept
            .entries
            .iter()
            .skip(there)
            .take(BATCH)
            .map(|(_, entry)| entry)
            .collect();
        let taken: u64 = entries.iter().map(|entry| entry.lines()).sum();
        self.next = self.next.saturating_add(taken);
        missed
            .into_iter()
            .chain(entries.into_iter().map(Entry::shown))
            .collect()
    }

    /// What comes next; empty at the end of the log.
    pub async fn next(&mut self) -> Vec<LogEntry> {
        loop {
            self.added.mark_unchanged();
            let taken = self.take();
            if !taken.is_empty() || self.added.changed().await.is_err() {
                return if taken.is_empty() { self.take() } else { taken };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: OutputStream, text: &[u8], partial: bool) -> OutputLine {
        OutputLine {
            stream,
            time_ms: 0,
            bytes: text.to_vec(),
            partial,
        }
    }

    #[test]
    fn a_line_that_came_in_pieces_is_quoted_whole() {
        let logs = Logs::default();
        assert_eq!(logs.last_line(), "");
        for (text, partial) in [
            ("first", false),
            ("sec", true),
            ("ond\x1b[1m l", true),
            ("ine", false),
            ("", false),
        ] {
            logs.add(
                0,
                vec![line(OutputStream::Stderr, text.as_bytes(), partial)],
            );
        }
        assert_eq!(logs.last_line(), "second[1m line");
    }

    #[test]
    fn keeps_the_last_mebibyte() {
        let logs = Logs::default();
        for n in 0..200u8 {
            logs.add(0, vec![line(OutputStream::Stdout, &vec![n; 8192], false)]);
        }
        let kept = lock(&logs.kept);
        assert_eq!(kept.entries.len(), KEPT / (8192 + OVERHEAD));
        let last = line(OutputStream::Stdout, &vec![199; 8192], false);
        assert_eq!(kept.entries.back(), Some(&(199, Entry::Line(last))));
    }

    #[test]
    fn an_enclave_that_names_a_huge_number_cannot_make_a_reader_go_round_in_circles() {
        let logs = Logs::default();
        let mut reader = logs.reader();
        for _ in 0..3 {
            logs.add(u64::MAX, vec![line(OutputStream::Stdout, b"x", false)]);
        }
        assert_eq!(reader.take().len(), 6);
        assert_eq!(reader.take(), []);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_missed_and_loses_nothing_else() {
        let logs = Logs::default();
        let mut reader = logs.reader();
        let text = |n: usize| {
            line(
                OutputStream::Stdout,
                format!("{n:0>1000}").as_bytes(),
                false,
            )
        };
        for n in 0..5000 {
            // Of two gaps, the first is pushed out itself.
            let dropped = if n == 2000 || n == 4999 { 7 } else { 0 };
            logs.add(dropped, vec![text(n)]);
        }
        drop(logs);
        let mut found = Vec::new();
        loop {
            let batch = reader.next().await;
            if batch.is_empty() {
                break;
            }
            found.extend(batch);
        }
        let kept = (KEPT - OVERHEAD) / (1000 + OVERHEAD);
        let missed = (5000 - kept + 7) as u64;
        assert_eq!(found[0], LogEntry::Dropped { lines: missed });
        assert_eq!(found[kept], LogEntry::Dropped { lines: 7 });
        let texts = found.iter().filter_map(|entry| match entry {
            LogEntry::Line { text, .. } => text.parse::<usize>().ok(),
            LogEntry::Dropped { .. } => None,
        });
        assert!(texts.eq(5000 - kept..5000));
    }
}
