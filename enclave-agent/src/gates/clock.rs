//! The clock: set from the hypervisor's time at boot, and kept there. The parent has no say in it.

use crate::console;
use crate::document;
use crate::error::BootError;
use crate::nsm::{AskError, Nsm, NsmError, Question, Requester};
use crate::sys;
use attestation::Origin;
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;
use wire::control::AbortReason;

/// The kernel's PTP clock of a KVM guest: the hypervisor's time, to the microsecond.
const PTP: &str = "/dev/ptp0";
const EVERY: Duration = Duration::from_secs(60);
/// From here on the clock jumps; below, it is slewed.
const STEP: i64 = 500;
/// Closer than this a document's time does not tell.
const CLOSE: i64 = 20;
/// A document that took longer says too little of the time, in milliseconds.
const MAX_ROUND_TRIP: i64 = 200;

/// Where the time comes from. Milliseconds since 1970.
pub(crate) struct Clock {
    ptp: Option<File>,
}

impl Clock {
    /// Hypervisors without a PTP clock leave the NSM's documents.
    pub(super) fn open() -> Clock {
        Clock {
            ptp: File::open(PTP).ok(),
        }
    }

    /// What the clock is behind the hypervisor's, if that can be told.
    async fn offset(&self, nsm: &Requester) -> Result<Option<i64>, BootError> {
        if let Some(ptp) = &self.ptp {
            let failed = BootError::of(AbortReason::Clock, PTP);
            return by_ptp(ptp).map(Some).map_err(failed);
        }
        let sample = Sample::ask(nsm).await?;
        Ok((sample.round_trip <= MAX_ROUND_TRIP).then_some(sample.offset))
    }
}

/// Sets the clock by a sample; gives what it was off by.
pub(super) fn set(sample: &Sample) -> Result<i64, BootError> {
    if sample.offset.abs() >= CLOSE {
        step(sample.offset).map_err(BootError::of(AbortReason::Clock, "cannot set the clock"))?;
    }
    Ok(sample.offset)
}

/// Keeps the clock at the hypervisor's time for as long as the enclave lives.
pub(crate) async fn discipline(clock: Clock, nsm: Requester) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let corrected = clock.offset(&nsm).await.and_then(|offset| {
            let offset = offset.unwrap_or_default();
            correct(offset).map_err(BootError::of(
                AbortReason::Clock,
                "cannot correct the clock",
            ))
        });
        if let Err(error) = corrected {
            console::say(&error.detail);
        }
    }
}

fn correct(offset: i64) -> io::Result<()> {
    match offset.abs() {
        0..CLOSE => Ok(()),
        CLOSE..STEP => sys::slew_clock(offset),
        STEP.. => step(offset),
        ..0 => Ok(()),
    }
}

fn step(offset: i64) -> io::Result<()> {
    let time = TimeSpec::milliseconds(now()? + offset);
    Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
}

fn now() -> io::Result<i64> {
    Ok(clock_gettime(ClockId::CLOCK_REALTIME)?.num_milliseconds())
}

fn read_clock() -> Result<i64, BootError> {
    now().map_err(BootError::of(AbortReason::Clock, "the clock"))
}

fn unanswered(error: AskError) -> BootError {
    BootError::new(AbortReason::Nsm, error.to_string())
}

/// By `/dev/ptp0`, whose descriptor makes a clock's number (clock_getres(2), "Dynamic clocks").
fn by_ptp(device: &File) -> io::Result<i64> {
    let clock = ClockId::from_raw((!device.as_raw_fd() << 3) | 3);
    Ok(clock_gettime(clock)?.num_milliseconds() - now()?)
}

/// A fresh document, which bears the time of its making, and what that says of the clock.
pub(super) struct Sample {
    pub(super) document: Vec<u8>,
    /// What the clock is behind, in milliseconds.
    offset: i64,
    /// How long the document took, in milliseconds.
    round_trip: i64,
}

impl Sample {
    pub(super) fn take(nsm: &dyn Nsm) -> Result<Sample, BootError> {
        let before = read_clock()?;
        let document = nsm.attest(Origin::Agent, Question::default())?;
        Sample::new(before, document)
    }

    async fn ask(nsm: &Requester) -> Result<Sample, BootError> {
        let before = read_clock()?;
        let document = nsm.attest(Question::default()).await.map_err(unanswered)?;
        Sample::new(before, document.into())
    }

    /// Of a document that was asked for at `before` and has come just now.
    fn new(before: i64, document: Vec<u8>) -> Result<Sample, BootError> {
        let round_trip = read_clock()? - before;
        let theirs = document::timestamp(&document).ok().flatten();
        let theirs = theirs.and_then(|theirs| i64::try_from(theirs).ok());
        let theirs = theirs.ok_or(NsmError::NoTimestamp)?;
        Ok(Sample {
            document,
            offset: theirs - (before + round_trip / 2),
            round_trip,
        })
    }
}
