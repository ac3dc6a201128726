//! Harbor: a robot account that may pull, or push and pull, in one Harbor project for a day (Harbor
//! API v2.0, `POST /robots`).
//!
//! Harbor grants rights by its own projects and never by repository: a project here *is* a Harbor
//! project, and its images are `HOST/PROJECT/ANYTHING`. A day is the shortest life of a robot.

use super::error::ProviderError;
use super::fields::optional_registry_host;
use super::issue::{IssueFuture, IssuedCredentials, RegistryProvider};
use super::rest::{RestApi, read_secret, sensitive_header};
use api::credentials::Action;
use api::credentials::project::{Project, ProjectError, on_registry};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::AUTHORIZATION;
use oci::https::{Https, ServiceUrl};
use oci::{Reference, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// How the names of our robots start; Harbor puts `robot$PROJECT+` before it.
const NAME: &str = "redoubt-";
/// The shortest, in days.
const LIFETIME: u32 = 1;

/// `[registry]` with `type = "harbor"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarborConfig {
    /// Of Harbor, like `https://harbor.example.com`.
    pub url: ServiceUrl,
    /// Of its registry, if that differs: `host` or `host:port`.
    #[serde(default, deserialize_with = "optional_registry_host")]
    pub registry_url: Option<String>,
    /// An administrator of the projects, or a robot that may create, list and delete robots.
    pub username: String,
    /// Holds their password.
    pub password_file: PathBuf,
}

#[derive(Debug)]
pub(super) struct Harbor {
    config: HarborConfig,
    https: Https,
}

/// `RobotCreated`.
#[derive(Deserialize)]
struct Created {
    id: u64,
    name: String,
    secret: Secret,
    expires_at: Option<i64>,
}

/// `Robot`, and `Project`.
#[derive(Deserialize)]
struct Listed {
    id: u64,
    name: String,
    expires_at: i64,
}

#[derive(Deserialize)]
struct Found {
    project_id: u64,
}

impl Harbor {
    pub(super) fn new(config: HarborConfig, https: Https) -> Harbor {
        Harbor { config, https }
    }

    fn registry(&self) -> &str {
        self.config
            .registry_url
            .as_deref()
            .unwrap_or(self.config.url.authority())
    }

    async fn robot(
        &self,
        project: &Project,
        action: Action,
    ) -> Result<IssuedCredentials, ProviderError> {
        // A part of a Harbor project cannot be granted alone.
        if project.as_str().contains('/') {
            return Err(ProjectError::Grammar.into());
        }
        let HarborConfig {
            url,
            username,
            password_file,
            ..
        } = &self.config;
        let password = read_secret(password_file).await?;
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let api = RestApi {
            https: &self.https,
            service: "Harbor",
            base: format!("{}/api/v2.0", url.as_str()),
            authorization: (AUTHORIZATION, sensitive_header(&basic)?),
        };
        let created: Created = api.post("/robots", &creation(project, action)?).await?;
        let Some(expires_at) = created.expires_at.and_then(|end| u64::try_from(end).ok()) else {
            return Err(api.revoke(&format!("/robots/{}", created.id)).await);
        };
        api.delete_expired(expired(&api, project)).await;
        Ok(IssuedCredentials {
            registry_url: self.registry().to_owned(),
            login: Some((created.name, created.secret)),
            expires_at: Some(UNIX_EPOCH + Duration::from_secs(expires_at)),
        })
    }
}

/// The body of `POST /robots`.
fn creation(project: &Project, action: Action) -> Result<Value, ProviderError> {
    let actions: &[&str] = match action {
        Action::Pull => &["pull"],
        Action::Push => &["pull", "push"],
    };
    let access: Vec<Value> = actions
        .iter()
        .map(|action| json!({ "resource": "repository", "action": action }))
        .collect();
    // Expired robots keep their names until they are deleted.
    let mut unique = [0; 8];
    aws_lc_rs::rand::fill(&mut unique)
        .map_err(|_| ProviderError::unavailable("the system provides no randomness"))?;
    Ok(json!({
        "name": format!("{NAME}{}", hex::encode(unique)),
        "description": "Made by Redoubt's credential broker; deleted some time after it expired",
        "level": "project",
        "duration": LIFETIME,
        "permissions": [{ "kind": "project", "namespace": project.as_str(), "access": access }],
    }))
}

/// Our expired robots: Harbor keeps them for ever.
async fn expired(api: &RestApi<'_>, project: &Project) -> Result<Vec<String>, ProviderError> {
    let Found { project_id } = api.get(&format!("/projects/{}", project.as_str())).await?;
    let robots = format!("/robots?q=Level%3Dproject%2CProjectID%3D{project_id}&page_size=100");
    let listed: Vec<Listed> = api.get(&robots).await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let has_expired = |robot: &Listed| u64::try_from(robot.expires_at).is_ok_and(|end| end < now);
    let marker = format!("{}+{NAME}", project.as_str());
    let ours = listed
        .into_iter()
        .filter(|robot| robot.name.contains(&marker) && has_expired(robot));
    Ok(ours.map(|robot| format!("/robots/{}", robot.id)).collect())
}

impl RegistryProvider for Harbor {
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> IssueFuture<'a> {
        Box::pin(self.robot(project, action))
    }

    /// What comes after the project is the image's own name.
    fn projects_of(&self, image: &Reference) -> Vec<Project> {
        let name = on_registry(self.registry(), image).and_then(|name| name.split_once('/'));
        name.and_then(|(project, _)| Project::parse(project).ok())
            .into_iter()
            .collect()
    }
}
