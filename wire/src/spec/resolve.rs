//! From a written spec and an image to the measured spec.

use super::config::ConfigSpec;
use super::error::{InvalidValue, SpecError};
use super::health::{HealthSpec, ImageHealthcheck};
use super::measured::{MeasuredSpec, Run, VERSION};
use super::signal::Signal;
use super::written::{RunOverrides, Spec};
use std::collections::BTreeMap;

/// What the image's config says (OCI image-spec, config.md); empty where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// Entrypoint: comes before `cmd`.
    pub entrypoint: Vec<String>,
    /// Cmd.
    pub cmd: Vec<String>,
    /// Env: `NAME=value`, where the last of a name counts.
    pub env: Vec<String>,
    /// User: `user[:group]`, empty for root.
    pub user: String,
    /// WorkingDir, empty for `/`.
    pub working_dir: String,
    /// StopSignal: SIGTERM if absent.
    pub stop_signal: Option<String>,
    /// Healthcheck: counts where the spec has no `[health]`.
    pub health: Option<ImageHealthcheck>,
}

impl ImageDefaults {
    /// A placeholder for an image that is not known yet: for what a spec resolves to whatever the
    /// image is.
    pub fn any() -> ImageDefaults {
        ImageDefaults {
            cmd: vec!["/".to_owned()],
            ..ImageDefaults::default()
        }
    }
}

impl Spec {
    /// Merges the spec with the image's settings. The result depends on nothing else.
    ///
    /// # Errors
    /// [`SpecError::NoCommand`] if neither names a program, and [`SpecError::Value`] with the key
    /// of a value that cannot be used, the image's included.
    pub fn resolve(&self, mut image: ImageDefaults) -> Result<MeasuredSpec, SpecError> {
        let Spec {
            name,
            run,
            resources: _,
            network,
            config,
            health,
            logs,
            security,
            attestation,
        } = self;
        let own = health.as_ref().map(HealthSpec::resolve);
        let of_image = image.health.take();
        let health = own.or_else(|| of_image.map(ImageHealthcheck::resolve));
        let spec = MeasuredSpec {
            version: VERSION,
            name: name.clone(),
            cmdline: String::new(),
            run: run.resolve(image)?,
            network: network.resolve()?,
            config: config.as_ref().map(ConfigSpec::resolve).transpose()?,
            health: health.transpose()?.flatten(),
            logs: *logs,
            security: security.resolve(),
            attestation: attestation.resolve(),
        };
        spec.check()?;
        Ok(spec)
    }
}

impl RunOverrides {
    fn resolve(&self, image: ImageDefaults) -> Result<Run, SpecError> {
        let RunOverrides {
            command,
            env,
            user,
            working_dir,
            stop_signal,
            restart,
        } = self;
        let command = match command {
            Some(command) => command.clone(),
            None => [image.entrypoint, image.cmd].concat(),
        };
        if command.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoCommand);
        }
        let mut working_dir = working_dir.clone().unwrap_or(image.working_dir);
        if working_dir.is_empty() {
            "/".clone_into(&mut working_dir);
        }
        let stop_signal = stop_signal.clone().or(image.stop_signal);
        Ok(Run {
            command,
            env: merge_env(&image.env, env)?,
            user: user.clone().unwrap_or(image.user),
            working_dir,
            stop_signal: stop_signal
                .as_deref()
                .map_or(Ok(Signal::TERM), Signal::parse)?,
            restart: *restart,
        })
    }
}

/// Keeps the image's order, so that the result does not depend on a map's.
fn merge_env(
    image: &[String],
    overrides: &BTreeMap<String, String>,
) -> Result<Vec<String>, SpecError> {
    let mut env: Vec<(&str, &str)> = Vec::new();
    let own = image
        .iter()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    let added = overrides
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    for (name, text) in own.chain(added) {
        if name.is_empty() || name.contains('=') {
            return Err(InvalidValue::VariableName(name.to_owned()).of("env"));
        }
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = text,
            None => env.push((name, text)),
        }
    }
    let lines = env.iter().map(|(name, text)| format!("{name}={text}"));
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{LogRules, NetworkRules};

    fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: vec!["/bin/app".into()],
            cmd: vec!["--serve".into()],
            env: vec!["PATH=/bin".into(), "A=1".into(), "A=2".into()],
            user: "web".into(),
            working_dir: String::new(),
            stop_signal: Some("SIGINT".into()),
            health: None,
        }
    }

    #[test]
    fn an_empty_spec_is_the_image() {
        let spec = Spec::default().resolve(image()).unwrap();
        assert_eq!(spec.run.command, ["/bin/app", "--serve"]);
        assert_eq!(spec.run.env, ["PATH=/bin", "A=2"]);
        assert_eq!(
            (spec.run.working_dir.as_str(), spec.run.stop_signal.number()),
            ("/", 2)
        );
        assert_eq!(spec.network, NetworkRules::default());
        assert_eq!(spec.logs, LogRules { forward: false });
    }

    #[test]
    fn resources_and_listen_addresses_are_not_measured() {
        let plain = Spec::parse("[network]\ningress = [{ port = 80 }]").unwrap();
        let rich = Spec::parse(
            "[resources]\nmemory_mib = 2048\n[network]\nattestation_per_source = 1\n\
             ingress = [{ port = 80, listen = '127.0.0.1:8080', proxy_protocol = true, idle_seconds = 1, per_source = 1 }]",
        )
        .unwrap();
        assert_eq!(
            plain.resolve(image()).unwrap().to_json(),
            rich.resolve(image()).unwrap().to_json()
        );
    }

    #[test]
    fn the_measured_bytes_read_back_as_the_same_spec() {
        let written = Spec::parse(
            r#"
            name = "orders"
            [run]
            env = { A = "3", B = "4" }
            [network]
            egress = ["db.internal:5432", "*.example.com:443"]
            forward = [{ listen = "127.0.0.1:5432", to = "db.internal:5432" }]
            [logs]
            forward = true
            "#,
        )
        .unwrap();
        let spec = written.resolve(image()).unwrap();
        assert_eq!(MeasuredSpec::parse(&spec.to_json()).unwrap(), spec);
        assert_eq!(spec.run.env, ["PATH=/bin", "A=3", "B=4"]);
    }

    #[test]
    fn refuses_a_forward_that_the_egress_list_does_not_cover() {
        let written =
            Spec::parse("[network]\nforward = [{ listen = '127.0.0.1:1', to = 'db:5432' }]")
                .unwrap();
        let expected = InvalidValue::NotInEgress("db:5432".to_owned()).of("forward.to");
        assert_eq!(
            expected.to_string(),
            "forward.to: db:5432 is not in network.egress"
        );
        assert_eq!(written.resolve(image()), Err(expected));
    }

    #[test]
    fn refuses_an_image_without_a_program() {
        assert_eq!(
            Spec::default().resolve(ImageDefaults::default()),
            Err(SpecError::NoCommand)
        );
    }

    #[test]
    fn refuses_names_and_paths_that_linux_cannot_have() {
        let problem = |text: &str| Spec::parse(text).unwrap().resolve(image()).unwrap_err();
        assert_eq!(
            problem("[run]\nworking_dir = 'x'"),
            InvalidValue::NotAbsolute("x".to_owned()).of("working_dir")
        );
        assert_eq!(
            problem("[run.env]\n'A=B' = 'x'"),
            InvalidValue::VariableName("A=B".to_owned()).of("env")
        );
        assert_eq!(
            problem("[run]\nuser = \"a\\u0000\""),
            InvalidValue::NulByte.of("user")
        );
    }
}
