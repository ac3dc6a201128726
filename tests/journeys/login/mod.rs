//! The broker's credentials in the hands of docker's protocol, skopeo, a kubelet, and the daemon's
//! own deploys.

mod deploys;
mod failures;
mod helper;
mod kubelet;
mod other_helper;
mod skopeo;

use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::broker::Broker;
use tests::daemon::{CommandOutput, exchange};
use tests::programs::ours;
use tests::registry::{PASSWORD, Registry, USER};
use tests::services::Harbor;

/// A home of somebody who has the programs on the PATH, docker's helper among them.
struct Home {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    fn new() -> Home {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        let helper = programs.join("docker-credential-redoubt");
        symlink(ours("enclavectl"), helper).unwrap();
        Home {
            folder,
            variables: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let inherited = std::env::var("PATH").unwrap();
        let path = format!("{}:{inherited}", self.path("bin").display());
        let mut command = Command::new(program);
        command
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DOCKER_CONFIG")
            .env("HOME", self.folder.path())
            .env("PATH", path)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str], stdin: &str) -> CommandOutput {
        exchange(self.command(program).args(arguments), stdin)
    }

    /// `enclavectl registry`.
    fn registry(&self, arguments: &[&str], stdin: &str) -> CommandOutput {
        let arguments = [&["registry"], arguments].concat();
        self.run(ours("enclavectl"), &arguments, stdin)
    }

    fn login(&self, broker: &str, token_file: &Path, more: &[&str]) -> CommandOutput {
        let token_file = token_file.to_str().unwrap();
        let own = ["login", "--broker", broker, "--token-file", token_file];
        self.registry(&[&own[..], more].concat(), "")
    }

    fn helper(&self, verb: &str, stdin: &str) -> CommandOutput {
        self.run(self.path("bin/docker-credential-redoubt"), &[verb], stdin)
    }

    /// Writes docker's configuration.
    fn configure(&self, text: &str) {
        std::fs::create_dir_all(self.path(".docker")).unwrap();
        std::fs::write(self.path(".docker/config.json"), text).unwrap();
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(".docker/config.json")).unwrap()).unwrap()
    }
}

/// docker-registry, and a broker that has Harbor make credentials for it.
struct Shop {
    registry: Registry,
    broker: Broker,
    _harbor: Harbor,
}

impl Shop {
    async fn open() -> Shop {
        let registry = Registry::start();
        let harbor = Harbor::start((USER, PASSWORD)).await;
        let host = registry.host();
        let own = [("HOST_PROXY_REGISTRY__REGISTRY_URL", host.as_str())];
        Shop {
            broker: Broker::start(&[&harbor.settings()[..], &own].concat()),
            registry,
            _harbor: harbor,
        }
    }
}
