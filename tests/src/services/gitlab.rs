//! GitLab (lib/api/deploy_tokens.rb, lib/api/api_guard.rb): one project, `group/apps/my-app`;
//! others answer what their names say.

use super::{Login, Made, Service, reply};
use crate::hostile::{Asked, FakeRegistry, HttpAnswer, answer};
use serde_json::{Value, json};

pub const GITLAB_TOKEN: &str = "glpat-20-letters-of-test";

/// GitLab as a service.
pub struct GitLab {
    pub made: Made,
    service: Service,
}

impl GitLab {
    /// Every token that it makes is this login.
    pub async fn start(login: Login) -> GitLab {
        let made = Made::default();
        let held = made.clone();
        let server = FakeRegistry::start(move |asked| respond(asked, &held, login)).await;
        let mut service = Service::new(server, GITLAB_TOKEN);
        // As people copy it.
        service.url.push('/');
        GitLab { made, service }
    }

    /// `[registry] type = "gitlab"`, for `group/apps` at `registry.example.com`.
    #[must_use]
    pub fn settings(&self) -> [(&str, &str); 5] {
        [
            ("HOST_PROXY_REGISTRY__TYPE", "gitlab"),
            ("HOST_PROXY_REGISTRY__URL", &self.service.url),
            ("HOST_PROXY_REGISTRY__REGISTRY_URL", "registry.example.com"),
            ("HOST_PROXY_REGISTRY__NAMESPACE", "group/apps"),
            (
                "HOST_PROXY_REGISTRY__TOKEN_FILE",
                self.service.secret_file.to_str().unwrap(),
            ),
        ]
    }

    /// Replaces the daemon's own access token.
    pub fn set_token(&self, token: &str) {
        self.service.set_secret(token);
    }
}

fn respond(asked: &Asked, made: &Made, login: Login) -> HttpAnswer {
    if let Some(refusal) = unauthorized(asked.private_token.as_deref()) {
        return refusal;
    }
    let Some(rest) = asked.path.strip_prefix("/api/v4/projects/group%2Fapps%2F") else {
        return reply(404, &json!({ "error": "404 Not Found" }));
    };
    let (project, rest) = rest.split_once('/').unwrap();
    let rest = rest.strip_prefix("deploy_tokens").unwrap();
    if let Some(refusal) = refusal_for(project) {
        return refusal;
    }
    let mut made = made.lock().unwrap();
    match (asked.method.as_str(), rest) {
        ("POST", "") => reply(
            201,
            &make(&mut made, &asked.body, login, project == "endless"),
        ),
        ("GET", "?per_page=100") => reply(200, &json!(*made)),
        ("DELETE", path) => {
            let id: u64 = path.strip_prefix('/').unwrap().parse().unwrap();
            made.retain(|token| token["id"] != id);
            answer(204, &[], "")
        }
        other => panic!("GitLab has no {other:?}"),
    }
}

fn unauthorized(token: Option<&str>) -> Option<HttpAnswer> {
    let (status, body) = match token {
        Some(GITLAB_TOKEN) => return None,
        Some("expired") => {
            let description =
                "Token is expired. You can either do re-authorization or token refresh.";
            (
                401,
                json!({ "error": "invalid_token", "error_description": description }),
            )
        }
        Some("read-only") => {
            let description =
                "The request requires higher privileges than provided by the access token.";
            (
                403,
                json!({ "error": "insufficient_scope", "error_description": description, "scope": "api" }),
            )
        }
        _ => (401, json!({ "message": "401 Unauthorized" })),
    };
    Some(reply(status, &body))
}

fn refusal_for(project: &str) -> Option<HttpAnswer> {
    let plain = ("content-type", "text/plain");
    let html = ("content-type", "text/html");
    Some(match project {
        "my-app" | "endless" => return None,
        "not-a-maintainer" => reply(403, &json!({ "message": "403 Forbidden" })),
        "too-often" => answer(429, &[("retry-after", "23"), plain], "Retry later\n"),
        "upgrading" => answer(502, &[html], "<html>GitLab is not responding</html>"),
        "odd" => reply(201, &json!({ "id": 1 })),
        _ => reply(404, &json!({ "message": "404 Project Not Found" })),
    })
}

/// Makes a token. It is shown this once; the list holds it without its secret.
fn make(made: &mut Vec<Value>, order: &str, login: Login, is_endless: bool) -> Value {
    let order: Value = serde_json::from_str(order).unwrap();
    let id = 1 + made.len();
    let expires_at = order["expires_at"].as_str().unwrap();
    let mut token = json!({
        "id": id, "name": order["name"], "username": login.0, "revoked": false, "expired": false,
        "expires_at": expires_at.replace('Z', ".000Z"), "scopes": order["scopes"],
    });
    if is_endless {
        token["expires_at"] = Value::Null;
    }
    made.push(token.clone());
    token["token"] = login.1.into();
    token
}
