//! What must be true of this enclave before anything of the image runs, whatever the parent did to
//! bring it up. Each gate has a reason of its own; what was found is in `/healthz`.

mod clock;

use clock::Sample;

pub(crate) use clock::{Clock, discipline};

use crate::document;
use crate::error::BootError;
use crate::nsm::{Nsm, NsmError};
use std::fmt::{self, Display, Formatter};
use std::fs;
use wire::control::AbortReason;
use wire::spec::MeasuredSpec;
use zeroize::Zeroizing;

/// The kernel's driver for the NSM registers as this (drivers/misc/nsm.c).
const HWRNG: &str = "nsm-hwrng";
const RNG: &str = "/sys/devices/virtual/misc/hw_random/rng_current";
const CMDLINE: &str = "/proc/cmdline";
const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// What the gates found.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    debug: bool,
    /// What the clock was off by, in milliseconds, before it was set.
    clock_offset: i64,
}

/// Passes every gate, and sets the clock on the way.
pub(crate) fn pass(spec: &MeasuredSpec, nsm: &dyn Nsm) -> Result<(Findings, Clock), BootError> {
    let sample = Sample::take(nsm)?;
    let debug = is_debug(spec, &sample.document)?;
    let cmdline = read(CMDLINE, AbortReason::Cmdline)?;
    is_measured(&cmdline, &spec.cmdline)?;
    random_numbers(&read(RNG, AbortReason::Rng)?, nsm)?;
    let clock_offset = clock::set(&sample)?;
    let findings = Findings {
        debug,
        clock_offset,
    };
    Ok((findings, Clock::open()))
}

fn read(path: &str, reason: AbortReason) -> Result<String, BootError> {
    let text = fs::read_to_string(path).map_err(BootError::of(reason, path))?;
    Ok(text.trim_end().to_owned())
}

/// The parent reads the console in debug mode.
fn is_debug(spec: &MeasuredSpec, document: &[u8]) -> Result<bool, BootError> {
    let debug = !document::is_measured(document).map_err(|_| NsmError::NoRegisters)?;
    if debug && !spec.security.allow_debug {
        let detail = "the enclave was started in debug mode, which its spec does not allow";
        return Err(BootError::new(AbortReason::Debug, detail));
    }
    Ok(debug)
}

/// The registers do not say where the kernel ends and the command line begins: a parent could move
/// the first options into the kernel, where nothing reads them. Launchers may add some at the end.
fn is_measured(booted_with: &str, measured: &str) -> Result<(), BootError> {
    let rest = booted_with
        .strip_prefix(measured)
        .filter(|_| !measured.is_empty());
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')) {
        return Ok(());
    }
    let detail =
        format!("the kernel's command line does not begin with the measured one: '{booted_with}'");
    Err(BootError::new(AbortReason::Cmdline, detail))
}

/// The NSM is where the kernel takes random numbers from, and gives some right now: an enclave has
/// few other sources.
fn random_numbers(source: &str, nsm: &dyn Nsm) -> Result<(), BootError> {
    if source != HWRNG {
        let detail = format!("the kernel's random numbers come from '{source}', not from {HWRNG}");
        return Err(BootError::new(AbortReason::Rng, detail));
    }
    let random = Zeroizing::new(nsm.random()?);
    fs::write("/dev/urandom", &random)
        .map_err(BootError::of(AbortReason::Rng, "cannot seed /dev/urandom"))
}

impl Display for Findings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Findings {
            debug,
            clock_offset,
        } = self;
        writeln!(f, "debug: {}", if *debug { "yes" } else { "no" })?;
        writeln!(f, "cmdline: as measured")?;
        writeln!(f, "rng: {HWRNG}")?;
        // It changes in the first seconds, and the clock is kept whatever it is.
        let clocksource = fs::read_to_string(CLOCKSOURCE).unwrap_or_default();
        writeln!(f, "clocksource: {}", clocksource.trim_end())?;
        writeln!(f, "clock: set from the NSM, was off by {clock_offset} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_begins_with_the_measured_one() {
        let measured = "reboot=k panic=-1";
        for good in [
            measured,
            "reboot=k panic=-1 virtio_mmio.device=512@0xfeb00e00:12",
        ] {
            is_measured(good, measured).unwrap();
        }
        for bad in [
            "panic=-1",
            "",
            "reboot=k panic=-10",
            "init=/x reboot=k panic=-1",
        ] {
            let error = is_measured(bad, measured).unwrap_err();
            assert_eq!(error.reason, AbortReason::Cmdline, "{bad}");
        }
        assert!(is_measured("anything", "").is_err());
    }
}
