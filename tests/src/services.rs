//! Fakes of the services that make registry credentials, answering as their documentation and sources say, refusals included.
//! A green run against them says nothing about the real ones.

use crate::hostile::{Answer, Asked, answer};
use crate::registry::base64;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a service holds: credentials that were made, as it lists them.
pub type Made = Arc<Mutex<Vec<Value>>>;

fn reply(status: u16, body: &Value) -> Answer {
    answer(
        status,
        &[("content-type", "application/json")],
        body.to_string(),
    )
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub const GITLAB_TOKEN: &str = "glpat-20-letters-of-test";

/// GitLab (lib/api/deploy_tokens.rb, lib/api/api_guard.rb): one project, `group/apps/my-app`; others answer what their names say.
pub fn gitlab(
    made: Made,
    login: (&'static str, &'static str),
) -> impl Fn(&Asked) -> Answer + Send + Sync {
    move |asked| {
        match asked.private_token.as_deref() {
            Some(GITLAB_TOKEN) => {}
            Some("expired") => {
                let description =
                    "Token is expired. You can either do re-authorization or token refresh.";
                return reply(
                    401,
                    &json!({ "error": "invalid_token", "error_description": description }),
                );
            }
            Some("read-only") => {
                let description =
                    "The request requires higher privileges than provided by the access token.";
                let body = json!({ "error": "insufficient_scope", "error_description": description, "scope": "api" });
                return reply(403, &body);
            }
            _ => return reply(401, &json!({ "message": "401 Unauthorized" })),
        }
        let Some(rest) = asked.path.strip_prefix("/api/v4/projects/group%2Fapps%2F") else {
            return reply(404, &json!({ "error": "404 Not Found" }));
        };
        let (project, rest) = rest.split_once('/').unwrap();
        let rest = rest.strip_prefix("deploy_tokens").unwrap();
        match project {
            "my-app" | "endless" => {}
            "not-a-maintainer" => return reply(403, &json!({ "message": "403 Forbidden" })),
            "too-often" => {
                return answer(
                    429,
                    &[("retry-after", "23"), ("content-type", "text/plain")],
                    "Retry later\n",
                );
            }
            "upgrading" => {
                return answer(
                    502,
                    &[("content-type", "text/html")],
                    "<html>GitLab is not responding</html>",
                );
            }
            "odd" => return reply(201, &json!({ "id": 1 })),
            _ => return reply(404, &json!({ "message": "404 Project Not Found" })),
        }
        let mut made = made.lock().unwrap();
        match (asked.method.as_str(), rest) {
            ("POST", "") => {
                let order: Value = serde_json::from_str(&asked.body).unwrap();
                let id = 1 + made.len();
                let mut token = json!({
                    "id": id, "name": order["name"], "username": login.0, "revoked": false, "expired": false,
                    "expires_at": order["expires_at"].as_str().unwrap().replace('Z', ".000Z"), "scopes": order["scopes"],
                });
                if project == "endless" {
                    token["expires_at"] = Value::Null;
                }
                made.push(token.clone());
                token["token"] = login.1.into();
                reply(201, &token)
            }
            ("GET", "?per_page=100") => reply(200, &json!(*made)),
            ("DELETE", path) => {
                let id: u64 = path.strip_prefix('/').unwrap().parse().unwrap();
                made.retain(|token| token["id"] != id);
                answer(204, &[], "")
            }
            other => panic!("GitLab has no {other:?}"),
        }
    }
}

/// Not a round number, as a day would be: whoever answers with a constant is found out.
pub const HARBOR_LIFE: u64 = 50_000;
pub const HARBOR_USER: (&str, &str) = ("admin", "Harbor-12345-test");

/// Harbor 2 (src/server/v2.0/handler/robot.go, src/controller/robot/controller.go, src/lib/errors): one project, `my-app`.
pub fn harbor(
    made: Made,
    login: (&'static str, &'static str),
) -> impl Fn(&Asked) -> Answer + Send + Sync {
    let failed = |status: u16, code: &str, message: &str| {
        reply(
            status,
            &json!({ "errors": [{ "code": code, "message": message }] }),
        )
    };
    let admin = format!(
        "Basic {}",
        base64(format!("{}:{}", HARBOR_USER.0, HARBOR_USER.1).as_bytes())
    );
    move |asked| {
        if asked.authorization.as_deref() != Some(&admin) {
            return failed(401, "UNAUTHORIZED", "unauthorized");
        }
        let mut made = made.lock().unwrap();
        let path = asked.path.strip_prefix("/api/v2.0").unwrap();
        match (asked.method.as_str(), path) {
            ("POST", "/robots") => {
                let order: Value = serde_json::from_str(&asked.body).unwrap();
                assert_eq!(
                    (&order["level"], &order["duration"]),
                    (&json!("project"), &json!(1))
                );
                let [permission] = order["permissions"].as_array().unwrap().as_slice() else {
                    panic!()
                };
                match permission["namespace"].as_str().unwrap() {
                    "my-app" | "endless" => {}
                    "not-mine" => return failed(403, "FORBIDDEN", "forbidden"),
                    "down" => return failed(500, "UNKNOWN", "internal server error"),
                    name => return failed(404, "NOT_FOUND", &format!("project {name} not found")),
                }
                let forever = permission["namespace"] == "endless";
                let expires_at = if forever {
                    json!(-1)
                } else {
                    json!(now() + HARBOR_LIFE)
                };
                let name = format!("robot$my-app+{}", order["name"].as_str().unwrap());
                let id = 1 + made.len();
                made.push(json!({ "id": id, "name": name, "expires_at": expires_at, "permissions": order["permissions"] }));
                let created = json!({
                    "id": id, "name": login.0, "secret": login.1, "expires_at": expires_at,
                    "creation_time": "2026-01-01T00:00:00.000Z",
                });
                reply(201, &created)
            }
            ("GET", "/projects/my-app") => reply(
                200,
                &json!({ "project_id": 7, "name": "my-app", "metadata": {} }),
            ),
            ("GET", "/robots?q=Level%3Dproject%2CProjectID%3D7&page_size=100") => {
                reply(200, &json!(*made))
            }
            ("DELETE", path) => {
                let id: u64 = path.strip_prefix("/robots/").unwrap().parse().unwrap();
                made.retain(|robot| robot["id"] != id);
                answer(200, &[], "")
            }
            other => panic!("Harbor has no {other:?}"),
        }
    }
}
