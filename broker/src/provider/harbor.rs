//! Harbor: a robot account that may pull, or push and pull, in one Harbor project for a day (Harbor API v2.0, `POST /robots`).
//!
//! Harbor grants rights by its own projects and never by repository: a project here *is* a Harbor project, its images are
//! `HOST/PROJECT/ANYTHING`. A day is the shortest life that Harbor gives a robot.

use super::rest::{Rest, secret, sensitive};
use super::{Issued, Issuing, ProviderError, RegistryProvider, registry_host};
use api::credentials::Action;
use api::credentials::project::{Project, ProjectError, on_registry};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::AUTHORIZATION;
use oci::https::{Https, ServiceUrl};
use oci::{Reference, Secret};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Our robots among a project's; Harbor puts `robot$PROJECT+` before it.
const NAME: &str = "redoubt-";
/// The shortest, in days.
const LIFETIME: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarborConfig {
    /// `https://harbor.example.com`.
    pub url: ServiceUrl,
    /// Of the registry, if it is not the API's.
    #[serde(default, deserialize_with = "optional_host")]
    pub registry_url: Option<String>,
    /// An administrator of the projects, or a robot that may create, list and delete robots.
    pub username: String,
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

    async fn robot(&self, project: &Project, action: Action) -> Result<Issued, ProviderError> {
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
        let password = secret(password_file).await?;
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let api = Rest {
            https: &self.https,
            service: "Harbor",
            base: format!("{}/api/v2.0", url.as_str()),
            authorization: (AUTHORIZATION, sensitive(&basic)?),
        };
        let created: Created = api.post("/robots", &order(project, action)?).await?;
        let Some(expires_at) = created.expires_at.and_then(|end| u64::try_from(end).ok()) else {
            return Err(api.take_back(&format!("/robots/{}", created.id)).await);
        };
        api.tidy(over(&api, project)).await;
        Ok(Issued {
            registry_url: self.registry().to_owned(),
            login: Some((created.name, created.secret)),
            expires_at: Some(UNIX_EPOCH + Duration::from_secs(expires_at)),
        })
    }
}

fn order(project: &Project, action: Action) -> Result<Value, ProviderError> {
    let actions: &[&str] = match action {
        Action::Pull => &["pull"],
        Action::Push => &["pull", "push"],
    };
    let access: Vec<Value> = actions
        .iter()
        .map(|action| json!({ "resource": "repository", "action": action }))
        .collect();
    // Names are taken for as long as a robot exists.
    let mut unique = [0; 8];
    aws_lc_rs::rand::fill(&mut unique)
        .map_err(|_| ProviderError::Unavailable("the system gives no randomness".to_owned()))?;
    Ok(json!({
        "name": format!("{NAME}{}", hex::encode(unique)),
        "description": "Made by Redoubt's credential broker; deleted some time after it expired",
        "level": "project",
        "duration": LIFETIME,
        "permissions": [{ "kind": "project", "namespace": project.as_str(), "access": access }],
    }))
}

/// Expired robots are of no use to anybody, and Harbor keeps them for ever.
async fn over(api: &Rest<'_>, project: &Project) -> Result<Vec<String>, ProviderError> {
    let Found { project_id } = api.get(&format!("/projects/{}", project.as_str())).await?;
    let robots = format!("/robots?q=Level%3Dproject%2CProjectID%3D{project_id}&page_size=100");
    let listed: Vec<Listed> = api.get(&robots).await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let is_over = |robot: &Listed| u64::try_from(robot.expires_at).is_ok_and(|end| end < now);
    let mark = format!("{}+{NAME}", project.as_str());
    let ours = listed
        .into_iter()
        .filter(|robot| robot.name.contains(&mark) && is_over(robot));
    Ok(ours.map(|robot| format!("/robots/{}", robot.id)).collect())
}

fn optional_host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    registry_host(deserializer).map(Some)
}

impl RegistryProvider for Harbor {
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> Issuing<'a> {
        Box::pin(self.robot(project, action))
    }

    /// Whatever comes after the project is the image's own.
    fn projects_of(&self, image: &Reference) -> Vec<Project> {
        let name = on_registry(self.registry(), image).and_then(|name| name.split_once('/'));
        name.and_then(|(project, _)| Project::parse(project).ok())
            .into_iter()
            .collect()
    }
}
