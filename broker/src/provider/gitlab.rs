//! GitLab's container registry: a project deploy token that may read, or read and write, the
//! registry of one project until it expires (GitLab documentation, "Deploy tokens API", "Project
//! deploy tokens"). Only the project's maintainers may create them.

use super::error::ProviderError;
use super::fields::{namespace, registry_host};
use super::issue::{IssueFuture, IssuedCredentials, RegistryProvider};
use super::rest::{RestApi, read_secret, sensitive_header};
use api::credentials::Action;
use api::credentials::project::{Prefix, Project, ProjectError, on_registry};
use hyper::header::HeaderName;
use oci::https::{Https, ServiceUrl};
use oci::{Reference, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// In seconds. Cached credentials must have some minutes left, so shorter ones would be created for
/// each request.
const LIFETIMES: std::ops::RangeInclusive<u32> = 900..=30 * 86_400;
/// Our tokens among a project's.
const NAME: &str = "redoubt";

/// `[registry]` with `type = "gitlab"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitLabConfig {
    /// Of GitLab, like `https://gitlab.example.com`.
    pub url: ServiceUrl,
    /// Of its registry, like `registry.gitlab.example.com`.
    #[serde(deserialize_with = "registry_host")]
    pub registry_url: String,
    /// Comes before the project in the repository's name, like `my-org/apps`.
    #[serde(default, deserialize_with = "namespace")]
    pub namespace: Prefix,
    /// Holds an access token of a maintainer, with the scope `api`.
    pub token_file: PathBuf,
    /// How long issued tokens live.
    #[serde(default)]
    pub lifetime_seconds: TokenLifetime,
}

/// How long a deploy token lives: 900 seconds (15 minutes) to 2592000 (30 days); an hour by
/// default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct TokenLifetime(u32);

impl Default for TokenLifetime {
    fn default() -> TokenLifetime {
        TokenLifetime(3600)
    }
}

impl TryFrom<u32> for TokenLifetime {
    type Error = &'static str;
    fn try_from(seconds: u32) -> Result<Self, &'static str> {
        if LIFETIMES.contains(&seconds) {
            Ok(TokenLifetime(seconds))
        } else {
            Err("lifetime_seconds must be 900 to 2592000")
        }
    }
}

impl From<TokenLifetime> for u32 {
    fn from(TokenLifetime(seconds): TokenLifetime) -> u32 {
        seconds
    }
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
    expires_at: Option<String>,
}

impl GitLab {
    pub(super) fn new(config: GitLabConfig, https: Https) -> GitLab {
        GitLab { config, https }
    }

    async fn token(
        &self,
        project: &Project,
        action: Action,
    ) -> Result<IssuedCredentials, ProviderError> {
        let repository = self.config.namespace.join(project)?;
        // To GitLab, digits alone are the number of any project; a project's path has a namespace.
        if !repository.as_str().contains('/') {
            return Err(ProjectError::Grammar.into());
        }
        let own_token = read_secret(&self.config.token_file).await?;
        let api = RestApi {
            https: &self.https,
            service: "GitLab",
            base: format!("{}/api/v4", self.config.url.as_str()),
            authorization: (
                HeaderName::from_static("private-token"),
                sensitive_header(own_token.expose())?,
            ),
        };
        // "URL-encoded path of the project": only the slashes in it need encoding.
        let tokens = format!(
            "/projects/{}/deploy_tokens",
            repository.as_str().replace('/', "%2F")
        );
        let body = creation(self.config.lifetime_seconds, action)?;
        let created: Created = api.post(&tokens, &body).await?;
        let Some(expires_at) = created.expires_at.as_deref().and_then(time) else {
            return Err(api.revoke(&format!("{tokens}/{}", created.id)).await);
        };
        api.delete_expired(expired(&api, &tokens)).await;
        Ok(IssuedCredentials {
            registry_url: self.config.registry_url.clone(),
            login: Some((created.username, created.token)),
            expires_at: Some(expires_at.into()),
        })
    }
}

/// The body of `POST /projects/:id/deploy_tokens`.
fn creation(TokenLifetime(seconds): TokenLifetime, action: Action) -> Result<Value, ProviderError> {
    let scopes = match action {
        Action::Pull => vec!["read_registry"],
        Action::Push => vec!["read_registry", "write_registry"],
    };
    let end = OffsetDateTime::now_utc() + Duration::from_secs(seconds.into());
    let end = end.replace_nanosecond(0).unwrap_or(end).format(&Rfc3339);
    let end = end.map_err(|e| ProviderError::denied(format!("lifetime_seconds: {e}")))?;
    Ok(json!({ "name": NAME, "scopes": scopes, "expires_at": end }))
}

/// Our expired tokens: GitLab keeps them for ever. Its own field `expired` is right to the day
/// only.
async fn expired(api: &RestApi<'_>, tokens: &str) -> Result<Vec<String>, ProviderError> {
    let listed: Vec<Listed> = api.get(&format!("{tokens}?per_page=100")).await?;
    let now = OffsetDateTime::now_utc();
    let has_expired = |token: &Listed| {
        let end = token.expires_at.as_deref().and_then(time);
        end.is_some_and(|end| end < now)
    };
    let ours = listed
        .into_iter()
        .filter(|token| token.name == NAME && has_expired(token));
    Ok(ours.map(|token| format!("{tokens}/{}", token.id)).collect())
}

fn time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

impl RegistryProvider for GitLab {
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> IssueFuture<'a> {
        Box::pin(self.token(project, action))
    }

    /// An image's name is the project's, or has up to two more components (GitLab documentation,
    /// "Naming convention for your images").
    fn projects_of(&self, image: &Reference) -> Vec<Project> {
        let Some(whole) = on_registry(&self.config.registry_url, image) else {
            return Vec::new();
        };
        let names = std::iter::successors(Some(whole), |name| {
            name.rsplit_once('/').map(|(above, _)| above)
        });
        names
            .take(3)
            .filter_map(|name| self.config.namespace.project_of(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn gitlab(namespace: &str) -> GitLab {
        let text = format!(
            "url = 'https://gitlab.example'\nregistry_url = 'r.example'\nnamespace = '{namespace}'\ntoken_file = '/none'"
        );
        GitLab::new(
            toml::from_str(&text).unwrap(),
            Https::new(Path::new("")).unwrap(),
        )
    }

    /// To GitLab, digits alone are the number of a project, whichever it is.
    #[tokio::test]
    async fn a_number_is_no_project() {
        let project = Project::parse("42").unwrap();
        let refused = gitlab("").issue(&project, Action::Push).await;
        assert_eq!(refused, Err(ProviderError::Project(ProjectError::Grammar)));
        assert!(
            matches!(
                gitlab("group").issue(&project, Action::Push).await,
                Err(ProviderError::Denied { .. })
            ),
            "/none"
        );
    }

    #[test]
    fn an_image_is_the_projects_or_up_to_two_below_it() {
        let of = |image: &str| {
            let image = Reference::parse(&format!("r.example/{image}")).unwrap();
            let projects = gitlab("group").projects_of(&image);
            projects
                .iter()
                .map(|project| project.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("group/app"), ["app"]);
        assert_eq!(
            of("group/app/web/nginx:v1"),
            ["app/web/nginx", "app/web", "app"]
        );
        assert!(of("other/app").is_empty() && of("group").is_empty());
    }
}
