//! A daemon with a broker, tokens for it, and questions as a client of another make would ask them.

use crate::daemon::Daemon;
use crate::{free_port, tcp};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub const SECRET: &[u8] = b"a shared secret of more than 32 bytes";

/// What a token says.
#[must_use]
pub fn claims(subject: &str, projects: &[&str]) -> Value {
    let exp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 300;
    json!({ "sub": subject, "aud": "redoubt", "exp": exp, "projects": projects })
}

/// The two parts of a token that are signed. By hand, so that two readings of RFC 7515 meet.
#[must_use]
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

#[must_use]
pub fn signed(unsigned: &str, signature: &[u8]) -> String {
    format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[must_use]
pub fn token(subject: &str, projects: &[&str], key: &[u8]) -> String {
    let text = unsigned(
        &json!({ "alg": "HS256", "typ": "JWT" }),
        &claims(subject, projects),
    );
    let signature = hmac::sign(&Key::new(HMAC_SHA256, key), text.as_bytes());
    signed(&text, signature.as_ref())
}

pub struct Broker {
    pub daemon: Daemon,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Broker {
    /// A daemon with these more settings; tokens are signed with [`SECRET`].
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Broker {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let secret = secret.display().to_string();
        Broker::start_in(
            folder,
            &[
                &[("HOST_PROXY_BROKER__JWT_SECRET_FILE", secret.as_str())],
                settings,
            ]
            .concat(),
        )
    }

    /// With other keys than the secret.
    #[must_use]
    pub fn start_in(folder: tempfile::TempDir, settings: &[(&str, &str)]) -> Broker {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let own = [
            ("HOST_PROXY_BROKER__LISTEN", listen.as_str()),
            ("HOST_PROXY_BROKER__AUDIENCE", "redoubt"),
        ];
        Broker {
            daemon: Daemon::start(&[&own[..], settings].concat()),
            port,
            folder,
        }
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A file with a token for these projects.
    #[must_use]
    pub fn token_file(&self, projects: &[&str]) -> PathBuf {
        let path = self.folder().join(projects.join("-"));
        std::fs::write(&path, token("ci", projects, SECRET)).unwrap();
        path
    }

    /// Status and body of a question.
    #[must_use]
    pub fn ask(&self, query: &str, token: Option<&str>) -> (u16, Value) {
        let (head, body) = self.exchange(query, token);
        (head[9..12].parse().unwrap(), body)
    }

    /// Head and body.
    #[must_use]
    pub fn exchange(&self, query: &str, token: Option<&str>) -> (String, Value) {
        let bearer = token
            .map(|token| format!("Authorization: Bearer {token}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET /registry/credentials{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer}\r\n"
        );
        let answer = tcp::exchange(&format!("127.0.0.1:{}", self.port), &request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("cache-control: no-store") && head.contains("x-request-id"),
            "{head}"
        );
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }
}
