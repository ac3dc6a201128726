//! epoll, with edges: what is ready is reported once.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const EVENTS: usize = 128;

/// One descriptor's news.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) hung_up: bool,
}

/// What is watched. A closed descriptor is forgotten by itself.
#[derive(Debug)]
pub(crate) struct Poller(Epoll);

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Epoll::new().map(Poller)
    }

    pub(crate) fn add(&self, source: &impl AsRawFd, token: u64) -> io::Result<()> {
        let events =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        let event = EpollEvent::new(events, token);
        self.0.ctl(ControlOperation::Add, source.as_raw_fd(), event)
    }

    /// Waits for news, without end if there is no timeout.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        // Rounded up: a timer is not looked at before its time.
        let millis = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.0.wait(millis, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        let ready = events.iter().take(count).map(|event| Ready {
            token: event.data(),
            hung_up: event.events() & (EventSet::HANG_UP | EventSet::ERROR).bits() != 0,
        });
        Ok(ready.collect())
    }
}
