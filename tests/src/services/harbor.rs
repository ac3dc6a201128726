//! Harbor 2 (src/server/v2.0/handler/robot.go, src/controller/robot/controller.go, src/lib/errors):
//! one project, `my-app`.

use super::{Login, Made, Service, reply};
use crate::hostile::{Asked, FakeRegistry, HttpAnswer, answer};
use crate::registry::base64;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// In seconds. Not a round number, as a day would be: an answer with a constant is found out.
pub const HARBOR_LIFE: u64 = 50_000;
pub const HARBOR_USER: (&str, &str) = ("admin", "Harbor-12345-test");

/// Harbor as a service.
pub struct Harbor {
    pub made: Made,
    service: Service,
}

impl Harbor {
    /// Every robot that it makes is this login.
    pub async fn start(login: Login) -> Harbor {
        let made = Made::default();
        Harbor::answering(made.clone(), harbor(made, login)).await
    }

    /// With answers of the caller's, which hold what was made in `made`.
    pub async fn answering(
        made: Made,
        answer: impl Fn(&Asked) -> HttpAnswer + Send + Sync + 'static,
    ) -> Harbor {
        Harbor {
            made,
            service: Service::new(FakeRegistry::start(answer).await, HARBOR_USER.1),
        }
    }

    /// `[registry] type = "harbor"`.
    #[must_use]
    pub fn settings(&self) -> [(&str, &str); 4] {
        [
            ("HOST_PROXY_REGISTRY__TYPE", "harbor"),
            ("HOST_PROXY_REGISTRY__URL", &self.service.url),
            ("HOST_PROXY_REGISTRY__USERNAME", HARBOR_USER.0),
            (
                "HOST_PROXY_REGISTRY__PASSWORD_FILE",
                self.service.secret_file.to_str().unwrap(),
            ),
        ]
    }

    #[must_use]
    pub fn host(&self) -> String {
        self.service.server.host()
    }

    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.service.server.asked()
    }

    /// Replaces the daemon's own password.
    pub fn set_password(&self, password: &str) {
        self.service.set_secret(password);
    }
}

/// The answers of a Harbor that holds what was made in `made`.
pub fn harbor(made: Made, login: Login) -> impl Fn(&Asked) -> HttpAnswer + Send + Sync {
    let pair = format!("{}:{}", HARBOR_USER.0, HARBOR_USER.1);
    let admin = format!("Basic {}", base64(pair.as_bytes()));
    move |asked| {
        if asked.authorization.as_deref() == Some(&admin) {
            respond(asked, &mut made.lock().unwrap(), login)
        } else {
            refuse(401, "UNAUTHORIZED", "unauthorized")
        }
    }
}

fn refuse(status: u16, code: &str, message: &str) -> HttpAnswer {
    let error = json!({ "code": code, "message": message });
    reply(status, &json!({ "errors": [error] }))
}

fn respond(asked: &Asked, made: &mut Vec<Value>, login: Login) -> HttpAnswer {
    let path = asked.path.strip_prefix("/api/v2.0").unwrap();
    match (asked.method.as_str(), path) {
        ("POST", "/robots") => make(made, &asked.body, login),
        ("GET", "/projects/my-app") => reply(
            200,
            &json!({ "project_id": 7, "name": "my-app", "metadata": {} }),
        ),
        ("GET", "/robots?q=Level%3Dproject%2CProjectID%3D7&page_size=100") => {
            reply(200, &json!(made))
        }
        ("DELETE", path) => {
            let id: u64 = path.strip_prefix("/robots/").unwrap().parse().unwrap();
            made.retain(|robot| robot["id"] != id);
            answer(200, &[], "")
        }
        other => panic!("Harbor has no {other:?}"),
    }
}

fn make(made: &mut Vec<Value>, order: &str, login: Login) -> HttpAnswer {
    let order: Value = serde_json::from_str(order).unwrap();
    let kind = (&order["level"], &order["duration"]);
    assert_eq!(kind, (&json!("project"), &json!(1)));
    let [permission] = order["permissions"].as_array().unwrap().as_slice() else {
        panic!("{order}")
    };
    match permission["namespace"].as_str().unwrap() {
        "my-app" | "endless" => {}
        "not-mine" => return refuse(403, "FORBIDDEN", "forbidden"),
        "down" => return refuse(500, "UNKNOWN", "internal server error"),
        name => return refuse(404, "NOT_FOUND", &format!("project {name} not found")),
    }
    let expires_at = if permission["namespace"] == "endless" {
        json!(-1)
    } else {
        json!(now() + HARBOR_LIFE)
    };
    let name = format!("robot$my-app+{}", order["name"].as_str().unwrap());
    let id = 1 + made.len();
    made.push(json!({
        "id": id, "name": name, "expires_at": expires_at, "permissions": order["permissions"],
    }));
    let created = json!({
        "id": id, "name": login.0, "secret": login.1, "expires_at": expires_at,
        "creation_time": "2026-01-01T00:00:00.000Z",
    });
    reply(201, &created)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}
