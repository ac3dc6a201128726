//! Configuration in layers, lowest first: the defaults in this program, `default.toml`, `<RUN_MODE>.toml` and `local.toml` in the
//! configuration folder, then `HOST_PROXY_…` from the environment, where `__` separates the levels
//! (`HOST_PROXY_QEMU__ACCEL=kvm`). Unknown keys are errors. No secret belongs into any of them.

use crate::broker::{BrokerConfig, RegistryConfig};
use crate::secrets::AwsConfig;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What holds where nobody says otherwise, and why.
const DEFAULTS: &str = r#"
state_dir = "/var/lib/redoubt"   # systemd's StateDirectory
run_dir = "/run/redoubt"         # systemd's RuntimeDirectory; short, because socket paths have 107 bytes
secrets = "file"                 # works everywhere; "aws" keeps them in Secrets Manager
launcher = "qemu"                # the only one so far

[aws]
region = ""
endpoint_url = ""
kms_key = ""
secret_prefix = "redoubt"

[pull]
plain_http = []
ca_cert = ""

[qemu]
folder = ""                      # the sandbox in the cache, or whatever is on the PATH
accel = "tcg"                    # works everywhere; "kvm" needs one that can run stock guests
heartbeat_timeout_seconds = 90   # nitro-cli's own

[broker]                         # no broker without an address to listen on; [registry] says whose credentials it gives out
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub secrets: SecretsKind,
    pub launcher: crate::record::Provider,
    pub aws: AwsConfig,
    pub pull: PullConfig,
    pub qemu: QemuConfig,
    pub egress: EgressConfig,
    pub broker: BrokerConfig,
    /// Whose credentials the broker gives out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registry: Option<RegistryConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretsKind {
    Aws,
    File,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullConfig {
    /// Registries, `host` or `host:port`, that are spoken to without TLS.
    pub plain_http: BTreeSet<String>,
    /// PEM file of an authority to trust beside the system's; empty for none.
    pub ca_cert: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuConfig {
    /// Where `qemu-system-x86_64`, `vhost-device-vsock` and the folder `firmware` are; empty to look for them.
    pub folder: PathBuf,
    pub accel: Accel,
    pub heartbeat_timeout_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    Tcg,
    Kvm,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// `address/bits`, or one address.
    pub allow_networks: Vec<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{origin}: {problem}")]
    Invalid { origin: String, problem: String },
}

/// The configuration, and for each key where its value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The files that were there and were read.
    pub files: Vec<PathBuf>,
    settings: Settings,
}

/// Each key, its levels parted by dots, with its value and where that came from.
type Settings = BTreeMap<String, (Value, String)>;

/// Reads all layers. `folder` may be missing; files in it may too.
pub fn load(
    folder: &Path,
    run_mode: Option<&str>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut settings = Settings::new();
    let mut add = |layer: &Table, origin: &str| {
        let mut own = Settings::new();
        flatten(layer, "", origin, &mut own);
        merge(&mut settings, own);
    };
    add(&parse(DEFAULTS, "the built-in defaults")?, "built in");
    if let Some(mode) = run_mode
        && !mode
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return Err(ConfigError::Invalid {
            origin: "RUN_MODE".to_owned(),
            problem: "letters, digits, '-' and '_' only".to_owned(),
        });
    }
    let names = [Some("default"), run_mode, Some("local")];
    let mut files = Vec::new();
    for name in names.into_iter().flatten() {
        let path = folder.join(format!("{name}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                add(
                    &parse(&text, &path.display().to_string())?,
                    &path.display().to_string(),
                );
                files.push(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Read { path, source }),
        }
    }
    let mut variables: Vec<(String, String)> = environment
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
        .collect();
    variables.sort();
    // All of them are one layer.
    let mut layer = Settings::new();
    for (name, text) in variables {
        flatten(&variable(&name, &text)?, "", &name, &mut layer);
    }
    merge(&mut settings, layer);
    let config =
        nested(&settings)
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError::Invalid {
                origin: "configuration".to_owned(),
                problem: blame(e.to_string().trim_end(), &settings),
            })?;
    Ok(Loaded {
        config,
        files,
        settings,
    })
}

fn parse(text: &str, origin: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|e| ConfigError::Invalid {
        origin: origin.to_owned(),
        problem: e.to_string().trim_end().to_owned(),
    })
}

/// Adds to serde's message where the key came from that it names first, or the keys of the table that it speaks of.
fn blame(message: &str, settings: &Settings) -> String {
    let Some(blamed) = message.split('`').nth(1) else {
        return message.to_owned();
    };
    let below = format!("{blamed}.");
    let named = |key: &str| {
        key == blamed || key.rsplit('.').next() == Some(blamed) || key.starts_with(&below)
    };
    let origins: BTreeSet<&str> = settings
        .iter()
        .filter(|(key, _)| named(key))
        .map(|(_, (_, origin))| origin.as_str())
        .collect();
    match origins.is_empty() {
        true => message.to_owned(),
        false => format!(
            "{message} ({blamed} is set in {})",
            Vec::from_iter(origins).join(", ")
        ),
    }
}

/// `HOST_PROXY_A__B=x` as a table. A value that reads as TOML is one; anything else is a string.
fn variable(name: &str, text: &str) -> Result<Table, ConfigError> {
    let keys: Vec<String> = name
        .trim_start_matches(ENVIRONMENT_PREFIX)
        .split("__")
        .map(str::to_ascii_lowercase)
        .collect();
    if keys.iter().any(String::is_empty) {
        return Err(ConfigError::Invalid {
            origin: name.to_owned(),
            problem: "a level of the name is empty".to_owned(),
        });
    }
    let value = format!("x = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| match table.len() {
            1 => table.remove("x"),
            _ => None,
        });
    let mut value = value.unwrap_or_else(|| Value::String(text.to_owned()));
    for key in keys.iter().skip(1).rev() {
        value = Value::Table(Table::from_iter([(key.clone(), value)]));
    }
    Ok(Table::from_iter(
        keys.into_iter().take(1).map(|key| (key, value.clone())),
    ))
}

fn flatten(table: &Table, above: &str, origin: &str, settings: &mut Settings) {
    for (key, value) in table {
        let path = if above.is_empty() {
            key.clone()
        } else {
            format!("{above}.{key}")
        };
        match value {
            Value::Table(inner) => flatten(inner, &path, origin, settings),
            value => insert(settings, path, (value.clone(), origin.to_owned())),
        }
    }
}

/// A value stands in place of a table of that name, and a table in place of a value.
fn insert(settings: &mut Settings, path: String, value: (Value, String)) {
    remove_below(settings, &path);
    for (end, _) in path.match_indices('.') {
        settings.remove(path.get(..end).unwrap_or_default());
    }
    settings.insert(path, value);
}

fn remove_below(settings: &mut Settings, path: &str) {
    let prefix = format!("{path}.");
    settings.retain(|key, _| !key.starts_with(&prefix));
}

/// A table of another `type` has other keys: those of the layers below do not belong to it.
fn merge(settings: &mut Settings, layer: Settings) {
    for (path, (value, _)) in &layer {
        if let Some(table) = path.strip_suffix(".type")
            && settings
                .get(path)
                .is_some_and(|(earlier, _)| earlier != value)
        {
            remove_below(settings, table);
        }
    }
    for (path, value) in layer {
        insert(settings, path, value);
    }
}

fn nested(settings: &Settings) -> Table {
    let mut root = Table::new();
    for (path, (value, _)) in settings {
        let (above, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut levels = above.split('.').filter(|level| !level.is_empty());
        let table = levels.try_fold(&mut root, |table, level| {
            table
                .entry(level)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
        });
        // Always: a path that stands below another one was removed with it.
        if let Some(table) = table {
            table.insert(last.to_owned(), value.clone());
        }
    }
    root
}

impl Loaded {
    /// One line a key: the value and where it came from.
    pub fn describe(&self) -> String {
        let line = |(key, (value, origin)): (&String, &(Value, String))| {
            format!("{key} = {value}    # {origin}")
        };
        self.settings
            .iter()
            .map(line)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Config {
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let prefix = |octets: &[u8]| {
            let number = octets
                .iter()
                .fold(0u128, |n, &byte| n << 8 | u128::from(byte));
            let width = u32::try_from(octets.len() * 8).unwrap_or(0);
            number
                .checked_shr(width.saturating_sub(u32::from(self.bits)))
                .unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                prefix(&own.octets()) == prefix(&other.octets())
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                prefix(&own.octets()) == prefix(&other.octets())
            }
            _ => false,
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let error = || format!("'{text}' is not ADDRESS/BITS");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| error())?)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width {
            Err(error())
        } else {
            Ok(Network { address, bits })
        }
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        format!("{}/{}", network.address, network.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(
        files: &[(&str, &str)],
        mode: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let environment = environment
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        load(folder.path(), mode, environment).map_err(|e| e.to_string())
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
                ("HOST_PROXY_QEMU__HEARTBEAT_TIMEOUT_SECONDS", "5"),
                ("HOST_PROXY_PULL__PLAIN_HTTP", "['127.0.0.1:5000']"),
            ],
        )
        .unwrap();
        assert_eq!(
            (
                loaded.config.qemu.accel,
                loaded.config.qemu.heartbeat_timeout_seconds
            ),
            (Accel::Kvm, 5)
        );
        assert!(loaded.config.pull.plain_http.contains("127.0.0.1:5000"));
        let text = loaded.describe();
        assert!(
            text.contains(
                "qemu.heartbeat_timeout_seconds = 5    # HOST_PROXY_QEMU__HEARTBEAT_TIMEOUT_SECONDS"
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

    #[test]
    fn networks_are_compared_by_their_bits() {
        let network = |text: &str| Network::try_from(text.to_owned());
        let inside =
            |text: &str, address: &str| network(text).unwrap().contains(address.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.1.2") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("127.0.0.1", "127.0.0.1") && !inside("127.0.0.1", "127.0.0.2"));
        assert!(
            inside("fd00::/8", "fd12::1")
                && !inside("0.0.0.0/0", "::1")
                && inside("0.0.0.0/0", "1.2.3.4")
        );
        for bad in ["", "10.0.0.0/33", "host/8", "10.0.0.0/"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
