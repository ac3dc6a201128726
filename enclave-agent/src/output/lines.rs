//! Cuts a stream of bytes into lines. Pure: the time comes in.

use wire::control::{MAX_LINE, OutputLine, OutputStream};

/// One stream's bytes since its last line feed.
pub(super) struct LineCutter {
    stream: OutputStream,
    pending: Vec<u8>,
    /// When the first of them arrived.
    since_ms: u64,
}

impl LineCutter {
    pub(super) fn new(stream: OutputStream) -> LineCutter {
        LineCutter {
            stream,
            pending: Vec::new(),
            since_ms: 0,
        }
    }

    /// Whether bytes wait for their line feed.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The lines that are whole with these bytes, and parts of lines that are too long.
    pub(super) fn push(&mut self, mut bytes: &[u8], now_ms: u64) -> Vec<OutputLine> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            if self.pending.is_empty() {
                self.since_ms = now_ms;
            }
            let room = MAX_LINE - self.pending.len();
            // A line feed after the last byte that fits still ends this line.
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(bytes.len().min(room));
            let (head, rest) = bytes.split_at(taken);
            self.pending.extend_from_slice(head);
            bytes = rest;
            if end.is_some() {
                bytes = bytes.get(1..).unwrap_or_default();
                lines.push(self.take(false));
            } else if !bytes.is_empty() {
                lines.push(self.take(true));
            }
        }
        lines
    }

    /// What waits for its line feed, as part of a line.
    pub(super) fn flush(&mut self) -> Option<OutputLine> {
        self.is_pending().then(|| self.take(true))
    }

    fn take(&mut self, partial: bool) -> OutputLine {
        OutputLine {
            stream: self.stream,
            time_ms: self.since_ms,
            bytes: std::mem::take(&mut self.pending),
            partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(line: &OutputLine) -> (&str, bool, u64) {
        let bytes = std::str::from_utf8(&line.bytes).unwrap();
        (bytes, line.partial, line.time_ms)
    }

    #[test]
    fn a_line_has_the_time_of_its_first_byte_and_ends_at_its_line_feed() {
        let mut cutter = LineCutter::new(OutputStream::Stdout);
        let lines = cutter.push(b"one\n\ntw", 5);
        let found: Vec<_> = lines.iter().map(text).collect();
        assert_eq!(found, [("one", false, 5), ("", false, 5)]);
        let lines = cutter.push(b"o\nthree", 7);
        let found: Vec<_> = lines.iter().map(text).collect();
        assert_eq!(found, [("two", false, 5)]);
        assert_eq!(text(&cutter.flush().unwrap()), ("three", true, 7));
        assert_eq!(cutter.flush(), None);
        assert_eq!(text(&cutter.push(b"\n", 9)[0]), ("", false, 9));
    }

    #[test]
    fn a_line_is_split_above_16_kib_and_not_at_it() {
        let mut cutter = LineCutter::new(OutputStream::Stderr);
        let line = [&[b'x'; MAX_LINE][..], b"\n"].concat();
        let lines = cutter.push(&line, 1);
        assert_eq!((lines.len(), lines[0].partial), (1, false));
        let line = [&[b'x'; MAX_LINE + 1][..], b"\n"].concat();
        let lines = cutter.push(&line, 1);
        let found: Vec<_> = lines.iter().map(|l| (l.bytes.len(), l.partial)).collect();
        assert_eq!(found, [(MAX_LINE, true), (1, false)]);
        assert!(cutter.push(&line[..MAX_LINE], 1).is_empty());
        assert_eq!(cutter.push(b"\n", 1).len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_arrives(
            pieces in proptest::collection::vec((0..3 * MAX_LINE, "[a\n]{0,9}"), 0..6)
        ) {
            let pieces: Vec<String> = pieces
                .iter()
                .map(|(long, end)| format!("{}{end}", "x".repeat(*long)))
                .collect();
            let mut cutter = LineCutter::new(OutputStream::Stdout);
            let mut written = Vec::new();
            let mut lines: Vec<OutputLine> = Vec::new();
            for piece in &pieces {
                lines.extend(cutter.push(piece.as_bytes(), 0));
            }
            lines.extend(cutter.flush());
            for line in lines {
                prop_assert!(line.bytes.len() <= MAX_LINE);
                written.extend_from_slice(&line.bytes);
                if !line.partial {
                    written.push(b'\n');
                }
            }
            prop_assert_eq!(written, pieces.concat().into_bytes());
        }
    }
}
