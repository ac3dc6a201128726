//! Any registry whose users log in themselves: the broker reports where to push, and has no
//! credentials to give.

use super::error::ProviderError;
use super::fields::{namespace, registry_host};
use super::issue::{IssueFuture, IssuedCredentials, RegistryProvider};
use api::credentials::Action;
use api::credentials::project::{Prefix, Project};
use oci::Reference;
use serde::{Deserialize, Serialize};

/// `[registry]` with `type = "docker"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerConfig {
    /// Like `localhost:5000` or `harbor.example.com`.
    #[serde(deserialize_with = "registry_host")]
    pub registry_url: String,
    /// Comes before the project in the repository's name.
    #[serde(default, deserialize_with = "namespace")]
    pub namespace: Prefix,
}

impl RegistryProvider for DockerConfig {
    fn issue<'a>(&'a self, project: &'a Project, _: Action) -> IssueFuture<'a> {
        Box::pin(std::future::ready(self.issued(project)))
    }

    /// There is nothing to pull with that a public registry would not give.
    fn projects_of(&self, _: &Reference) -> Vec<Project> {
        Vec::new()
    }
}

impl DockerConfig {
    fn issued(&self, project: &Project) -> Result<IssuedCredentials, ProviderError> {
        // The name must be a repository's, although no service is asked.
        self.namespace.join(project)?;
        Ok(IssuedCredentials {
            registry_url: self.registry_url.clone(),
            login: None,
            expires_at: None,
        })
    }
}
