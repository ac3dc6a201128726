//! `enclave.toml`, which an operator writes, and the [`MeasuredSpec`] that it resolves to.
//! The spec travels as `/app/enclave.json` in the second ramdisk: every field of it is measured in PCR0 and PCR2.
//! Resolving needs what the image says of itself; where that comes from is not this module's business.

mod config;
mod destination;
mod file;
mod signal;

pub use config::{ConfigSpec, Deliver, MeasuredConfig};
pub use destination::Destination;
pub use file::SpecFile;
pub use signal::Signal;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest `enclave.toml` or `enclave.json`, in bytes.
pub const MAX_LEN: usize = 256 * 1024;
const MAX_RULES: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the spec is {0} bytes long; the limit is {MAX_LEN}")]
    TooLong(usize),
    #[error("{0}")]
    Syntax(String),
    #[error("{key}: {problem}")]
    Value { key: &'static str, problem: String },
    #[error("the image has neither Entrypoint nor Cmd; name the program in [run] command")]
    NoCommand,
}

/// 64 MiB is the Nitro driver's own minimum (linux/nitro_enclaves.h, NE_ERR_MEM_SIZE).
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=1024 * 1024;
const CPUS: std::ops::RangeInclusive<u32> = 1..=128;

fn value(key: &'static str, problem: impl Into<String>) -> SpecError {
    SpecError::Value {
        key,
        problem: problem.into(),
    }
}

/// `enclave.toml`. Every section may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    pub name: Option<String>,
    pub run: RunOverrides,
    pub resources: Resources,
    pub network: NetworkSpec,
    pub config: Option<ConfigSpec>,
    pub logs: Logs,
}

/// What replaces the image's own settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunOverrides {
    pub command: Option<Vec<String>>,
    /// Added to the image's environment; the same name replaces.
    pub env: BTreeMap<String, String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
}

/// For the host only: changing these changes no measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    pub memory_mib: u32,
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

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSpec {
    pub egress: Vec<String>,
    pub ingress: Vec<IngressSpec>,
    /// Where the host lets relying parties ask the enclave for attestation documents; not measured. Nowhere if left out.
    pub attestation: Option<std::net::SocketAddr>,
    pub forward: Vec<ForwardSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressSpec {
    /// The port inside the enclave; measured.
    pub port: u16,
    /// Where the host listens for it; not measured. A free port on 127.0.0.1 if left out.
    pub listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardSpec {
    pub listen: String,
    pub to: String,
}

/// What the image's config says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: Option<String>,
}

impl ImageDefaults {
    /// Of an image that is not known yet: for what a spec says whatever the image is.
    pub fn any() -> ImageDefaults {
        ImageDefaults {
            cmd: vec!["/".to_owned()],
            ..ImageDefaults::default()
        }
    }
}

/// The resolved spec: what the agent runs, nothing left to decide but the user's numbers, which the image's own
/// `/etc/passwd` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredSpec {
    pub version: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    pub run: Run,
    pub network: NetworkRules,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config: Option<MeasuredConfig>,
    pub logs: Logs,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub command: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    pub working_dir: String,
    pub stop_signal: Signal,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRules {
    pub egress: Vec<Destination>,
    pub ingress: Vec<u16>,
    pub forward: Vec<Forward>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Loopback address inside the enclave.
    pub listen: std::net::SocketAddr,
    pub to: Destination,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// Whether the workload's output may leave the enclave.
    pub forward: bool,
}

impl Spec {
    pub fn parse(text: &str) -> Result<Spec, SpecError> {
        if text.len() > MAX_LEN {
            return Err(SpecError::TooLong(text.len()));
        }
        let manifest: Spec = toml::from_str(text)
            .map_err(|e| SpecError::Syntax(e.to_string().trim_end().to_owned()))?;
        let Resources { memory_mib, cpus } = manifest.resources;
        match MEMORY_MIB.contains(&memory_mib) && CPUS.contains(&cpus) {
            true => Ok(manifest),
            false => Err(value(
                "resources",
                "memory_mib is 64 to 1048576 and cpus 1 to 128",
            )),
        }
    }

    /// Merges with what the image says. The result depends on nothing else.
    pub fn resolve(&self, image: ImageDefaults) -> Result<MeasuredSpec, SpecError> {
        let Spec {
            name,
            run,
            resources: _,
            network,
            config,
            logs,
        } = self;
        let command = match &run.command {
            Some(command) => command.clone(),
            None => [image.entrypoint, image.cmd].concat(),
        };
        if command.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoCommand);
        }
        let working_dir = run.working_dir.clone().unwrap_or(image.working_dir);
        let working_dir = if working_dir.is_empty() {
            "/".to_owned()
        } else {
            working_dir
        };
        if !working_dir.starts_with('/') {
            return Err(value(
                "working_dir",
                format!("'{working_dir}' is not absolute"),
            ));
        }
        let stop_signal = run.stop_signal.clone().or(image.stop_signal);
        let spec = MeasuredSpec {
            version: 1,
            name: name.clone(),
            run: Run {
                command,
                env: merge_env(image.env, &run.env)?,
                user: run.user.clone().unwrap_or(image.user),
                working_dir,
                stop_signal: stop_signal
                    .as_deref()
                    .map_or(Ok(Signal::TERM), Signal::parse)?,
            },
            network: network.resolve()?,
            config: config.as_ref().map(ConfigSpec::resolve).transpose()?,
            logs: *logs,
        };
        spec.check()?;
        Ok(spec)
    }
}

/// Keeps the image's order, so that the result does not depend on a map's.
fn merge_env(
    image: Vec<String>,
    overrides: &BTreeMap<String, String>,
) -> Result<Vec<String>, SpecError> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, text: &str| -> Result<(), SpecError> {
        if name.is_empty() || name.contains('=') {
            return Err(value(
                "env",
                format!("'{name}' cannot be the name of a variable"),
            ));
        }
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => text.clone_into(old),
            None => env.push((name.to_owned(), text.to_owned())),
        }
        Ok(())
    };
    for entry in &image {
        let (name, text) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, text)?;
    }
    for (name, text) in overrides {
        set(name, text)?;
    }
    Ok(env
        .into_iter()
        .map(|(name, text)| format!("{name}={text}"))
        .collect())
}

impl NetworkSpec {
    fn resolve(&self) -> Result<NetworkRules, SpecError> {
        let egress = self
            .egress
            .iter()
            .map(|text| Destination::parse(text))
            .collect::<Result<_, _>>()?;
        let forward = self
            .forward
            .iter()
            .map(ForwardSpec::resolve)
            .collect::<Result<_, _>>()?;
        Ok(NetworkRules {
            egress,
            ingress: self.ingress.iter().map(|rule| rule.port).collect(),
            forward,
        })
    }
}

impl ForwardSpec {
    fn resolve(&self) -> Result<Forward, SpecError> {
        let listen: std::net::SocketAddr = self.listen.parse().map_err(|_| {
            value(
                "forward.listen",
                format!("'{}' is not ADDRESS:PORT", self.listen),
            )
        })?;
        Ok(Forward {
            listen,
            to: Destination::parse(&self.to)?,
        })
    }
}

impl MeasuredSpec {
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

    fn check(&self) -> Result<(), SpecError> {
        let MeasuredSpec {
            version,
            name,
            run,
            network,
            config,
            logs: _,
        } = self;
        if *version != 1 {
            return Err(value(
                "version",
                format!("{version} is unknown; this Redoubt reads 1"),
            ));
        }
        let no_nul = |key, text: &str| match text.contains('\0') {
            true => Err(value(key, "holds a NUL byte")),
            false => Ok(()),
        };
        no_nul("name", name.as_deref().unwrap_or_default())?;
        run.command
            .iter()
            .try_for_each(|argument| no_nul("command", argument))?;
        run.env.iter().try_for_each(|entry| no_nul("env", entry))?;
        no_nul("working_dir", &run.working_dir)?;
        no_nul("user", &run.user)?;
        for (key, count) in [
            ("network.egress", network.egress.len()),
            ("network.ingress", network.ingress.len()),
            ("network.forward", network.forward.len()),
        ] {
            if count > MAX_RULES {
                return Err(value(
                    key,
                    format!("{count} entries; the limit is {MAX_RULES}"),
                ));
            }
        }
        for forward in &network.forward {
            if !forward.listen.ip().is_loopback() {
                return Err(value(
                    "forward.listen",
                    format!("{} is not a loopback address", forward.listen),
                ));
            }
            if !network.allows(&forward.to.host, forward.to.port) {
                return Err(value(
                    "forward.to",
                    format!("{} is not in network.egress", forward.to),
                ));
            }
        }
        config
            .as_ref()
            .map_or(Ok(()), |config| config.check(name.as_deref(), network))
    }
}

impl NetworkRules {
    /// Whether the enclave may connect to `host`:`port`.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.egress
            .iter()
            .any(|destination| destination.covers(host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: vec!["/bin/app".into()],
            cmd: vec!["--serve".into()],
            env: vec!["PATH=/bin".into(), "A=1".into(), "A=2".into()],
            user: "web".into(),
            working_dir: String::new(),
            stop_signal: Some("SIGINT".into()),
        }
    }

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
    fn an_empty_manifest_is_the_image() {
        let spec = Spec::default().resolve(image()).unwrap();
        assert_eq!(spec.run.command, ["/bin/app", "--serve"]);
        assert_eq!(spec.run.env, ["PATH=/bin", "A=2"]);
        assert_eq!(
            (spec.run.working_dir.as_str(), spec.run.stop_signal.number()),
            ("/", 2)
        );
        assert_eq!(spec.network, NetworkRules::default());
        assert!(!spec.logs.forward);
    }

    #[test]
    fn resources_and_listen_addresses_are_not_measured() {
        let plain = Spec::parse("[network]\ningress = [{ port = 80 }]").unwrap();
        let rich = Spec::parse(
            "[resources]\nmemory_mib = 2048\n[network]\ningress = [{ port = 80, listen = '127.0.0.1:8080' }]",
        )
        .unwrap();
        assert_eq!(
            plain.resolve(image()).unwrap().to_json(),
            rich.resolve(image()).unwrap().to_json()
        );
    }

    #[test]
    fn the_measured_bytes_read_back_as_the_same_spec() {
        let manifest = Spec::parse(
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
        let spec = manifest.resolve(image()).unwrap();
        assert_eq!(MeasuredSpec::parse(&spec.to_json()).unwrap(), spec);
        assert_eq!(spec.run.env, ["PATH=/bin", "A=3", "B=4"]);
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

    #[test]
    fn refuses_a_forward_that_the_egress_list_does_not_cover() {
        let manifest =
            Spec::parse("[network]\nforward = [{ listen = '127.0.0.1:1', to = 'db:5432' }]")
                .unwrap();
        assert_eq!(
            manifest.resolve(image()),
            Err(value("forward.to", "db:5432 is not in network.egress"))
        );
    }

    #[test]
    fn refuses_an_image_without_a_program() {
        assert_eq!(
            Spec::default().resolve(ImageDefaults::default()),
            Err(SpecError::NoCommand)
        );
    }
}
