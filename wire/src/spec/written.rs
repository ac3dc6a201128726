//! `enclave.toml`, as an operator writes it.

use super::attestation::AttestationRules;
use super::config::ConfigSpec;
use super::error::{InvalidValue, MAX_LEN, SpecError};
use super::health::HealthSpec;
use super::measured::LogRules;
use super::network::NetworkSpec;
use super::restart::RestartPolicy;
use super::security::SecurityRules;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// 64 MiB is the Nitro driver's own minimum (linux/nitro_enclaves.h, NE_ERR_MEM_SIZE).
const MEMORY_MIB: RangeInclusive<u32> = 64..=1024 * 1024;
const CPUS: RangeInclusive<u32> = 1..=128;

/// `enclave.toml`. Every section may be left out; unknown keys are errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The name that sealed configs are made for; measured. Needed for `[config]` only.
    pub name: Option<String>,
    /// What replaces the image's own settings.
    pub run: RunOverrides,
    /// What the host sets aside; not measured.
    pub resources: Resources,
    /// Where the enclave may connect to, and what may connect to it.
    pub network: NetworkSpec,
    /// The sealed config to open; none if left out.
    pub config: Option<ConfigSpec>,
    /// How the workload's health is checked; as the image says if left out.
    pub health: Option<HealthSpec>,
    /// What may leave of the workload's output.
    pub logs: LogRules,
    /// How far the workload is kept away from the agent.
    pub security: SecurityRules,
    /// Who of the workload gets attestation documents.
    pub attestation: AttestationRules,
}

/// What replaces the image's own settings. A key that is left out keeps the image's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunOverrides {
    /// Program and arguments, in place of both Entrypoint and Cmd.
    pub command: Option<Vec<String>>,
    /// Added to the image's environment; the same name replaces.
    pub env: BTreeMap<String, String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// An absolute path, made if the image lacks it.
    pub working_dir: Option<String>,
    /// As [`Signal::parse`](super::Signal::parse) reads it.
    pub stop_signal: Option<String>,
    /// When the program is started once more; images say nothing of that.
    pub restart: RestartPolicy,
}

/// For the host only: changing these changes no measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Memory in MiB, 64 to 1048576.
    pub memory_mib: u32,
    /// Virtual CPUs, 1 to 128.
    pub cpus: u32,
}

impl Default for Resources {
    /// 512 MiB and 2 CPUs: what Nitro's allocator sets aside unless told otherwise.
    fn default() -> Self {
        Resources {
            memory_mib: 512,
            cpus: 2,
        }
    }
}

impl Spec {
    /// Parses the text of an `enclave.toml`.
    ///
    /// ```
    /// use wire::spec::{ImageDefaults, MeasuredSpec, Spec};
    ///
    /// let spec = Spec::parse(
    ///     r#"
    ///     [resources]
    ///     memory_mib = 1024
    ///     [network]
    ///     egress = ["db.internal:5432"]
    ///     "#,
    /// )?;
    /// assert_eq!(spec.resources.memory_mib, 1024);
    ///
    /// let image = ImageDefaults {
    ///     entrypoint: vec!["/bin/app".to_owned()],
    ///     ..ImageDefaults::default()
    /// };
    /// let measured = spec.resolve(image)?;
    /// assert_eq!(measured.run.command, ["/bin/app"]);
    /// assert!(measured.network.allows("db.internal", 5432));
    /// assert_eq!(MeasuredSpec::parse(&measured.to_json())?, measured);
    /// # Ok::<(), wire::spec::SpecError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpecError::TooLong`] above [`MAX_LEN`] bytes, [`SpecError::Syntax`] if it is not TOML with
    /// these keys, and [`SpecError::Value`] for resources, or for limits of the host's listeners,
    /// out of range. Other values are checked by [`Spec::resolve`].
    pub fn parse(text: &str) -> Result<Spec, SpecError> {
        if text.len() > MAX_LEN {
            return Err(SpecError::TooLong(text.len()));
        }
        let spec: Spec = toml::from_str(text)
            .map_err(|e| SpecError::Syntax(e.to_string().trim_end().to_owned()))?;
        let Resources { memory_mib, cpus } = spec.resources;
        if !MEMORY_MIB.contains(&memory_mib) || !CPUS.contains(&cpus) {
            return Err(InvalidValue::Resources.of("resources"));
        }
        spec.network.check_host()?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_limits() {
        let parse = |memory: u32, cpus: u32| {
            Spec::parse(&format!(
                "[resources]\nmemory_mib = {memory}\ncpus = {cpus}"
            ))
            .is_ok()
        };
        assert!(parse(64, 1) && parse(1024 * 1024, 128));
        assert!(!parse(63, 1) && !parse(1024 * 1024 + 1, 1) && !parse(64, 0) && !parse(64, 129));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in [
            "colour = 1",
            "[network]\negres = []",
            "[resources]\nmemory = 1",
            "[config]\nregion = 'k'",
        ] {
            assert!(
                matches!(Spec::parse(text), Err(SpecError::Syntax(_))),
                "{text}"
            );
        }
    }
}
