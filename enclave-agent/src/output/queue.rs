//! Lines on their way to the host: so many and no more. A host that reads slowly slows the workload
//! down for a moment; one that does not read costs it lines, which are counted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;
use wire::control::OutputLine;

/// Bytes of lines that wait.
const CAPACITY: usize = 256 * 1024;
/// Bytes of lines that go into one message: half of a frame, so that their heads fit beside them.
const BATCH: usize = 32 * 1024;
/// What a line costs beside its bytes, so that empty ones cost something.
const OVERHEAD: usize = 32;
/// How long a full queue may hold the workload up before lines are dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// What goes into one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Lines that were dropped before these.
    pub(crate) dropped: u64,
    pub(crate) lines: Vec<OutputLine>,
}

/// One reader, and writers that count themselves in.
#[derive(Default)]
pub(crate) struct LogQueue {
    state: Mutex<State>,
    ready: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Waiting>,
    bytes: usize,
    /// Lines dropped since the last that was taken in.
    dropped: u64,
    /// The host was waited for in vain: until there is room, nothing waits for it again.
    is_dropping: bool,
    writers: usize,
}

struct Waiting {
    dropped_before: u64,
    line: OutputLine,
}

fn size(line: &OutputLine) -> usize {
    line.bytes.len() + OVERHEAD
}

impl LogQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more writer, whose [`LogQueue::end`] the queue's own end waits for.
    pub(crate) fn begin(&self) {
        self.state().writers += 1;
    }

    pub(crate) fn end(&self) {
        self.state().writers -= 1;
        self.ready.notify_one();
    }

    /// Adds a line; waits for room at most as long as [`PATIENCE`].
    pub(super) async fn push(&self, line: OutputLine) {
        let must_wait = {
            let state = self.state();
            !state.has_room(&line) && !state.is_dropping
        };
        if must_wait && timeout(PATIENCE, self.room_for(&line)).await.is_err() {
            self.state().is_dropping = true;
        }
        self.offer(line);
    }

    async fn room_for(&self, line: &OutputLine) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.state().has_room(line) {
                return;
            }
            room.await;
        }
    }

    /// Adds a line if there is room for it, and counts it otherwise. Never waits.
    pub(crate) fn offer(&self, line: OutputLine) {
        let mut state = self.state();
        if state.has_room(&line) {
            state.is_dropping = false;
            state.bytes += size(&line);
            let dropped_before = std::mem::take(&mut state.dropped);
            state.lines.push_back(Waiting {
                dropped_before,
                line,
            });
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.ready.notify_one();
    }

    /// What is there, once something is; `None` once every writer has ended and all was taken.
    /// Cancel-safe.
    pub(crate) async fn next(&self) -> Option<Batch> {
        loop {
            let (batch, is_over) = {
                let mut state = self.state();
                let batch = state.take();
                (batch, state.writers == 0)
            };
            if batch != Batch::default() {
                self.room.notify_waiters();
                return Some(batch);
            }
            if is_over {
                return None;
            }
            self.ready.notified().await;
        }
    }

    /// Nothing is taken any more: how many lines that costs.
    pub(crate) fn abandon(&self) -> u64 {
        let mut state = self.state();
        let waiting = state.lines.drain(..).map(|next| 1 + next.dropped_before);
        let waiting: u64 = waiting.sum();
        state.bytes = 0;
        waiting + std::mem::take(&mut state.dropped)
    }
}

impl State {
    fn has_room(&self, line: &OutputLine) -> bool {
        self.bytes + size(line) <= CAPACITY
    }

    /// A message says in one place that lines are missing: at its beginning.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(next) = self.lines.front() {
            let fits = bytes + size(&next.line) <= BATCH && next.dropped_before == 0;
            if !batch.lines.is_empty() && !fits {
                return batch;
            }
            let Some(Waiting {
                dropped_before,
                line,
            }) = self.lines.pop_front()
            else {
                break;
            };
            batch.dropped += dropped_before;
            bytes += size(&line);
            self.bytes -= size(&line);
            batch.lines.push(line);
        }
        if batch.lines.is_empty() {
            batch.dropped = std::mem::take(&mut self.dropped);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;
    use wire::control::{FromAgent, MAX_LINE, OutputStream};

    fn line(number: u64, length: usize) -> OutputLine {
        OutputLine {
            stream: OutputStream::Stdout,
            time_ms: number,
            bytes: vec![b'x'; length],
            partial: false,
        }
    }

    async fn all(queue: &LogQueue) -> (Vec<u64>, Vec<u64>) {
        let (mut numbers, mut gaps) = (Vec::new(), Vec::new());
        while let Some(Batch { dropped, lines }) = queue.next().await {
            if dropped > 0 {
                gaps.push(dropped);
            }
            numbers.extend(lines.iter().map(|line| line.time_ms));
        }
        (numbers, gaps)
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_does_not_read_costs_a_second_and_then_lines_that_are_counted() {
        let queue = LogQueue::default();
        queue.begin();
        let began = Instant::now();
        let fit = CAPACITY / (1000 + OVERHEAD);
        for number in 0..fit as u64 + 10 {
            queue.push(line(number, 1000)).await;
        }
        assert_eq!(began.elapsed(), PATIENCE);
        let first = queue.next().await.unwrap();
        assert_eq!((first.dropped, first.lines[0].time_ms), (0, 0));
        queue.push(line(1_000_000, 1000)).await;
        queue.end();
        let (numbers, gaps) = all(&queue).await;
        assert_eq!(gaps, [10]);
        assert_eq!(numbers.last(), Some(&1_000_000));
        assert_eq!(first.lines.len() + numbers.len(), fit + 1);
        assert!(numbers.is_sorted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_reads_gets_every_line() {
        let queue = LogQueue::default();
        queue.begin();
        let write = async {
            for number in 0..5000 {
                queue.push(line(number, 500)).await;
            }
            queue.end();
        };
        let ((), (numbers, gaps)) = tokio::join!(write, all(&queue));
        assert_eq!(gaps, Vec::<u64>::new());
        assert_eq!(numbers, (0..5000).collect::<Vec<u64>>());
    }

    #[tokio::test]
    async fn lines_dropped_at_the_end_are_counted_too() {
        let queue = LogQueue::default();
        while queue.state().dropped == 0 {
            queue.offer(line(0, MAX_LINE));
        }
        assert_eq!(all(&queue).await.1, [1]);
    }

    #[test]
    fn a_batch_fits_into_a_frame_however_long_its_lines_are() {
        for length in [0, 1, 100, MAX_LINE] {
            let queue = LogQueue::default();
            for _ in 0..2000 {
                queue.offer(line(u64::MAX, length));
            }
            let Batch { dropped, lines } = queue.state().take();
            assert!(!lines.is_empty());
            wire::frame::encode(&FromAgent::Log { dropped, lines }).unwrap();
        }
    }
}
