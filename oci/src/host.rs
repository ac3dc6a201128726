//! Registry hosts: one name for each, and whose registry it is.

/// Docker Hub's host, by the name that serves the API.
pub(crate) const DOCKER_HUB: &str = "registry-1.docker.io";

/// The one name of a registry host (with an optional port): lower case, and `registry-1.docker.io`
/// for the four names of Docker Hub. Does not check that it is a host;
/// [`crate::reference::is_registry_host`] does.
pub fn canonical_host(host: &str) -> String {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            DOCKER_HUB.to_owned()
        }
        other => other.to_ascii_lowercase(),
    }
}

/// Whose registry a host name is. It decides which advice a person gets about credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryKind {
    /// Docker Hub, by any of its names.
    DockerHub,
    /// GitHub's container registry, `ghcr.io`.
    GitHub,
    /// Amazon ECR, in any partition.
    Ecr,
    /// Google's Artifact Registry and the older Container Registry.
    GoogleArtifactRegistry,
    /// Azure's container registry.
    Azure,
    /// Any other host.
    SelfHosted,
}

impl RegistryKind {
    /// By host name alone; a port does not matter.
    pub fn of(host: &str) -> RegistryKind {
        let name = host.split(':').next().unwrap_or(host);
        let amazon = [
            ".amazonaws.com",
            ".amazonaws.com.cn",
            ".on.aws",
            ".amazonaws.eu",
        ];
        if canonical_host(name) == DOCKER_HUB {
            RegistryKind::DockerHub
        } else if name == "ghcr.io" {
            RegistryKind::GitHub
        } else if name.contains(".dkr") && amazon.iter().any(|suffix| name.ends_with(suffix)) {
            RegistryKind::Ecr
        } else if name == "gcr.io" || name.ends_with(".gcr.io") || name.ends_with("-docker.pkg.dev")
        {
            RegistryKind::GoogleArtifactRegistry
        } else if name.ends_with(".azurecr.io") {
            RegistryKind::Azure
        } else {
            RegistryKind::SelfHosted
        }
    }

    /// One sentence: which credentials this registry takes, or what to check about those it
    /// refused.
    pub fn credentials_advice(self) -> &'static str {
        match self {
            RegistryKind::DockerHub => {
                "Use your Docker Hub user name and an access token with Read permission."
            }
            RegistryKind::GitHub => {
                "Use your GitHub user name and a classic personal access token with read:packages; \
                 ghcr.io does not accept fine-grained tokens."
            }
            RegistryKind::Ecr => {
                "Use the user name AWS and a fresh password from 'aws ecr get-login-password'; \
                 it is valid for 12 hours."
            }
            RegistryKind::GoogleArtifactRegistry => {
                "Use the user name _json_key with the service account's JSON key, \
                 or oauth2accesstoken with an access token."
            }
            RegistryKind::Azure => {
                "Use the registry's user name and password, or a service principal's id and secret."
            }
            RegistryKind::SelfHosted => {
                "Check the user name and password, and that the account may pull this repository."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_only_looks_like_amazon_is_not_ecr() {
        assert_eq!(
            RegistryKind::of("1.dkr.ecr.us-east-1.amazonaws.com.evil.example"),
            RegistryKind::SelfHosted
        );
    }
}
