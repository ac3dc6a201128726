//! Where credentials come from. One file a provider, and one line each in [`from_config`].
//!
//! # How to add one
//!
//! 1. A file here with its part of the configuration and a type that implements [`RegistryProvider`].
//! 2. A variant of [`RegistryConfig`] and a line in [`from_config`].
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

use super::project::{Project, ProjectError};
use crate::https::Https;
use eif_builder::image::{Reference, Secret};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What credentials are to be good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Pull too.
    #[default]
    Push,
    Pull,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Push => "push",
            Action::Pull => "pull",
        }
    }
}

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
    Throttled { message: String, retry_after: Duration },
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

    /// The project that an image is of, if this provider has credentials to pull it with.
    fn project_of(&self, image: &Reference) -> Option<Project>;
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

pub async fn from_config(config: &RegistryConfig, https: &Https) -> Arc<dyn RegistryProvider> {
    match config.clone() {
        RegistryConfig::Ecr(ecr) => Arc::new(ecr::Ecr::new(ecr).await),
        RegistryConfig::Docker(docker) => Arc::new(docker),
        RegistryConfig::GitLab(gitlab) => Arc::new(gitlab::GitLab::new(gitlab, https.clone())),
        RegistryConfig::Harbor(harbor) => Arc::new(harbor::Harbor::new(harbor, https.clone())),
    }
}
