//! One line for what was refused: into the workload's log if the spec lets that leave, and on the
//! console otherwise. The workload decides how often it is refused, so lines are limited.

use crate::console;
use crate::output::{LogQueue, own_line};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LINES: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

pub(crate) struct Refusals {
    log: Option<Arc<LogQueue>>,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u32,
}

impl Refusals {
    pub(crate) fn new(log: Option<Arc<LogQueue>>) -> Refusals {
        Refusals {
            log,
            window: Mutex::default(),
        }
    }

    /// Writes one line, if there is room for it. Never waits.
    pub(crate) fn note(&self, what: &dyn Display) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = window.admit(Instant::now()) else {
            return;
        };
        drop(window);
        let more = match left_out {
            0 => String::new(),
            n => format!(" ({n} lines left out before)"),
        };
        let line = format!("refused: {what}{more}");
        match &self.log {
            Some(log) => log.offer(own_line(&line)),
            None => console::say(&line),
        }
    }
}

impl Window {
    /// How many lines were left out before this one; `None` if it is left out too.
    fn admit(&mut self, now: Instant) -> Option<u32> {
        if self
            .began
            .is_none_or(|began| now.duration_since(began) >= WINDOW)
        {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_minute_and_the_next_one_says_what_is_missing() {
        let (mut window, start) = (Window::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(window.admit(start), Some(0));
        }
        assert_eq!(window.admit(start), None);
        assert_eq!(window.admit(start + WINDOW - Duration::from_secs(1)), None);
        assert_eq!(window.admit(start + WINDOW), Some(2));
        assert_eq!(window.admit(start + WINDOW), Some(0));
    }
}
