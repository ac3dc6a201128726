//! `/app/enclave.json`: the spec that the agent runs and that is measured.

use super::attestation::AttestationRules;
use super::config::MeasuredConfig;
use super::error::{InvalidValue, MAX_LEN, SpecError};
use super::health::HealthRules;
use super::network::NetworkRules;
use super::restart::RestartPolicy;
use super::security::SecurityRules;
use super::signal::Signal;
use serde::{Deserialize, Serialize};

/// The version of the measured form.
pub(super) const VERSION: u32 = 1;

/// The resolved spec: what the agent runs, nothing left to decide but the user's numbers, which the
/// image's own `/etc/passwd` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredSpec {
    /// 1.
    pub version: u32,
    /// The name that sealed configs are made for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The kernel's command line as it was built; what a launcher adds comes after it. Empty as
    /// long as the spec is in no image.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub cmdline: String,
    /// What runs.
    pub run: Run,
    /// Where it may connect to, and what may connect to it.
    pub network: NetworkRules,
    /// The sealed config that the agent opens; none if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config: Option<MeasuredConfig>,
    /// How the workload's health is checked; not at all if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<HealthRules>,
    /// What may leave of the workload's output.
    pub logs: LogRules,
    /// How far the workload is kept away from the agent; the default if absent.
    #[serde(skip_serializing_if = "SecurityRules::is_default", default)]
    pub security: SecurityRules,
    /// Who of the workload gets attestation documents; no one if absent.
    #[serde(skip_serializing_if = "AttestationRules::is_default", default)]
    pub attestation: AttestationRules,
}

/// The program and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Program and arguments; at least the program.
    pub command: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// An absolute path in the image, made if it is missing.
    pub working_dir: String,
    /// What ends the workload when the host asks for it.
    pub stop_signal: Signal,
    /// When it is started once more; never if absent.
    #[serde(skip_serializing_if = "RestartPolicy::is_never", default)]
    pub restart: RestartPolicy,
}

/// What may leave of the workload's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRules {
    /// Whether the workload's output may leave the enclave.
    pub forward: bool,
}

impl MeasuredSpec {
    /// Reads the measured bytes.
    ///
    /// # Errors
    /// [`SpecError::TooLong`] above [`MAX_LEN`] bytes, [`SpecError::Syntax`] if it is not JSON of
    /// this form, and [`SpecError::Value`] for a version, text, list or rule that no resolved spec
    /// has.
    pub fn parse(json: &[u8]) -> Result<MeasuredSpec, SpecError> {
        if json.len() > MAX_LEN {
            return Err(SpecError::TooLong(json.len()));
        }
        let spec: MeasuredSpec =
            serde_json::from_slice(json).map_err(|e| SpecError::Syntax(e.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    /// The measured bytes: the same spec gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("a spec holds strings, numbers and lists, which always serialise")
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let MeasuredSpec {
            version,
            name,
            cmdline,
            run,
            network,
            config,
            health,
            logs: _,
            security,
            attestation,
        } = self;
        if *version != VERSION {
            return Err(InvalidValue::Version(*version).of("version"));
        }
        no_nul("name", name.as_deref().unwrap_or_default())?;
        no_nul("cmdline", cmdline)?;
        run.check()?;
        network.check()?;
        security.check()?;
        attestation.check()?;
        health.as_ref().map_or(Ok(()), HealthRules::check)?;
        config.as_ref().map_or(Ok(()), |config| {
            config.check(name.as_deref(), &run.env, network)
        })
    }
}

impl Run {
    fn check(&self) -> Result<(), SpecError> {
        let Run {
            command,
            env,
            user,
            working_dir,
            stop_signal: _,
            restart: _,
        } = self;
        command
            .iter()
            .try_for_each(|text| no_nul("command", text))?;
        env.iter().try_for_each(|text| no_nul("env", text))?;
        no_nul("working_dir", working_dir)?;
        if !working_dir.starts_with('/') {
            return Err(InvalidValue::NotAbsolute(working_dir.clone()).of("working_dir"));
        }
        no_nul("user", user)
    }
}

fn no_nul(key: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') {
        return Err(InvalidValue::NulByte.of(key));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ImageDefaults, Spec};

    #[test]
    fn a_relative_working_directory_is_refused_in_the_measured_form_too() {
        let spec = Spec::default().resolve(ImageDefaults::any()).unwrap();
        let json = String::from_utf8(spec.to_json()).unwrap();
        let forged = json.replace(r#""working_dir":"/""#, r#""working_dir":"app""#);
        let problem = InvalidValue::NotAbsolute("app".to_owned()).of("working_dir");
        assert_eq!(MeasuredSpec::parse(forged.as_bytes()), Err(problem));
    }
}
