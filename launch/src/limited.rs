//! Log lines that an enclave can trigger: so many a minute, and then their number.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

/// Decides which of many alike lines are written.
#[derive(Debug)]
pub struct LineLimiter {
    limit: u32,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub enum LineVerdict {
    /// Write it.
    Write {
        /// Lines that were left out before it.
        left_out: u32,
        /// Whether the rest of this minute's lines are left out.
        is_last: bool,
    },
    /// Leave it out.
    LeaveOut,
}

impl LineLimiter {
    /// At most `limit` lines a minute.
    pub fn new(limit: u32) -> LineLimiter {
        LineLimiter {
            limit,
            window: Mutex::new(None),
        }
    }

    /// Whether one more line is written at `now`, which must not go back.
    pub fn admit(&self, now: Instant) -> LineVerdict {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        match window
            .as_mut()
            .filter(|window| now.duration_since(window.began) < WINDOW)
        {
            Some(current) => {
                current.lines = current.lines.saturating_add(1);
                if current.lines > self.limit {
                    return LineVerdict::LeaveOut;
                }
                LineVerdict::Write {
                    left_out: 0,
                    is_last: current.lines == self.limit,
                }
            }
            None => {
                let before = window.replace(Window {
                    began: now,
                    lines: 1,
                });
                let lines = before.map_or(0, |before| before.lines);
                LineVerdict::Write {
                    left_out: lines.saturating_sub(self.limit),
                    is_last: self.limit == 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_lines_and_the_next_one_tells_how_many_more_there_were() {
        let limiter = LineLimiter::new(2);
        let began = Instant::now();
        let at = |seconds| limiter.admit(began + Duration::from_secs(seconds));
        let write = |left_out, is_last| LineVerdict::Write { left_out, is_last };
        assert_eq!([at(0), at(1)], [write(0, false), write(0, true)]);
        for seconds in [2, 30, 59] {
            assert_eq!(at(seconds), LineVerdict::LeaveOut);
        }
        assert_eq!(at(60), write(3, false));
        assert_eq!(at(61), write(0, true));
        assert_eq!(at(62), LineVerdict::LeaveOut);
    }
}
