//! MiniStack and moto, emulators of AWS, as processes on loopback. A green run against them says nothing about the real one.

use crate::programs::named;
use crate::{free_port, wait_for};
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

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
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
