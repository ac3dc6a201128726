//! `[registry]` with `type = "ecr"`, and the host name that follows from it.

use crate::provider::fields::optional_registry_host;
use api::credentials::project::Prefix;
use oci::https::ServiceUrl;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// `[registry]` with `type = "ecr"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcrConfig {
    /// Like `us-east-1`.
    #[serde(deserialize_with = "region")]
    pub region: String,
    /// Of the registry: twelve digits.
    #[serde(deserialize_with = "account")]
    pub account_id: String,
    /// Comes before the project in the repository's name.
    #[serde(default)]
    pub repo_prefix: Prefix,
    /// Assumed first, if the daemon's own role may not assume the other.
    #[serde(default, deserialize_with = "optional_role")]
    pub role_arn: Option<String>,
    /// Assumed for each project, under its session policy.
    #[serde(deserialize_with = "role")]
    pub push_role_arn: String,
    /// Uses endpoints and hosts that are FIPS 140 validated.
    #[serde(default)]
    pub fips: bool,
    /// Uses endpoints and hosts that are reached by IPv4 and IPv6.
    #[serde(default)]
    pub dual_stack: bool,
    /// Replaces AWS's own endpoints of STS and ECR.
    #[serde(default)]
    pub endpoint_url: Option<ServiceUrl>,
    /// Replaces the registry's own host name, say behind a proxy: `host` or `host:port`.
    #[serde(default, deserialize_with = "optional_registry_host")]
    pub registry_url: Option<String>,
}

/// It goes into ARNs and host names.
fn region<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let region = String::deserialize(deserializer)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !region.is_empty() && region.bytes().all(plain) {
        Ok(region)
    } else {
        Err(Error::custom("region must be like us-east-1"))
    }
}

fn role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let role = String::deserialize(deserializer)?;
    if role.starts_with("arn:") && role.contains(":role/") {
        Ok(role)
    } else {
        Err(Error::custom(
            "a role must be arn:aws:iam::<account>:role/<name>",
        ))
    }
}

/// Empty for none: a layer of the configuration must be able to unset what the one below sets.
fn optional_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match String::deserialize(deserializer)? {
        role if role.is_empty() => Ok(None),
        text => role(serde::de::value::StringDeserializer::new(text)).map(Some),
    }
}

/// Digits are a number to TOML, unless they start with a zero.
fn account<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Account {
        Text(String),
        Number(u64),
    }
    let text = match Account::deserialize(deserializer)? {
        Account::Text(text) => text,
        Account::Number(number) => number.to_string(),
    };
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text)
    } else {
        Err(Error::custom("account_id must have twelve digits"))
    }
}

impl EcrConfig {
    /// The region's partition and domain (botocore, `partitions.json`).
    pub(super) fn partition(&self) -> (&'static str, &'static str) {
        const PARTITIONS: [(&str, &str, &str); 7] = [
            ("cn-", "aws-cn", "amazonaws.com.cn"),
            ("us-gov-", "aws-us-gov", "amazonaws.com"),
            ("eusc-", "aws-eusc", "amazonaws.eu"),
            ("us-iso-", "aws-iso", "c2s.ic.gov"),
            ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
            ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
            ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
        ];
        let found = PARTITIONS
            .iter()
            .find(|(prefix, ..)| self.region.starts_with(prefix));
        found.map_or(("aws", "amazonaws.com"), |(_, partition, domain)| {
            (partition, domain)
        })
    }

    /// The registry's host (ECR user guide, "Private registry", and "Dual-stack and FIPS
    /// endpoints").
    pub(in crate::provider) fn host(&self) -> String {
        let EcrConfig {
            account_id,
            region,
            registry_url,
            ..
        } = self;
        if let Some(host) = registry_url {
            return host.clone();
        }
        let fips = if self.fips { "-fips" } else { "" };
        match (self.dual_stack, self.partition()) {
            (true, ("aws-cn", _)) => {
                format!("{account_id}.dkr-ecr{fips}.{region}.on.amazonwebservices.com.cn")
            }
            (true, _) => format!("{account_id}.dkr-ecr{fips}.{region}.on.aws"),
            (false, (_, domain)) => format!("{account_id}.dkr.ecr{fips}.{region}.{domain}"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// With the prefix `rise/`.
    pub(in crate::provider::ecr) fn config(
        region: &str,
        fips: bool,
        dual_stack: bool,
    ) -> EcrConfig {
        EcrConfig {
            region: region.to_owned(),
            account_id: "123456789012".to_owned(),
            repo_prefix: Prefix::try_from("rise/".to_owned()).unwrap(),
            role_arn: None,
            push_role_arn: "arn:aws:iam::123456789012:role/push".to_owned(),
            fips,
            dual_stack,
            endpoint_url: None,
            registry_url: None,
        }
    }

    #[test]
    fn hosts_follow_the_partition() {
        for (region, fips, dual, host) in [
            (
                "us-east-1",
                false,
                false,
                "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            ),
            (
                "us-gov-west-1",
                true,
                false,
                "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                "cn-north-1",
                false,
                false,
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            ),
            (
                "eu-west-1",
                false,
                true,
                "123456789012.dkr-ecr.eu-west-1.on.aws",
            ),
            (
                "us-east-1",
                true,
                true,
                "123456789012.dkr-ecr-fips.us-east-1.on.aws",
            ),
            (
                "eusc-de-east-1",
                false,
                false,
                "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            ),
            (
                "us-isob-east-1",
                false,
                false,
                "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
            ),
        ] {
            assert_eq!(config(region, fips, dual).host(), host);
        }
    }

    #[test]
    fn account_ids_have_twelve_digits_however_they_are_written() {
        let parse = |id: &str| {
            let text =
                format!("region = 'r'\naccount_id = {id}\npush_role_arn = 'arn:aws:iam::1:role/x'");
            toml::from_str::<EcrConfig>(&text).map(|config| config.account_id)
        };
        assert_eq!(parse("123456789012").unwrap(), "123456789012");
        assert_eq!(parse("'012345678901'").unwrap(), "012345678901");
        let region =
            "region = 'us-*'\naccount_id = '123456789012'\npush_role_arn = 'arn:aws:iam::1:role/x'";
        assert!(toml::from_str::<EcrConfig>(region).is_err());
        assert!(
            toml::from_str::<EcrConfig>(
                "region = 'r'\naccount_id = '123456789012'\npush_role_arn = 'x'"
            )
            .is_err()
        );
        assert!(parse("1").is_err() && parse("'12345678901x'").is_err());
    }
}
