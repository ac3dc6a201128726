//! `[config]`: which sealed config an enclave opens, how, and how its workload gets it.

use super::destination::Destination;
use super::error::{InvalidValue, SpecError};
use super::network::NetworkRules;
use super::sealer::SealerKey;
use super::variables;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names in the encryption context that Redoubt sets, and a spec cannot: those of the config's name
/// and version.
pub const RESERVED_CONTEXT: [&str; 2] = ["name", "version"];

/// `[config]` as written: a config that KMS unseals for this enclave alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigSpec {
    /// ARN of the key: `arn:aws:kms:REGION:ACCOUNT:key/ID`.
    pub kms_key: String,
    /// AWS region of the call to KMS; the key's own if left out.
    pub region: Option<String>,
    /// `env`, or the absolute path of a file.
    #[serde(default)]
    pub deliver: Deliver,
    /// The variables that a config with `deliver = "env"` may set, one by one.
    #[serde(default)]
    pub variables: Vec<String>,
    /// Added to the encryption context.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
    /// Configs whose version is lower are refused. 0 accepts every version.
    #[serde(default)]
    pub minimum_version: u64,
    /// Whose signature a config must carry; unsigned ones if left out.
    pub sealer: Option<SealerKey>,
    /// Opens the config in debug mode too, where the parent can read the enclave's memory.
    #[serde(default)]
    pub allow_debug: bool,
    /// `HOST:PORT` of a private endpoint; KMS's public one of the region if left out.
    pub endpoint: Option<String>,
    /// PEM of the only CA to trust for that endpoint; the public ones if left out.
    pub ca: Option<String>,
}

/// `config` of the measured spec: where the sealed config comes from and goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredConfig {
    /// ARN of the key.
    pub kms_key: String,
    /// AWS region of the call to KMS.
    pub region: String,
    /// How the workload gets it.
    pub deliver: Deliver,
    /// The variables that the config may set: at least one for [`Deliver::Env`], none for a file.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub variables: Vec<String>,
    /// What the spec adds to the encryption context, without [`RESERVED_CONTEXT`].
    pub context: BTreeMap<String, String>,
    /// Sealed configs of a lower version are refused.
    pub minimum_version: u64,
    /// Whose signature a config must carry; if absent, only unsigned configs are opened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sealer: Option<SealerKey>,
    /// Whether the config is opened in debug mode too.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub allow_debug: bool,
    /// Where KMS answers; covered by the egress list.
    pub endpoint: Destination,
    /// PEM of the only CA to trust for that endpoint; the public ones if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ca: Option<String>,
}

/// How the workload gets the config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Deliver {
    /// Lines of `NAME=value` become its environment.
    #[default]
    Env,
    /// A file at this absolute path that only its user can read, alone in a directory in memory.
    File(String),
}

impl ConfigSpec {
    pub(super) fn resolve(&self) -> Result<MeasuredConfig, SpecError> {
        let ConfigSpec {
            kms_key,
            region,
            deliver,
            variables,
            context,
            minimum_version,
            sealer,
            allow_debug,
            endpoint,
            ca,
        } = self;
        check_key(kms_key)?;
        let own = kms_key.split(':').nth(3).unwrap_or_default();
        let region = region.clone().unwrap_or_else(|| own.to_owned());
        let suffix = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        let public = format!("kms.{region}.{suffix}:443");
        Ok(MeasuredConfig {
            kms_key: kms_key.clone(),
            region,
            deliver: deliver.clone(),
            variables: variables.clone(),
            context: context.clone(),
            minimum_version: *minimum_version,
            sealer: *sealer,
            allow_debug: *allow_debug,
            endpoint: Destination::parse(endpoint.as_deref().unwrap_or(&public))?,
            ca: ca.clone(),
        })
    }
}

fn check_key(kms_key: &str) -> Result<(), SpecError> {
    match kms_key.splitn(6, ':').collect::<Vec<_>>().as_slice() {
        ["arn", _, "kms", region, _, resource]
            if !region.is_empty() && resource.starts_with("key/") =>
        {
            Ok(())
        }
        _ => Err(InvalidValue::NotAKeyArn(kms_key.to_owned()).of("config.kms_key")),
    }
}

impl MeasuredConfig {
    pub(super) fn check(
        &self,
        name: Option<&str>,
        env: &[String],
        network: &NetworkRules,
    ) -> Result<(), SpecError> {
        let MeasuredConfig {
            kms_key,
            region,
            deliver,
            variables,
            context,
            minimum_version: _,
            sealer: _,
            allow_debug: _,
            endpoint,
            ca: _,
        } = self;
        if name.is_none_or(str::is_empty) {
            return Err(InvalidValue::NameMissing.of("name"));
        }
        check_key(kms_key)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || !region.bytes().all(plain) {
            return Err(InvalidValue::Region(region.clone()).of("config.region"));
        }
        let reserved = |name: &&str| context.contains_key(*name);
        if let Some(name) = RESERVED_CONTEXT.into_iter().find(reserved) {
            return Err(InvalidValue::ReservedContext(name).of("config.context"));
        }
        variables::check(variables, *deliver == Deliver::Env, env)?;
        if !network.allows(&endpoint.host, endpoint.port) {
            return Err(InvalidValue::KmsNotInEgress(endpoint.to_string()).of("config"));
        }
        Ok(())
    }
}

impl TryFrom<String> for Deliver {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        let inner = |path: &str| {
            let names: Vec<&str> = path.split('/').skip(1).collect();
            names.len() >= 2 && names.iter().all(|name| !matches!(*name, "" | "." | ".."))
        };
        match text.as_str() {
            "env" => Ok(Deliver::Env),
            path if path.starts_with('/') && !path.contains('\0') && inner(path) => {
                Ok(Deliver::File(text))
            }
            _ => Err(InvalidValue::Deliver(text).of("config.deliver")),
        }
    }
}

impl From<Deliver> for String {
    fn from(deliver: Deliver) -> String {
        match deliver {
            Deliver::Env => "env".to_owned(),
            Deliver::File(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Caution, ImageDefaults, MeasuredSpec, Spec};

    const SEALED: &str = r#"
        name = "orders"
        [network]
        egress = ["kms.eu-west-1.amazonaws.com:443"]
        [config]
        kms_key = "arn:aws:kms:eu-west-1:111122223333:key/k"
        variables = ["TOKEN"]
        context = { app = "orders" }
        "#;

    #[test]
    fn a_config_is_resolved_to_its_keys_region_and_must_be_reachable() {
        let spec = Spec::parse(SEALED)
            .unwrap()
            .resolve(ImageDefaults::any())
            .unwrap();
        let config = spec.config.clone().unwrap();
        assert_eq!(
            (config.region.as_str(), config.deliver),
            ("eu-west-1", Deliver::Env)
        );
        assert_eq!(
            config.endpoint.to_string(),
            "kms.eu-west-1.amazonaws.com:443"
        );
        assert_eq!(MeasuredSpec::parse(&spec.to_json()).unwrap(), spec);
        let problem = |from: &str, to: &str| {
            let written = Spec::parse(&SEALED.replace(from, to)).map_err(|e| e.to_string());
            written
                .and_then(|spec| {
                    spec.resolve(ImageDefaults::any())
                        .map_err(|e| e.to_string())
                })
                .unwrap_err()
        };
        assert!(
            problem("egress", "# egress")
                .starts_with("config: add \"kms.eu-west-1.amazonaws.com:443\"")
        );
        assert!(
            problem("name = \"orders\"\n", "\n").starts_with("name: a config is sealed for a name")
        );
        assert!(problem("key/k", "alias/k").contains("is not the ARN of a key"));
        assert!(problem("{ app", "{ version").contains("'version' is set by Redoubt itself"));
        assert_eq!(
            problem("variables", "# variables"),
            "config.variables: the config becomes the environment: name every variable that it may set"
        );
        for path in ["x", "/x", "/run/../x", "/run//x", "/run/x/"] {
            let line = format!("deliver = \"{path}\"\ncontext");
            assert!(problem("context", &line).contains("is neither"), "{path}");
        }
        let china = SEALED
            .replace("eu-west-1", "cn-north-1")
            .replace("amazonaws.com:", "amazonaws.com.cn:");
        assert!(
            Spec::parse(&china)
                .unwrap()
                .resolve(ImageDefaults::any())
                .is_ok()
        );
    }

    #[test]
    fn what_a_config_may_do_is_measured_where_it_differs_from_the_default() {
        let measured = |more: &str| {
            let text = SEALED.replace("context =", &format!("{more}\ncontext ="));
            let spec = Spec::parse(&text).unwrap();
            let spec = spec.resolve(ImageDefaults::any()).unwrap();
            let json = spec.to_json();
            assert_eq!(MeasuredSpec::parse(&json).unwrap(), spec);
            (spec.config.unwrap(), String::from_utf8(json).unwrap())
        };
        let (plain, json) = measured("");
        assert!(json.contains(r#""variables":["TOKEN"]"#), "{json}");
        assert!(
            !json.contains("sealer") && !json.contains("allow_debug"),
            "{json}"
        );
        assert_eq!(plain.cautions(), []);
        let digits = "ab".repeat(32);
        let (strict, json) = measured(&format!("sealer = '{digits}'\nallow_debug = true"));
        assert!(json.contains(&digits), "{json}");
        assert!(json.contains(r#""allow_debug":true"#), "{json}");
        assert_eq!(strict.cautions(), [Caution::Debug]);
    }

    #[test]
    fn no_measured_spec_lets_a_config_override_the_environment() {
        let spec = |env: &str| {
            let text = format!("{SEALED}\n[run.env]\n{env} = '1'");
            let spec = Spec::parse(&text).unwrap();
            spec.resolve(ImageDefaults::any())
        };
        let taken = InvalidValue::VariableTaken("TOKEN".to_owned()).of("config.variables");
        assert_eq!(spec("TOKEN"), Err(taken.clone()));
        // The agent reads the measured form, and repeats the check.
        let json = String::from_utf8(spec("TOKEN2").unwrap().to_json()).unwrap();
        let forged = json.replace("TOKEN2=", "TOKEN=");
        assert_eq!(MeasuredSpec::parse(forged.as_bytes()), Err(taken));
    }
}
