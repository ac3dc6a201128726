//! Any registry whose users log in by themselves: the broker says where to push, and has nothing to give.

use super::{Issued, Issuing, ProviderError, RegistryProvider, namespace, registry_host};
use api::credentials::Action;
use api::credentials::project::{Prefix, Project};
use oci::Reference;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerConfig {
    /// `localhost:5000`, `harbor.example.com`.
    #[serde(deserialize_with = "registry_host")]
    pub registry_url: String,
    /// Stands before the project.
    #[serde(default, deserialize_with = "namespace")]
    pub namespace: Prefix,
}

impl RegistryProvider for DockerConfig {
    fn issue<'a>(&'a self, project: &'a Project, _: Action) -> Issuing<'a> {
        let issued = self.issued(project);
        Box::pin(std::future::ready(issued))
    }

    /// There is nothing to pull with that a public registry would not give.
    fn projects_of(&self, _: &Reference) -> Vec<Project> {
        Vec::new()
    }
}

impl DockerConfig {
    fn issued(&self, project: &Project) -> Result<Issued, ProviderError> {
        // The name must be one, even if nobody is asked about it.
        self.namespace.join(project)?;
        Ok(Issued {
            registry_url: self.registry_url.clone(),
            login: None,
            expires_at: None,
        })
    }
}
