//! Configuration in layers, lowest first: the defaults in this program, `default.toml`, `<RUN_MODE>.toml` and `local.toml` in the
//! configuration directory, then `HOST_PROXY_…` from the environment, where `__` separates the levels
//! (`HOST_PROXY_QEMU__ACCEL=kvm`). Unknown keys are errors. No secret belongs into any of them.

mod layers;

use self::layers::{Settings, variable};
use broker::{BrokerConfig, RegistryConfig};
use eif_builder::artifacts::{self, ArtifactError};
use explain::{Code, Explain};
use launch::QemuConfig;
use secrets::{AwsConfig, KmsConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::Table;
use wire::network::Network;

/// What holds unless a layer above says otherwise, and why.
const DEFAULTS: &str = r#"
state_dir = "/var/lib/redoubt"   # systemd's StateDirectory
run_dir = "/run/redoubt"         # systemd's RuntimeDirectory; short, because socket paths have at most 107 bytes
secrets = "file"                 # works everywhere; "aws" keeps them in Secrets Manager

[aws]
region = ""
endpoint_url = ""
kms_key = ""
secret_prefix = "redoubt"

[kms]
role_arn = ""                    # requests of enclaves are signed as the daemon; a role is narrowed to one config for each launch

[pull]
plain_http = []
ca_cert = ""

[build]
kernel = ""                      # $REDOUBT_LIB, beside this program, /usr/lib/redoubt, the sandbox
agent = ""

[launch]
heartbeat_timeout_seconds = 90   # nitro-cli's own
settle_milliseconds = 1000       # a workload that ends sooner never ran

[qemu]
directory = ""                   # the sandbox in the cache, or what is on the PATH
accel = "tcg"                    # works everywhere; "kvm" needs one that can run stock guests

[broker]                         # no broker without an address to listen on; [registry] names whose credentials it issues
listen = ""
tls_cert = ""
tls_key = ""
jwt_secret_file = ""
jwks_file = ""
jwks_url = ""
audience = ""
issuer = ""
rules_file = ""
rate_per_minute = 60             # a CI job asks once or twice

[egress]
allow_networks = []              # exceptions from the refusal of loopback, link-local and private-use addresses
"#;
const ENVIRONMENT_PREFIX: &str = "HOST_PROXY_";

/// The daemon's configuration, merged from all layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonConfig {
    /// Where the store, secrets, sealed configs and images live.
    pub state_dir: PathBuf,
    /// Where sockets live; a short path.
    pub run_dir: PathBuf,
    /// Where registry credentials live.
    pub secrets: SecretsKind,
    /// What runs enclaves unless a request names another.
    pub launcher: api::Provider,
    /// `[aws]`
    pub aws: AwsConfig,
    /// `[kms]`: who signs the requests of enclaves.
    pub kms: KmsConfig,
    /// `[pull]`
    pub pull: PullConfig,
    /// `[build]`
    pub build: BuildConfig,
    /// `[launch]`
    pub launch: LaunchConfig,
    /// `[qemu]`
    pub qemu: QemuConfig,
    /// `[egress]`
    pub egress: EgressConfig,
    /// `[broker]`
    pub broker: BrokerConfig,
    /// `[registry]`: whose credentials the broker issues.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registry: Option<RegistryConfig>,
}

/// Where registry credentials live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretsKind {
    /// In AWS Secrets Manager.
    Aws,
    /// In encrypted files below the state directory.
    File,
}

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullConfig {
    /// Registries, `host` or `host:port`, that are reached without TLS.
    pub plain_http: BTreeSet<String>,
    /// PEM file of a CA to trust beside the system's; empty for none.
    pub ca_cert: PathBuf,
}

/// What enclave images are made of beside the container image; empty paths are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildConfig {
    /// The enclave kernel.
    pub kernel: PathBuf,
    /// The enclave agent, a static program.
    pub agent: PathBuf,
}

/// What holds for every launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchConfig {
    /// How long an enclave has from its start to its first byte.
    pub heartbeat_timeout_seconds: u64,
    /// How long a workload must run before its enclave is attested and DEPLOYED.
    pub settle_milliseconds: u64,
}

/// What the host lets out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// Exceptions from the refusal of internal addresses: `address/bits`, or one address.
    pub allow_networks: Vec<Network>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A file is there and cannot be read.
    #[error("{path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A layer is not TOML, or has keys or values that do not exist.
    #[error("{origin}: {problem}")]
    Invalid { origin: String, problem: String },
}

impl Explain for ConfigurationError {
    fn code(&self) -> Code {
        Code::ConfigurationInvalid
    }
}

/// The configuration, and for each key where its value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What all layers come to.
    pub config: DaemonConfig,
    /// The files that exist and were read.
    pub files: Vec<PathBuf>,
    settings: Settings,
}

/// Reads all layers. `directory` may be missing; files in it may too. Blocks.
///
/// # Errors
/// A layer cannot be read, is not TOML, or has keys or values that do not exist.
pub fn load(
    directory: &Path,
    run_mode: Option<&str>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigurationError> {
    let mut settings = Settings::default();
    settings.add(&parse(DEFAULTS, "the built-in defaults")?, "built in");
    let launcher = toml::Value::try_from(launch::default_provider());
    let launcher = launcher.map_err(|e| invalid("launcher", e.to_string()))?;
    settings.add(
        &Table::from_iter([("launcher".to_owned(), launcher)]),
        "found on this machine",
    );
    let files = add_files(&mut settings, directory, run_mode)?;
    settings.merge(from_environment(environment)?);
    let config = settings.nested().try_into();
    let config = config.map_err(|e: toml::de::Error| {
        invalid(
            "configuration",
            settings.name_origin(e.to_string().trim_end()),
        )
    })?;
    Ok(Loaded {
        config,
        files,
        settings,
    })
}

/// The files that exist, lowest first.
fn add_files(
    settings: &mut Settings,
    directory: &Path,
    run_mode: Option<&str>,
) -> Result<Vec<PathBuf>, ConfigurationError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if run_mode.is_some_and(|mode| !mode.bytes().all(allowed)) {
        return Err(invalid(
            "RUN_MODE",
            "only letters, digits, '-' and '_' are allowed",
        ));
    }
    let mut files = Vec::new();
    for name in [Some("default"), run_mode, Some("local")]
        .into_iter()
        .flatten()
    {
        let path = directory.join(format!("{name}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let origin = path.display().to_string();
                let mut layer = Settings::default();
                layer.add(&parse(&text, &origin)?, &origin);
                settings.merge(layer);
                files.push(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigurationError::Read { path, source }),
        }
    }
    Ok(files)
}

/// All variables are one layer.
fn from_environment(
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigurationError> {
    let mut variables: Vec<(String, String)> = environment
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
        .collect();
    variables.sort();
    let mut layer = Settings::default();
    for (name, text) in variables {
        let table = variable(&name, ENVIRONMENT_PREFIX, &text);
        let table = table.ok_or_else(|| invalid(&name, "a level of the name is empty"))?;
        layer.add(&table, &name);
    }
    Ok(layer)
}

fn invalid(origin: &str, problem: impl Into<String>) -> ConfigurationError {
    ConfigurationError::Invalid {
        origin: origin.to_owned(),
        problem: problem.into(),
    }
}

fn parse(text: &str, origin: &str) -> Result<Table, ConfigurationError> {
    text.parse()
        .map_err(|e: toml::de::Error| invalid(origin, e.to_string().trim_end()))
}

impl Loaded {
    /// One line a key: the value and where it came from.
    pub fn describe(&self) -> String {
        self.settings.describe()
    }
}

impl BuildConfig {
    /// The kernel or the agent: the configured one, or that of the usual places.
    pub(crate) fn find(&self, name: &'static str) -> Result<PathBuf, ArtifactError> {
        let path = if name == artifacts::KERNEL {
            &self.kernel
        } else {
            &self.agent
        };
        artifacts::find(
            name,
            Some(path.as_path()).filter(|path| !path.as_os_str().is_empty()),
        )
    }
}

impl DaemonConfig {
    /// Where the API listens.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use launch::Accel;

    fn with(
        files: &[(&str, &str)],
        mode: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Loaded, String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let environment = environment
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        load(directory.path(), mode, environment).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_whole() {
        let config = with(&[], None, &[]).unwrap().config;
        assert_eq!(
            (config.secrets, config.qemu.accel),
            (SecretsKind::File, Accel::Tcg)
        );
    }

    const LAYERS: [&str; 5] = [
        "built in",
        "default.toml",
        "production.toml",
        "local.toml",
        "the environment",
    ];

    /// The configuration where these layers, by their numbers, say their own number.
    fn said_by(layers: &[usize], mode: Option<&str>) -> (PathBuf, Option<RegistryConfig>) {
        let text = |n: &usize| {
            format!("run_dir = '/{n}'\n[registry]\ntype = 'docker'\nregistry_url = 'r.example:{n}'")
        };
        let files: Vec<(&str, String)> = layers
            .iter()
            .filter(|n| (1..=3).contains(*n))
            .map(|n| (LAYERS[*n], text(n)))
            .collect();
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        let variables = [
            ("HOST_PROXY_RUN_DIR", "/4"),
            ("HOST_PROXY_REGISTRY__TYPE", "docker"),
            ("HOST_PROXY_REGISTRY__REGISTRY_URL", "r.example:4"),
        ];
        let variables = if layers.contains(&4) {
            &variables[..]
        } else {
            &[]
        };
        let config = with(&files, mode, variables).unwrap().config;
        (config.run_dir, config.registry)
    }

    #[test]
    fn for_each_pair_of_layers_the_higher_one_wins() {
        for (high, upper) in LAYERS.iter().enumerate() {
            for (low, lower) in LAYERS.iter().enumerate().take(high) {
                let (run_dir, registry) = said_by(&[low, high], Some("production"));
                assert_eq!(
                    run_dir,
                    Path::new(&format!("/{high}")),
                    "{upper} over {lower}"
                );
                let Some(RegistryConfig::Docker(docker)) = registry else {
                    panic!("{upper} over {lower}")
                };
                assert_eq!(
                    docker.registry_url,
                    format!("r.example:{high}"),
                    "{upper} over {lower}"
                );
            }
        }
        assert_eq!(
            said_by(&[], Some("production")),
            (PathBuf::from("/run/redoubt"), None)
        );
        // Without the mode its file does not count, and with another neither.
        for mode in [None, Some("staging")] {
            assert_eq!(said_by(&[1, 2], mode).0, Path::new("/1"));
        }
    }

    #[test]
    fn a_registry_of_another_type_inherits_nothing() {
        let docker =
            "[registry]\ntype = 'docker'\nregistry_url = 'localhost:5000'\nnamespace = 'n'";
        let ecr = [
            ("HOST_PROXY_REGISTRY__TYPE", "ecr"),
            ("HOST_PROXY_REGISTRY__REGION", "us-east-1"),
            ("HOST_PROXY_REGISTRY__ACCOUNT_ID", "123456789012"),
            (
                "HOST_PROXY_REGISTRY__PUSH_ROLE_ARN",
                "arn:aws:iam::123456789012:role/push",
            ),
        ];
        let loaded = with(&[("default.toml", docker)], None, &ecr).unwrap();
        assert!(matches!(
            loaded.config.registry,
            Some(RegistryConfig::Ecr(_))
        ));
        assert!(!loaded.describe().contains("localhost:5000"));
        // Of the same type it does.
        let renamed = [("HOST_PROXY_REGISTRY__NAMESPACE", "other")];
        let Some(RegistryConfig::Docker(config)) =
            with(&[("default.toml", docker)], None, &renamed)
                .unwrap()
                .config
                .registry
        else {
            panic!()
        };
        assert_eq!(
            (
                config.registry_url.as_str(),
                String::from(config.namespace).as_str()
            ),
            ("localhost:5000", "other/")
        );
    }

    #[test]
    fn a_table_and_a_value_do_not_mix() {
        let error = with(&[("local.toml", "qemu = 3")], None, &[]).unwrap_err();
        assert!(error.contains("invalid type"), "{error}");
        assert!(
            with(
                &[
                    ("default.toml", "qemu = 3"),
                    ("local.toml", "[qemu]\naccel = 'kvm'")
                ],
                None,
                &[]
            )
            .is_err()
        );
    }

    #[test]
    fn a_layer_changes_single_keys_of_a_table() {
        let loaded = with(
            &[("local.toml", "[qemu]\naccel = 'kvm'")],
            None,
            &[
                ("HOST_PROXY_LAUNCH__HEARTBEAT_TIMEOUT_SECONDS", "5"),
                ("HOST_PROXY_PULL__PLAIN_HTTP", "['127.0.0.1:5000']"),
            ],
        )
        .unwrap();
        assert_eq!(
            (
                loaded.config.qemu.accel,
                loaded.config.launch.heartbeat_timeout_seconds
            ),
            (Accel::Kvm, 5)
        );
        assert!(loaded.config.pull.plain_http.contains("127.0.0.1:5000"));
        let text = loaded.describe();
        assert!(
            text.contains(
                "launch.heartbeat_timeout_seconds = 5    # HOST_PROXY_LAUNCH__HEARTBEAT_TIMEOUT_SECONDS"
            ),
            "{text}"
        );
        assert!(text.contains("secrets = \"file\"    # built in"), "{text}");
    }

    #[test]
    fn unknown_keys_and_values_say_where_they_stand() {
        let error = with(&[], None, &[("HOST_PROXY_QEMU__COLOUR", "red")]).unwrap_err();
        assert!(
            error.contains("colour") && error.contains("HOST_PROXY_QEMU__COLOUR"),
            "{error}"
        );
        assert!(
            with(&[("local.toml", "secrets = 'paper'")], None, &[])
                .unwrap_err()
                .contains("paper")
        );
        assert!(
            with(&[("local.toml", "[")], None, &[])
                .unwrap_err()
                .contains("local.toml")
        );
        assert!(with(&[], Some("../etc"), &[]).is_err());
    }
}
