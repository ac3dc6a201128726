//! `[config]`: which sealed config an enclave opens, how, and how its workload gets it.

use super::{Destination, NetworkRules, SpecError, value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A config that KMS unseals for this enclave alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigSpec {
    /// ARN of the key: `arn:aws:kms:REGION:ACCOUNT:key/ID`.
    pub kms_key: String,
    /// The key's own region if left out.
    pub region: Option<String>,
    /// `env`, or the absolute path of a file.
    #[serde(default)]
    pub deliver: Deliver,
    /// Added to the encryption context.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
    /// Older configs are refused.
    #[serde(default)]
    pub minimum_version: u64,
    /// `HOST:PORT` of a private endpoint; KMS's public one of the region if left out.
    pub endpoint: Option<String>,
    /// PEM of the only authority to trust for that endpoint; the public ones if left out.
    pub ca: Option<String>,
}

/// Where the config comes from and goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredConfig {
    pub kms_key: String,
    pub region: String,
    pub deliver: Deliver,
    pub context: BTreeMap<String, String>,
    pub minimum_version: u64,
    pub endpoint: Destination,
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
    /// A file that only its user can read, alone in a folder in memory.
    File(String),
}

impl ConfigSpec {
    pub(super) fn resolve(&self) -> Result<MeasuredConfig, SpecError> {
        let ConfigSpec {
            kms_key,
            region,
            deliver,
            context,
            minimum_version,
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
            context: context.clone(),
            minimum_version: *minimum_version,
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
        _ => {
            let form = "arn:aws:kms:REGION:ACCOUNT:key/ID";
            Err(value(
                "config.kms_key",
                format!("'{kms_key}' is not the ARN of a key ({form})"),
            ))
        }
    }
}

impl MeasuredConfig {
    pub(super) fn check(
        &self,
        name: Option<&str>,
        network: &NetworkRules,
    ) -> Result<(), SpecError> {
        let MeasuredConfig {
            kms_key,
            region,
            deliver: _,
            context,
            minimum_version: _,
            endpoint,
            ca: _,
        } = self;
        if name.is_none_or(str::is_empty) {
            return Err(value(
                "name",
                "a config is sealed for a name: give the spec one",
            ));
        }
        check_key(kms_key)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || !region.bytes().all(plain) {
            return Err(value(
                "config.region",
                format!("'{region}' is not a region"),
            ));
        }
        if let Some(reserved) = crate::sealed::RESERVED
            .iter()
            .find(|name| context.contains_key(**name))
        {
            return Err(value(
                "config.context",
                format!("'{reserved}' is set by Redoubt itself"),
            ));
        }
        match endpoint.host.starts_with("*.") || !network.allows(&endpoint.host, endpoint.port) {
            true => Err(value(
                "config",
                format!("add \"{endpoint}\" to network.egress: that is where KMS answers"),
            )),
            false => Ok(()),
        }
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
            _ => Err(value(
                "config.deliver",
                format!(
                    "'{text}' is neither \"env\" nor a file in a folder of its own, like \"/run/config/app.json\""
                ),
            )),
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
    use crate::spec::tests::image;
    use crate::spec::{MeasuredSpec, Spec};

    const SEALED: &str = r#"
        name = "orders"
        [network]
        egress = ["kms.eu-west-1.amazonaws.com:443"]
        [config]
        kms_key = "arn:aws:kms:eu-west-1:111122223333:key/k"
        context = { app = "orders" }
        "#;

    #[test]
    fn a_config_is_resolved_to_its_keys_region_and_must_be_reachable() {
        let spec = Spec::parse(SEALED).unwrap().resolve(image()).unwrap();
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
            let manifest = Spec::parse(&SEALED.replace(from, to)).map_err(|e| e.to_string());
            manifest
                .and_then(|manifest| manifest.resolve(image()).map_err(|e| e.to_string()))
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
        for path in ["x", "/x", "/run/../x", "/run//x", "/run/x/"] {
            let line = format!("deliver = \"{path}\"\ncontext");
            assert!(problem("context", &line).contains("is neither"), "{path}");
        }
        let china = SEALED
            .replace("eu-west-1", "cn-north-1")
            .replace("amazonaws.com:", "amazonaws.com.cn:");
        assert!(Spec::parse(&china).unwrap().resolve(image()).is_ok());
    }
}
