//! Where credentials come from. One file a provider, and one line each in [`from_config`].
//!
//! # How to add one
//!
//! 1. A file here with its part of the configuration and a type that implements [`RegistryProvider`].
//! 2. A variant of [`RegistryConfig`], a line in [`from_config`], and one in [`RegistryConfig::check`] if it names files; a row in the README.
//! 3. A journey against a server that plays the documented API, errors included.
//!
//! `harbor.rs` is a good one to begin with: `rest.rs` has the requests, the timeouts and the meaning of refusals, so that what is left is
//! the service's own words. Whatever is issued must end by itself, and say when by the service's own word.

mod docker;
mod ecr;
mod gitlab;
mod harbor;
mod rest;

pub use docker::DockerConfig;
pub use ecr::EcrConfig;
pub use gitlab::GitLabConfig;
pub use harbor::HarborConfig;

use api::credentials::Action;
use api::credentials::project::{Prefix, Project, ProjectError};
use oci::https::Https;
use oci::reference::is_registry_host;
use oci::{Reference, Secret};
use serde::{Deserialize, Deserializer, Serialize};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How much of a service's own words goes into the log, in characters.
const MAX_SAID: usize = 600;

/// Credentials for one project, as a registry's own service issued them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Host, and port if there is one.
    pub registry_url: String,
    /// User name and password; none where the registry's users log in by themselves.
    pub login: Option<(String, Secret)>,
    /// By the issuer's own word; `None` if there is nothing to expire.
    pub expires_at: Option<SystemTime>,
}

impl Issued {
    /// When they end, for the audit log (RFC 3339).
    pub fn ends(&self) -> Option<String> {
        time::OffsetDateTime::from(self.expires_at?)
            .format(&time::format_description::well_known::Rfc3339)
            .ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The service knows no such project.
    #[error("{0}")]
    NoProject(String),
    /// It will not; asking again does not help.
    #[error("{0}")]
    Denied(String),
    /// It was asked too often.
    #[error("{message}")]
    Throttled {
        message: String,
        retry_after: Duration,
    },
    #[error("{0}")]
    TimedOut(String),
    /// It may later.
    #[error("{0}")]
    Unavailable(String),
}

pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<Issued, ProviderError>> + Send + 'a>>;

pub trait RegistryProvider: std::fmt::Debug + Send + Sync {
    /// Fresh credentials for one project and nothing else. The caller caches, and limits the time.
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> Issuing<'a>;

    /// The projects that an image may be of, likeliest first; none if this provider has no credentials to pull it with.
    fn projects_of(&self, image: &Reference) -> Vec<Project>;
}

/// `[registry]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RegistryConfig {
    Ecr(EcrConfig),
    Docker(DockerConfig),
    GitLab(GitLabConfig),
    Harbor(HarborConfig),
}

/// `host[:port]`, as it stands in an image's name.
fn registry_host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let host = String::deserialize(deserializer)?;
    let wrong = || {
        serde::de::Error::custom(format!(
            "registry_url is host or host:port, without https://, and not '{host}'"
        ))
    };
    match is_registry_host(&host) {
        true => Ok(host),
        false => Err(wrong()),
    }
}

/// `my-org/apps`, with or without a slash at its end.
fn namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    let namespace = String::deserialize(deserializer)?;
    Prefix::of_namespace(&namespace).map_err(|_| {
        serde::de::Error::custom(
            "namespace is lower-case letters and digits, with single '.', '_', '-' or '/' between them",
        )
    })
}

impl RegistryConfig {
    /// Reads the files that it names, so that a mistake shows when the daemon starts.
    pub async fn check(&self) -> Result<(), ProviderError> {
        match self {
            RegistryConfig::Ecr(_) | RegistryConfig::Docker(_) => Ok(()),
            RegistryConfig::GitLab(gitlab) => rest::secret(&gitlab.token_file).await.map(drop),
            RegistryConfig::Harbor(harbor) => rest::secret(&harbor.password_file).await.map(drop),
        }
    }
}

pub async fn from_config(config: &RegistryConfig, https: &Https) -> Arc<dyn RegistryProvider> {
    match config.clone() {
        RegistryConfig::Ecr(ecr) => Arc::new(ecr::Ecr::new(ecr).await),
        RegistryConfig::Docker(docker) => Arc::new(docker),
        RegistryConfig::GitLab(gitlab) => Arc::new(gitlab::GitLab::new(gitlab, https.clone())),
        RegistryConfig::Harbor(harbor) => Arc::new(harbor::Harbor::new(harbor, https.clone())),
    }
}

impl explain::Explain for ProviderError {
    fn code(&self) -> explain::Code {
        explain::Code::RegistryUnauthorized
    }
}
