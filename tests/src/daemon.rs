//! `host-proxy serve` as a process with folders of its own, and `enclavectl` speaking to it.

use crate::programs::{lib, ours};
use crate::registry::{PASSWORD, Registry, USER};
use crate::wait_for;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

pub struct Daemon {
    process: Option<Child>,
    folder: TempDir,
    settings: Vec<(String, String)>,
}

/// What a program did.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Daemon {
    /// Settings are environment variables: `HOST_PROXY_…`, or any other.
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Daemon {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        // Short, for the sake of socket paths.
        let folder = tempfile::Builder::new()
            .prefix("rd")
            .rand_bytes(6)
            .tempdir_in("/tmp")
            .unwrap();
        let mut daemon = Daemon {
            process: None,
            folder,
            settings,
        };
        daemon.restart();
        daemon
    }

    /// A daemon that may speak plain HTTP to this registry, with more settings.
    #[must_use]
    pub fn start_for(registry: &Registry, more: &[(&str, &str)]) -> Daemon {
        let plain_http = format!("['{}']", registry.host());
        let own = [("HOST_PROXY_PULL__PLAIN_HTTP", plain_http.as_str())];
        Daemon::start(&[&own[..], more].concat())
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("run/api.sock")
    }

    /// Starts the process again over the same folders.
    pub fn restart(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder().join("log"))
            .unwrap();
        let mut command = Command::new(ours("host-proxy"));
        command
            .arg("serve")
            .env("REDOUBT_LIB", lib())
            .env("HOST_PROXY_CONFIG_DIR", self.folder().join("etc"))
            .env("HOST_PROXY_STATE_DIR", self.folder().join("state"))
            .env("HOST_PROXY_RUN_DIR", self.folder().join("run"))
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.process = Some(command.spawn().unwrap());
        wait_for("the daemon's socket", 30, || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// SIGKILL: the daemon has no chance to clean up.
    pub fn crash(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        Command::new("kill")
            .arg(process.id().to_string())
            .status()
            .unwrap();
        process.wait().unwrap().code()
    }

    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap()
    }

    /// Runs `enclavectl` with this standard input.
    #[must_use]
    pub fn ctl(&self, arguments: &[&str], stdin: &str) -> CommandOutput {
        exchange(
            Command::new(ours("enclavectl"))
                .arg("--socket")
                .arg(self.socket())
                .args(arguments),
            stdin,
        )
    }

    /// `enclavectl create` with the credentials of [`Registry::start`], until it is settled.
    #[must_use]
    pub fn create(&self, name: &str, reference: &str, spec: &str) -> CommandOutput {
        let path = self.folder().join(format!("{name}.toml"));
        std::fs::write(&path, spec).unwrap();
        let image = ["create", "--name", name, "--image", reference];
        let credentials = ["--registry-username", USER, "--registry-password-stdin"];
        let spec = ["--spec", path.to_str().unwrap()];
        self.ctl(&[&image[..], &credentials, &spec].concat(), PASSWORD)
    }

    /// What the workload printed.
    #[must_use]
    pub fn logs(&self, name: &str) -> String {
        self.ctl(&["logs", name], "").stdout
    }

    /// `enclavectl --json show NAME`.
    #[must_use]
    pub fn show(&self, name: &str) -> serde_json::Value {
        let answer = self.ctl(&["--json", "show", name], "");
        assert_eq!(answer.code, 0, "{answer:?}");
        serde_json::from_str(&answer.stdout).unwrap()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// The environment that the daemon was started with.
    #[must_use]
    pub fn environment(&self) -> String {
        let pid = self.process.as_ref().unwrap().id();
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap())
            .into_owned()
    }

    /// Programs that run for this daemon: its folders are in their arguments.
    #[must_use]
    pub fn helpers(&self) -> Vec<String> {
        let mine = self.folder().join("run").display().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            .filter(|line| line.contains(&mine) && !line.contains("enclavectl"))
            .collect()
    }
}

/// Runs a program with this standard input.
#[must_use]
pub fn exchange(command: &mut Command, stdin: &str) -> CommandOutput {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    CommandOutput {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
        if std::thread::panicking() {
            let _ = writeln!(
                std::io::stderr(),
                "--- the daemon's log ---\n{}",
                self.log()
            );
        }
    }
}
