//! `[health]`: how the agent finds out whether the workload works. The image's own HEALTHCHECK
//! counts where the spec has none.

use super::error::{InvalidValue, SpecError};
use super::target::HttpTarget;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Docker's defaults (`HEALTHCHECK`, Dockerfile reference); all times are in seconds.
const INTERVAL: u32 = 30;
const TIMEOUT: u32 = 30;
const RETRIES: u32 = 3;
const START_INTERVAL: u32 = 5;
/// A day is longer than anything that is checked for its health.
const SECONDS: RangeInclusive<u32> = 1..=24 * 60 * 60;
const MAX_RETRIES: u32 = 100;

/// `[health]` as written: exactly one of `http`, `tcp`, `command` and `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSpec {
    /// Ask for this URL: an answer with a status of 200 to 399 is a success.
    pub http: Option<HttpTarget>,
    /// Connect to this port of 127.0.0.1.
    pub tcp: Option<u16>,
    /// Run this program, as the workload's user: code 0 is a success.
    pub command: Option<Vec<String>>,
    /// No check, whatever the image says.
    pub none: bool,
    /// From one check to the next, in seconds, 1 to 86400; 30 if left out.
    pub interval: Option<u32>,
    /// How long a check may take, in seconds, 1 to 86400; 30 if left out.
    pub timeout: Option<u32>,
    /// How many checks must fail in a row, 1 to 100; 3 if left out.
    pub retries: Option<u32>,
    /// How long the program may take to start, in seconds, 0 to 86400: failures do not count as
    /// long as no check has succeeded. 0 if left out.
    pub start_period: Option<u32>,
    /// The interval during `start_period`, in seconds, 1 to 86400; 5 if left out.
    pub start_interval: Option<u32>,
}

/// `health` of the measured spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthRules {
    /// What is done.
    pub check: HealthCheck,
    /// Seconds from one check to the next.
    pub interval: u32,
    /// Seconds that a check may take.
    pub timeout: u32,
    /// Failures in a row that make the workload unhealthy.
    pub retries: u32,
    /// Seconds in which failures do not count, unless a check has succeeded.
    pub start_period: u32,
    /// Seconds from one check to the next during the start period.
    pub start_interval: u32,
}

/// One kind of check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheck {
    /// GET a URL.
    Http(HttpTarget),
    /// Connect to a port of 127.0.0.1.
    Tcp(u16),
    /// Run a program.
    Command(Vec<String>),
}

/// `Healthcheck` of an image's config (Docker image specification 1.2), and the shell that its
/// `CMD-SHELL` means. OCI has none; Docker and podman write it all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageHealthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", "…"]` or `["NONE"]`; empty for none.
    pub test: Vec<String>,
    /// Of the image; `/bin/sh -c` if empty.
    pub shell: Vec<String>,
    /// Nanoseconds, as all of the following; 0 is Docker's default.
    pub interval: i64,
    /// The longest time of a check.
    pub timeout: i64,
    /// Failures in a row; 0 is Docker's default.
    pub retries: i64,
    /// In which failures do not count.
    pub start_period: i64,
    /// From one check to the next during the start period.
    pub start_interval: i64,
}

impl HealthSpec {
    /// `None` if nothing is checked.
    pub(super) fn resolve(&self) -> Result<Option<HealthRules>, SpecError> {
        let http = self.http.clone().map(HealthCheck::Http);
        let tcp = self.tcp.map(HealthCheck::Tcp);
        let command = self.command.clone().map(HealthCheck::Command);
        let named = [http, tcp, command].into_iter().flatten();
        let check = match (&named.collect::<Vec<_>>()[..], self.none) {
            ([], true) => return Ok(None),
            ([check], false) => check.clone(),
            _ => return Err(InvalidValue::HealthChecks.of("health")),
        };
        Ok(Some(HealthRules {
            check,
            interval: self.interval.unwrap_or(INTERVAL),
            timeout: self.timeout.unwrap_or(TIMEOUT),
            retries: self.retries.unwrap_or(RETRIES),
            start_period: self.start_period.unwrap_or(0),
            start_interval: self.start_interval.unwrap_or(START_INTERVAL),
        }))
    }
}

impl ImageHealthcheck {
    /// `None` if it names no check.
    pub(super) fn resolve(self) -> Result<Option<HealthRules>, SpecError> {
        let command = match self.test.split_first() {
            None => return Ok(None),
            Some((kind, rest)) => match (kind.as_str(), rest) {
                ("NONE" | "", []) => return Ok(None),
                ("CMD", [_, ..]) => rest.to_vec(),
                ("CMD-SHELL", [script]) => {
                    let mut command = self.shell;
                    if command.is_empty() {
                        command = ["/bin/sh", "-c"].map(str::to_owned).to_vec();
                    }
                    command.push(script.clone());
                    command
                }
                _ => return Err(InvalidValue::Healthcheck(kind.clone()).of("health")),
            },
        };
        Ok(Some(HealthRules {
            check: HealthCheck::Command(command),
            interval: seconds(self.interval, INTERVAL),
            timeout: seconds(self.timeout, TIMEOUT),
            retries: u32::try_from(self.retries)
                .ok()
                .filter(|n| *n > 0)
                .map_or(RETRIES, |n| n.min(MAX_RETRIES)),
            start_period: seconds(self.start_period, 0),
            start_interval: seconds(self.start_interval, START_INTERVAL),
        }))
    }
}

/// Whole seconds, rounded up, within what a spec may have.
fn seconds(nanoseconds: i64, default: u32) -> u32 {
    let nanoseconds = u64::try_from(nanoseconds).unwrap_or_default();
    match nanoseconds.div_ceil(1_000_000_000) {
        0 => default,
        seconds => u32::try_from(seconds)
            .unwrap_or(u32::MAX)
            .min(*SECONDS.end()),
    }
}

impl HealthRules {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let HealthRules {
            check,
            interval,
            timeout,
            retries,
            start_period,
            start_interval,
        } = self;
        let times = [interval, timeout, start_interval];
        let is_sound = times.iter().all(|time| SECONDS.contains(time))
            && (1..=MAX_RETRIES).contains(retries)
            && start_period <= SECONDS.end();
        if !is_sound {
            return Err(InvalidValue::HealthTimes.of("health"));
        }
        match check {
            HealthCheck::Tcp(0) => Err(InvalidValue::HealthPort.of("health.tcp")),
            HealthCheck::Command(command) if command.first().is_none_or(String::is_empty) => {
                Err(InvalidValue::HealthChecks.of("health"))
            }
            HealthCheck::Command(command) if command.iter().any(|text| text.contains('\0')) => {
                Err(InvalidValue::NulByte.of("health.command"))
            }
            HealthCheck::Http(_) | HealthCheck::Tcp(_) | HealthCheck::Command(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ImageDefaults, MeasuredSpec, Spec};

    fn resolve(text: &str, image: ImageHealthcheck) -> Result<MeasuredSpec, SpecError> {
        let image = ImageDefaults {
            health: Some(image),
            ..ImageDefaults::any()
        };
        Spec::parse(text)?.resolve(image)
    }

    fn image(test: &[&str]) -> ImageHealthcheck {
        ImageHealthcheck {
            test: test.iter().map(|&text| text.to_owned()).collect(),
            ..ImageHealthcheck::default()
        }
    }

    fn check(text: &str, test: &[&str]) -> Option<HealthCheck> {
        let spec = resolve(text, image(test)).unwrap();
        let again = MeasuredSpec::parse(&spec.to_json()).unwrap();
        assert_eq!(again, spec);
        spec.health.map(|health| health.check)
    }

    fn command(words: &[&str]) -> Option<HealthCheck> {
        let words = words.iter().map(|&word| word.to_owned());
        Some(HealthCheck::Command(words.collect()))
    }

    #[test]
    fn the_specs_check_comes_before_the_images() {
        let script = ["CMD-SHELL", "curl -f localhost || exit 1"];
        assert_eq!(check("", &[]), None);
        assert_eq!(check("", &["NONE"]), None);
        assert_eq!(
            check("", &["CMD", "/check", "-q"]),
            command(&["/check", "-q"])
        );
        assert_eq!(
            check("", &script),
            command(&["/bin/sh", "-c", "curl -f localhost || exit 1"])
        );
        assert_eq!(check("[health]\nnone = true", &script), None);
        assert_eq!(
            check("[health]\ntcp = 5432", &script),
            Some(HealthCheck::Tcp(5432))
        );
        assert_eq!(
            check("[health]\ncommand = ['/own']", &script),
            command(&["/own"])
        );
        let problem = InvalidValue::Healthcheck("CMD_SHELL".to_owned()).of("health");
        assert_eq!(resolve("", image(&["CMD_SHELL", "x"])), Err(problem));
    }

    #[test]
    fn an_images_times_are_rounded_up_and_its_zeros_are_dockers_defaults() {
        let image = ImageHealthcheck {
            interval: 1_500_000_000,
            timeout: -1,
            start_period: 1,
            shell: vec!["/bin/ash".to_owned(), "-ec".to_owned()],
            ..image(&["CMD-SHELL", "x"])
        };
        let rules = resolve("", image).unwrap().health.unwrap();
        let expected = HealthRules {
            check: command(&["/bin/ash", "-ec", "x"]).unwrap(),
            interval: 2,
            timeout: 30,
            retries: 3,
            start_period: 1,
            start_interval: 5,
        };
        assert_eq!(rules, expected);
    }

    #[test]
    fn exactly_one_check_with_times_in_their_limits() {
        let problem = |text: &str| resolve(&format!("[health]\n{text}"), image(&[])).unwrap_err();
        let checks = InvalidValue::HealthChecks.of("health");
        for text in [
            "interval = 5",
            "tcp = 1\nnone = true",
            "tcp = 1\ncommand = ['/x']",
            "command = []",
        ] {
            assert_eq!(problem(text), checks, "{text}");
        }
        let times = InvalidValue::HealthTimes.of("health");
        for text in [
            "interval = 0",
            "timeout = 86401",
            "retries = 101",
            "start_period = 86401",
        ] {
            assert_eq!(problem(&format!("tcp = 1\n{text}")), times, "{text}");
        }
        assert_eq!(
            problem("tcp = 0"),
            InvalidValue::HealthPort.of("health.tcp")
        );
        for text in ["interval = 86400", "retries = 100", "start_period = 0"] {
            resolve(&format!("[health]\ntcp = 1\n{text}"), image(&[])).unwrap();
        }
    }
}
