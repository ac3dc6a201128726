//! The last of what a program printed, for the error message if it ends badly. Whatever it prints,
//! memory stays bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const KEPT: usize = 16 * 1024;
const SHOWN_LINES: usize = 6;

/// What was printed last. Cheap to clone; all clones are one console.
#[derive(Debug, Clone, Default)]
pub struct Console(Arc<Mutex<VecDeque<u8>>>);

impl Console {
    /// Reads a stream to its end in the background.
    pub fn collect(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let console = self.clone();
        tokio::spawn(async move { console.read(stream).await });
    }

    /// Reads a stream to its end. Cancelling is safe.
    pub(super) async fn read(&self, mut stream: impl AsyncRead + Unpin) {
        let mut piece = [0; 4096];
        while let Ok(n) = stream.read(&mut piece).await {
            let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else {
                return;
            };
            self.add(bytes);
        }
    }

    /// Adds to what was printed.
    pub(super) fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    }

    /// The last lines, printable characters only.
    pub(super) fn tail(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text
            .lines()
            .map(|line| {
                line.chars()
                    .filter(|c| !c.is_control())
                    .take(300)
                    .collect::<String>()
            })
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines
            .get(lines.len().saturating_sub(SHOWN_LINES)..)
            .unwrap_or_default()
            .join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_nothing_that_steers_a_terminal() {
        let console = Console::default();
        for n in 0..5000 {
            console.add(format!("line {n}\x1b[2J\r\n").as_bytes());
        }
        assert!(console.tail().ends_with("line 4998[2J | line 4999[2J"));
        assert_eq!(console.tail().matches(" | ").count(), SHOWN_LINES - 1);
    }
}
