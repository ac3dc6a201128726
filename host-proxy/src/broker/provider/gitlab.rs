//! GitLab's container registry: a project deploy token that may read, or read and write, the registry of one project until it expires
//! (GitLab documentation, "Deploy tokens API", "Project deploy tokens"). Nobody but the project's maintainers may make them.

use super::rest::{Rest, secret, sensitive};
use super::{Action, Issued, Issuing, ProviderError, RegistryProvider};
use crate::broker::project::{Prefix, Project};
use crate::https::{Https, ServiceUrl};
use eif_builder::image::{Reference, Secret};
use hyper::header::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How long a token is good for, by default in seconds.
const LIFETIME: u32 = 3600;
/// Our tokens among a project's.
const NAME: &str = "redoubt";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitLabConfig {
    /// `https://gitlab.example.com`.
    pub url: ServiceUrl,
    /// `registry.gitlab.example.com`.
    pub registry_url: String,
    /// Stands before the project: `my-org/apps`.
    #[serde(default)]
    pub namespace: String,
    /// A file with an access token of a maintainer, with the scope `api`.
    pub token_file: PathBuf,
    #[serde(default = "lifetime")]
    pub lifetime_seconds: u32,
}

fn lifetime() -> u32 {
    LIFETIME
}

#[derive(Debug)]
pub(super) struct GitLab {
    config: GitLabConfig,
    https: Https,
}

/// `API::Entities::DeployTokenWithToken`.
#[derive(Deserialize)]
struct Created {
    id: u64,
    username: String,
    token: Secret,
    expires_at: Option<String>,
}

/// `API::Entities::DeployToken`.
#[derive(Deserialize)]
struct Listed {
    id: u64,
    name: String,
    #[serde(default)]
    expired: bool,
}

impl GitLab {
    pub(super) fn new(config: GitLabConfig, https: Https) -> GitLab {
        GitLab { config, https }
    }

    async fn token(&self, project: &Project, action: Action) -> Result<Issued, ProviderError> {
        let repository = Prefix::of_namespace(&self.config.namespace)?.join(project)?;
        let token = secret(&self.config.token_file).await?;
        let api = Rest {
            https: &self.https,
            service: "GitLab",
            base: format!("{}/api/v4", self.config.url.as_str()),
            authorization: (HeaderName::from_static("private-token"), sensitive(token.expose())?),
        };
        // "URL-encoded path of the project": the slashes are the only letters in it that need it.
        let tokens = format!("/projects/{}/deploy_tokens", repository.as_str().replace('/', "%2F"));
        let scopes = match action {
            Action::Pull => vec!["read_registry"],
            Action::Push => vec!["read_registry", "write_registry"],
        };
        let end = OffsetDateTime::now_utc() + Duration::from_secs(self.config.lifetime_seconds.into());
        let end = end.replace_nanosecond(0).unwrap_or(end).format(&Rfc3339);
        let end = end.map_err(|e| ProviderError::Denied(format!("lifetime_seconds: {e}")))?;
        let order = json!({ "name": NAME, "scopes": scopes, "expires_at": end });
        let created: Created = api.post(&tokens, &order).await?;
        let expires_at =
            created.expires_at.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        let Some(expires_at) = expires_at else {
            api.delete(&format!("{tokens}/{}", created.id)).await?;
            return Err(ProviderError::Unavailable(
                "GitLab made a token that never expires; it was deleted".to_owned(),
            ));
        };
        if let Err(error) = tidy(&api, &tokens).await {
            tracing::warn!(%error, "expired deploy tokens stay in GitLab's list");
        }
        Ok(Issued {
            registry_url: self.config.registry_url.clone(),
            login: Some((created.username, created.token)),
            expires_at: Some(expires_at.into()),
        })
    }
}

/// Expired tokens are of no use to anybody, and GitLab keeps them for ever.
async fn tidy(api: &Rest<'_>, tokens: &str) -> Result<(), ProviderError> {
    let listed: Vec<Listed> = api.get(&format!("{tokens}?per_page=100")).await?;
    for Listed { id, .. } in listed.into_iter().filter(|token| token.expired && token.name == NAME) {
        api.delete(&format!("{tokens}/{id}")).await?;
    }
    Ok(())
}

impl RegistryProvider for GitLab {
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> Issuing<'a> {
        Box::pin(self.token(project, action))
    }

    fn project_of(&self, image: &Reference) -> Option<Project> {
        let prefix = Prefix::of_namespace(&self.config.namespace).ok()?;
        prefix.project_of(&self.config.registry_url, image)
    }
}
