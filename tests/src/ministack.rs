//! MiniStack and moto, emulators of AWS, as processes on loopback. A green run against them says
//! nothing about the real one.

use crate::programs::named;
use crate::{free_port, tcp, wait_for};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct MiniStack {
    process: Child,
    pub port: u16,
    _folder: TempDir,
}

impl MiniStack {
    #[must_use]
    pub fn start() -> MiniStack {
        MiniStack::with_auth(false)
    }

    /// With `auth`, IAM policies are enforced for every key but `test`, which is root's.
    #[must_use]
    pub fn with_auth(auth: bool) -> MiniStack {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(named("REDOUBT_TEST_MINISTACK"))
            .current_dir(folder.path())
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("SERVICES", "secretsmanager,sts,kms,ecr,iam")
            .env("AUTH", auth.to_string())
            .env("STATE_DIR", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for("MiniStack", 60, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        MiniStack {
            process,
            port,
            _folder: folder,
        }
    }

    /// Enforces policies, and has a role that may do all of ECR: [`PUSH_ROLE`].
    #[must_use]
    pub fn with_push_role() -> MiniStack {
        let ministack = MiniStack::with_auth(true);
        ministack.make_role("push", "ecr:*");
        ministack
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A role that the account may assume, with the right to do this.
    pub fn make_role(&self, name: &str, action: &str) {
        let trust = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::000000000000:root" }, "Action": "sts:AssumeRole" } ] });
        let rights = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": action, "Resource": "*" } ] });
        let role = format!("Version=2010-05-08&RoleName={name}");
        let (trust, rights) = (form(&trust), form(&rights));
        self.iam(&format!(
            "Action=CreateRole&{role}&AssumeRolePolicyDocument={trust}"
        ));
        self.iam(&format!(
            "Action=PutRolePolicy&{role}&PolicyName=p&PolicyDocument={rights}"
        ));
    }

    /// Asks IAM as root; it does not check root's signature.
    fn iam(&self, query: &str) {
        let headers = [
            "Host: iam.amazonaws.com".to_owned(),
            format!("Authorization: {}", root_authorization("iam")),
            "Content-Type: application/x-www-form-urlencoded".to_owned(),
        ];
        let answer = self.post(&headers, query);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// A request of Secrets Manager's JSON protocol, written by hand: not by the client under test.
    #[must_use]
    pub fn secrets_manager(&self, operation: &str, body: &Value) -> String {
        let headers = [
            "Host: secretsmanager.us-east-1.amazonaws.com".to_owned(),
            format!("X-Amz-Target: secretsmanager.{operation}"),
            "Content-Type: application/x-amz-json-1.1".to_owned(),
            format!("Authorization: {}", root_authorization("secretsmanager")),
        ];
        self.post(&headers, &body.to_string())
    }

    fn post(&self, headers: &[String], body: &str) -> String {
        let (headers, len) = (headers.join("\r\n"), body.len());
        let request = format!(
            "POST / HTTP/1.1\r\n{headers}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
        );
        tcp::exchange(&format!("127.0.0.1:{}", self.port), &request)
    }
}

fn root_authorization(service: &str) -> String {
    let scope = format!("test/20260101/us-east-1/{service}/aws4_request");
    format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
}

/// Percent-encoded, for a form.
fn form(value: &Value) -> String {
    let text = value.to_string();
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What [`MiniStack::with_push_role`] makes.
pub const PUSH_ROLE: &str = "arn:aws:iam::000000000000:role/push";

/// `[registry] type = "ecr"` with this push role and endpoint.
#[must_use]
pub fn ecr_settings<'a>(role: &'a str, url: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("HOST_PROXY_REGISTRY__TYPE", "ecr"),
        ("HOST_PROXY_REGISTRY__REGION", "us-east-1"),
        ("HOST_PROXY_REGISTRY__ACCOUNT_ID", "000000000000"),
        ("HOST_PROXY_REGISTRY__REPO_PREFIX", "rise/"),
        ("HOST_PROXY_REGISTRY__PUSH_ROLE_ARN", role),
        ("HOST_PROXY_REGISTRY__ENDPOINT_URL", url),
    ]
}

impl Drop for MiniStack {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// moto's server: its ECR issues tokens that expired in 2015.
pub struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    #[must_use]
    pub fn start() -> Moto {
        let port = free_port();
        let process = Command::new(named("REDOUBT_TEST_MOTO"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("moto", 60, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Moto { process, port }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
