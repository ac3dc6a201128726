//! Fakes of the services that make registry credentials, answering as their documentation and
//! sources say, refusals included. A green run against them says nothing about the real ones.

mod gitlab;
mod harbor;

pub use gitlab::{GITLAB_TOKEN, GitLab};
pub use harbor::{HARBOR_LIFE, HARBOR_USER, Harbor, harbor};

use crate::hostile::{FakeRegistry, HttpAnswer, answer};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// What a service holds: credentials that were made, as it lists them.
pub type Made = Arc<Mutex<Vec<Value>>>;

/// User name and password of a credential that a service makes.
pub type Login = (&'static str, &'static str);

/// A service that runs, and the file with the secret that a daemon needs for it.
struct Service {
    server: FakeRegistry,
    url: String,
    _folder: TempDir,
    secret_file: PathBuf,
}

impl Service {
    fn new(server: FakeRegistry, secret: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let service = Service {
            url: format!("http://{}", server.host()),
            secret_file: folder.path().join("service-secret"),
            _folder: folder,
            server,
        };
        service.set_secret(secret);
        service
    }

    fn set_secret(&self, text: &str) {
        std::fs::write(&self.secret_file, format!("{text}\n")).unwrap();
    }
}

fn reply(status: u16, body: &Value) -> HttpAnswer {
    answer(
        status,
        &[("content-type", "application/json")],
        body.to_string(),
    )
}
