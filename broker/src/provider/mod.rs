//! Where credentials come from. One file for each provider, and one line each in [`from_config`].
//!
//! # How to add one
//!
//! 1. A file here with its part of the configuration and a type that implements
//!    [`RegistryProvider`].
//! 2. A variant of [`RegistryConfig`], a line in [`from_config`], one in [`RegistryConfig::check`]
//!    if it names files, and a row in the documentation of `[registry]`.
//! 3. A journey against a server that plays the documented API, errors included.
//!
//! `harbor.rs` is a good example: `rest.rs` has the requests, the timeouts and the meaning of error
//! answers, so that only what is particular to the service is left. Whatever is issued must expire,
//! and the service must report when.

mod docker;
mod ecr;
mod error;
mod fields;
mod gitlab;
mod harbor;
mod issue;
mod rest;

pub use docker::DockerConfig;
pub use ecr::EcrConfig;
pub use error::ProviderError;
pub use gitlab::{GitLabConfig, TokenLifetime};
pub use harbor::HarborConfig;
pub use issue::{IssueFuture, IssuedCredentials, RegistryProvider};

use oci::https::Https;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `[registry]`: the registry that credentials are issued for, by its `type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RegistryConfig {
    /// Amazon ECR.
    Ecr(EcrConfig),
    /// Any registry whose users log in themselves.
    Docker(DockerConfig),
    /// GitLab's container registry.
    GitLab(GitLabConfig),
    /// Harbor.
    Harbor(HarborConfig),
}

impl RegistryConfig {
    /// Reads the files that it names, so that a mistake shows when the daemon starts.
    ///
    /// # Errors
    /// [`ProviderError::Denied`] if a file is missing, empty, or longer than 64 KiB.
    pub async fn check(&self) -> Result<(), ProviderError> {
        match self {
            RegistryConfig::Ecr(_) | RegistryConfig::Docker(_) => Ok(()),
            RegistryConfig::GitLab(gitlab) => rest::read_secret(&gitlab.token_file).await.map(drop),
            RegistryConfig::Harbor(harbor) => {
                rest::read_secret(&harbor.password_file).await.map(drop)
            }
        }
    }
}

impl RegistryConfig {
    /// Where a request without credentials shows that the service can be reached. `is_plain` says
    /// which registries, `host` or `host:port`, are reached without TLS.
    pub fn service_url(&self, is_plain: impl Fn(&str) -> bool) -> String {
        let registry = |host: &str| {
            let scheme = if is_plain(host) { "http" } else { "https" };
            format!("{scheme}://{host}/v2/")
        };
        match self {
            RegistryConfig::Ecr(ecr) => match &ecr.endpoint_url {
                Some(url) => url.as_str().to_owned(),
                None => registry(&ecr.host()),
            },
            RegistryConfig::Docker(docker) => registry(&docker.registry_url),
            RegistryConfig::GitLab(gitlab) => gitlab.url.as_str().to_owned(),
            RegistryConfig::Harbor(harbor) => harbor.url.as_str().to_owned(),
        }
    }
}

/// The provider of a configuration. Makes no request to the registry's service yet.
pub async fn from_config(config: &RegistryConfig, https: &Https) -> Arc<dyn RegistryProvider> {
    match config.clone() {
        RegistryConfig::Ecr(ecr) => Arc::new(ecr::Ecr::new(ecr).await),
        RegistryConfig::Docker(docker) => Arc::new(docker),
        RegistryConfig::GitLab(gitlab) => Arc::new(gitlab::GitLab::new(gitlab, https.clone())),
        RegistryConfig::Harbor(harbor) => Arc::new(harbor::Harbor::new(harbor, https.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_a_place_that_answers() {
        for (config, expected) in [
            (
                r#"{"type": "docker", "registry_url": "localhost:5000"}"#,
                "http://localhost:5000/v2/",
            ),
            (
                r#"{"type": "docker", "registry_url": "r.example"}"#,
                "https://r.example/v2/",
            ),
            (
                r#"{"type": "ecr", "region": "us-east-1", "account_id": "111122223333",
                    "push_role_arn": "arn:aws:iam::111122223333:role/push"}"#,
                "https://111122223333.dkr.ecr.us-east-1.amazonaws.com/v2/",
            ),
            (
                r#"{"type": "harbor", "url": "https://h.example/", "username": "u",
                    "password_file": "/p"}"#,
                "https://h.example",
            ),
        ] {
            let config: RegistryConfig = serde_json::from_str(config).unwrap();
            let url = config.service_url(|host| host == "localhost:5000");
            assert_eq!(url, expected);
        }
    }
}
