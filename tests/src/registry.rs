//! Debian's docker-registry as a process on loopback, with htpasswd, filled by skopeo: code that
//! has nothing to do with ours.

use crate::programs::{named, run};
use crate::{free_port, wait_for};
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub const USER: &str = "alice";
/// Unlike anything else that a test could write, so that a search for it proves something.
pub const PASSWORD: &str = "tW4-plum-zeppelin-91f3";

pub struct Registry {
    process: Child,
    pub port: u16,
    folder: TempDir,
    login: String,
}

impl Registry {
    #[must_use]
    pub fn start() -> Registry {
        Registry::start_for(USER, PASSWORD)
    }

    /// Lets in somebody else.
    #[must_use]
    pub fn start_for(user: &str, password: &str) -> Registry {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut htpasswd = Command::new("htpasswd")
            .args(["-i", "-n", "-B", user])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        htpasswd
            .stdin
            .take()
            .unwrap()
            .write_all(password.as_bytes())
            .unwrap();
        std::fs::write(
            folder.path().join("htpasswd"),
            htpasswd.wait_with_output().unwrap().stdout,
        )
        .unwrap();
        let root = folder.path().display();
        let config = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {root}/data }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\", secret: none }}\n\
             auth: {{ htpasswd: {{ realm: test, path: {root}/htpasswd }} }}\n"
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(named("REDOUBT_TEST_REGISTRY"))
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for("the registry", 30, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Registry {
            process,
            port,
            folder,
            login: format!("{user}:{password}"),
        }
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes an OCI layout's `v1` as `NAME`, and gives the whole reference.
    #[must_use]
    pub fn push(&self, layout: &Path, name: &str) -> String {
        let auth = self.folder.path().join("auth.json");
        let auth_json = serde_json::json!({ "auths": { self.host(): { "auth": base64(self.login.as_bytes()) } } });
        std::fs::write(&auth, auth_json.to_string()).unwrap();
        let reference = format!("{}/{name}", self.host());
        run(Command::new("skopeo")
            .args([
                "copy",
                "--quiet",
                "--preserve-digests",
                "--dest-tls-verify=false",
                "--authfile",
            ])
            .arg(auth)
            .arg(format!("oci:{}:v1", layout.display()))
            .arg(format!("docker://{reference}")));
        reference
    }
}

pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let number =
            piece.iter().fold(0usize, |n, &b| n << 8 | usize::from(b)) << (8 * (3 - piece.len()));
        for place in 0..4 {
            let digit = char::from(DIGITS[number >> (18 - 6 * place) & 63]);
            text.push(if place > piece.len() { '=' } else { digit });
        }
    }
    text
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
