//! Where credentials come from. One file a provider, and one line each in [`from_config`].
//!
//! # How to add one
//!
//! 1. A file here with its part of the configuration and a type that implements [`RegistryProvider`].
//! 2. A variant of [`RegistryConfig`] and a line in [`from_config`].
//! 3. A journey against a server that plays the documented API, errors included.

mod docker;
mod ecr;

pub use docker::DockerConfig;
pub use ecr::EcrConfig;

use super::project::{Project, ProjectError};
use eif_builder::image::Secret;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

/// What credentials are to be good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Pull too.
    #[default]
    Push,
    Pull,
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

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The provider's service will not; asking again does not help.
    #[error("{0}")]
    Denied(String),
    /// It may later.
    #[error("{0}")]
    Unavailable(String),
}

pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<Issued, ProviderError>> + Send + 'a>>;

pub trait RegistryProvider: std::fmt::Debug + Send + Sync {
    /// Fresh credentials for one project and nothing else. The caller caches, and limits the time.
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> Issuing<'a>;
}

/// `[registry]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RegistryConfig {
    Ecr(EcrConfig),
    Docker(DockerConfig),
}

pub async fn from_config(config: &RegistryConfig) -> Box<dyn RegistryProvider> {
    match config {
        RegistryConfig::Ecr(ecr) => Box::new(ecr::Ecr::new(ecr.clone()).await),
        RegistryConfig::Docker(docker) => Box::new(docker.clone()),
    }
}
