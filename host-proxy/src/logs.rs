//! The workload's output: the last of it in memory, and a stream of what comes. An enclave that writes without end pushes out
//! its own older lines and nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;
use wire::control::OutputStream;

/// Bytes kept for each enclave.
const KEPT: usize = 1024 * 1024;
/// What a piece costs beside its bytes: many small ones must not outgrow the limit.
const OVERHEAD: usize = 64;
const QUEUE: usize = 256;
/// Characters of a line that is quoted in a fault.
const MAX_LINE: usize = 300;

/// One piece of output as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub stream: OutputStream,
    pub bytes: Vec<u8>,
}

/// Cheap to clone; all clones are one log.
#[derive(Debug, Clone)]
pub struct Logs {
    kept: Arc<Mutex<Kept>>,
    live: broadcast::Sender<Piece>,
}

#[derive(Debug, Default)]
struct Kept {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            kept: Arc::default(),
            live: broadcast::channel(QUEUE).0,
        }
    }
}

impl Logs {
    pub(crate) fn add(&self, piece: Piece) {
        if piece.bytes.is_empty() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += piece.bytes.len() + OVERHEAD;
        kept.pieces.push_back(piece.clone());
        while kept.bytes > KEPT {
            let Some(oldest) = kept.pieces.pop_front() else {
                break;
            };
            kept.bytes -= oldest.bytes.len() + OVERHEAD;
        }
        // Nobody may be listening.
        self.live.send(piece).ok();
    }

    /// The last line, printable characters only; empty if there is none.
    pub(crate) fn last_line(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tail: VecDeque<u8> = VecDeque::new();
        for piece in kept.pieces.iter().rev() {
            if tail.len() > MAX_LINE {
                break;
            }
            for &byte in piece.bytes.iter().rev() {
                tail.push_front(byte);
            }
        }
        let text = String::from_utf8_lossy(tail.make_contiguous()).into_owned();
        let line = text.trim_end().lines().last().unwrap_or_default();
        line.chars()
            .filter(|c| !c.is_control())
            .take(MAX_LINE)
            .collect()
    }

    /// What is kept, and everything after it, without a gap between them.
    pub fn follow(&self) -> (Vec<Piece>, broadcast::Receiver<Piece>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.pieces.iter().cloned().collect(), self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_came_in_pieces_is_quoted_whole() {
        let logs = Logs::default();
        assert_eq!(logs.last_line(), "");
        for piece in ["first\nsec", "ond\x1b[1m l", "ine\n\n"] {
            logs.add(Piece {
                stream: OutputStream::Stderr,
                bytes: piece.into(),
            });
        }
        assert_eq!(logs.last_line(), "second[1m line");
    }

    #[test]
    fn keeps_the_last_mebibyte() {
        let logs = Logs::default();
        for n in 0..200u8 {
            logs.add(Piece {
                stream: OutputStream::Stdout,
                bytes: vec![n; 8192],
            });
        }
        let (kept, _) = logs.follow();
        assert_eq!(kept.len(), KEPT / (8192 + OVERHEAD));
        assert_eq!(kept.last().unwrap().bytes[0], 199);
    }
}
