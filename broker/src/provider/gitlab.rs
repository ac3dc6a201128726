//! GitLab's container registry: a project deploy token that may read, or read and write, the registry of one project until it expires
//! (GitLab documentation, "Deploy tokens API", "Project deploy tokens"). Nobody but the project's maintainers may make them.

use super::rest::{Rest, secret, sensitive};
use super::{Issued, Issuing, ProviderError, RegistryProvider, namespace, registry_host};
use api::credentials::Action;
use api::credentials::project::{Prefix, Project, ProjectError, on_registry};
use hyper::header::HeaderName;
use oci::https::{Https, ServiceUrl};
use oci::{Reference, Secret};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// In seconds. What the cache gives out must have some minutes left, so shorter ones would be made for each question.
const LIFETIMES: std::ops::RangeInclusive<u32> = 900..=30 * 86_400;
/// Our tokens among a project's.
const NAME: &str = "redoubt";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitLabConfig {
    /// `https://gitlab.example.com`.
    pub url: ServiceUrl,
    /// `registry.gitlab.example.com`.
    #[serde(deserialize_with = "registry_host")]
    pub registry_url: String,
    /// Stands before the project: `my-org/apps`.
    #[serde(default, deserialize_with = "namespace")]
    pub namespace: Prefix,
    /// A file with an access token of a maintainer, with the scope `api`.
    pub token_file: PathBuf,
    /// 15 minutes to 30 days.
    #[serde(default)]
    pub lifetime_seconds: Lifetime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Lifetime(u32);

impl Default for Lifetime {
    fn default() -> Lifetime {
        Lifetime(3600)
    }
}

impl TryFrom<u32> for Lifetime {
    type Error = &'static str;
    fn try_from(seconds: u32) -> Result<Self, &'static str> {
        match LIFETIMES.contains(&seconds) {
            true => Ok(Lifetime(seconds)),
            false => Err("lifetime_seconds is 900 to 2592000"),
        }
    }
}

impl From<Lifetime> for u32 {
    fn from(Lifetime(seconds): Lifetime) -> u32 {
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

    async fn token(&self, project: &Project, action: Action) -> Result<Issued, ProviderError> {
        let repository = self.config.namespace.join(project)?;
        // GitLab takes digits alone for the number of whichever project has it; a project of its own has a namespace before it.
        if !repository.as_str().contains('/') {
            return Err(ProjectError::Grammar.into());
        }
        let token = secret(&self.config.token_file).await?;
        let api = Rest {
            https: &self.https,
            service: "GitLab",
            base: format!("{}/api/v4", self.config.url.as_str()),
            authorization: (
                HeaderName::from_static("private-token"),
                sensitive(token.expose())?,
            ),
        };
        // "URL-encoded path of the project": the slashes are the only letters in it that need it.
        let tokens = format!(
            "/projects/{}/deploy_tokens",
            repository.as_str().replace('/', "%2F")
        );
        let scopes = match action {
            Action::Pull => vec!["read_registry"],
            Action::Push => vec!["read_registry", "write_registry"],
        };
        let end = OffsetDateTime::now_utc()
            + Duration::from_secs(u32::from(self.config.lifetime_seconds).into());
        let end = end.replace_nanosecond(0).unwrap_or(end).format(&Rfc3339);
        let end = end.map_err(|e| ProviderError::Denied(format!("lifetime_seconds: {e}")))?;
        let order = json!({ "name": NAME, "scopes": scopes, "expires_at": end });
        let created: Created = api.post(&tokens, &order).await?;
        let Some(expires_at) = created.expires_at.as_deref().and_then(time) else {
            return Err(api.take_back(&format!("{tokens}/{}", created.id)).await);
        };
        api.tidy(over(&api, &tokens)).await;
        Ok(Issued {
            registry_url: self.config.registry_url.clone(),
            login: Some((created.username, created.token)),
            expires_at: Some(expires_at.into()),
        })
    }
}

/// Expired tokens are of no use to anybody, and GitLab keeps them for ever. Its own word `expired` goes by the day.
async fn over(api: &Rest<'_>, tokens: &str) -> Result<Vec<String>, ProviderError> {
    let listed: Vec<Listed> = api.get(&format!("{tokens}?per_page=100")).await?;
    let now = OffsetDateTime::now_utc();
    let is_over = |token: &Listed| {
        token
            .expires_at
            .as_deref()
            .and_then(time)
            .is_some_and(|end| end < now)
    };
    let ours = listed
        .into_iter()
        .filter(|token| token.name == NAME && is_over(token));
    Ok(ours.map(|token| format!("{tokens}/{}", token.id)).collect())
}

fn time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

impl RegistryProvider for GitLab {
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> Issuing<'a> {
        Box::pin(self.token(project, action))
    }

    /// An image's name is the project's, or has up to two more components (GitLab documentation, "Naming convention for your images").
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

    /// Digits alone are the number of a project to GitLab, and whose that is nobody knows.
    #[tokio::test]
    async fn a_number_is_no_project() {
        let project = Project::parse("42").unwrap();
        let refused = gitlab("").issue(&project, Action::Push).await;
        assert_eq!(refused, Err(ProviderError::Project(ProjectError::Grammar)));
        assert!(
            matches!(
                gitlab("group").issue(&project, Action::Push).await,
                Err(ProviderError::Denied(_))
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
