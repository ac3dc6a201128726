//! Sealed configs, from `seal` to the workload, in QEMU, against a fake KMS; and everything that a
//! parent may do to them.

mod authors;
mod happy;
mod hostile_enclave;
mod hostile_parent;
mod kms;
mod orders;
mod parent;
mod refusals;
mod registers;
mod signer;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::daemon::{CommandOutput, Daemon};
use tests::eif;
use tests::image::{Compression, Image};
use tests::kms::{ACCESS_KEY_ID, Kms, SECRET_ACCESS_KEY, attested_policy};
use tests::programs::ours;
use tests::registry::{PASSWORD, USER};
use tests::scene::Scene;
use tests::workloads::busybox;

/// The workload shows that it knows its secret without saying it: the log may leave the enclave.
pub(crate) const ENV_SCRIPT: &str =
    "printf %s \"$TOKEN\" | busybox sha256sum; exec busybox httpd -f -p 127.0.0.1:8080 -h /etc";

pub(crate) fn image(script: &str, env: &str) -> Image {
    let entrypoint = ["/bin/sh", "-c", script];
    Image::new(json!({ "Entrypoint": entrypoint, "User": "web", "Env": [env] }))
        .layer(busybox(), Compression::Gzip)
}

/// A KMS, a key, a registry with an image, and a spec that names them.
pub(crate) struct House {
    pub(crate) scene: Scene,
    pub(crate) kms: Kms,
    key: String,
    pub(crate) spec: PathBuf,
}

impl House {
    /// With a workload that gets its config as variables, and more lines in `[config]`.
    fn new(more: &str) -> House {
        House::of(&image(ENV_SCRIPT, "A=1"), Kms::start(), more)
    }

    fn of(image: &Image, kms: Kms, more: &str) -> House {
        let port = kms.port;
        House::behind(image, kms, port, more)
    }

    /// With KMS's endpoint at another port than KMS's.
    pub(crate) fn behind(image: &Image, kms: Kms, port: u16, more: &str) -> House {
        let scene = Scene::new(image, "org/app:v1");
        let key = kms.key(&attested_policy("none"));
        let spec = scene.path("enclave.toml");
        let names_variables = more.contains("deliver") || more.contains("variables");
        let variables = if names_variables {
            ""
        } else {
            "variables = ['TOKEN']"
        };
        let text = format!(
            "name = 'orders'\n[resources]\nmemory_mib = 192\ncpus = 1\n[network]\negress = ['localhost:{port}']\n\
             ingress = [{{ port = 8080 }}]\nattestation = '127.0.0.1:0'\n\
             [config]\nkms_key = '{key}'\nendpoint = 'localhost:{port}'\nca = '''{}'''\ncontext = {{ app = 'orders' }}\n{variables}\n{more}\n\
             [logs]\nforward = true\n",
            kms.ca()
        );
        std::fs::write(&spec, text).unwrap();
        House {
            scene,
            kms,
            key,
            spec,
        }
    }

    /// Builds what the daemon will build; its path and PCR0.
    fn build(&self) -> (PathBuf, String) {
        let path = self.scene.path("app.eif");
        let arguments = ["--spec", self.spec.to_str().unwrap()];
        let Scene {
            registry,
            reference,
            ..
        } = &self.scene;
        let built = eif::printed(&eif::build(registry, reference, &path, &arguments));
        let pcr0 = built["measurements"]["PCR0"].as_str().unwrap().to_owned();
        (path, pcr0)
    }

    /// Builds, and lets KMS decrypt for it.
    pub(crate) fn allow(&self) -> (PathBuf, String) {
        let (path, pcr0) = self.build();
        self.kms.set_policy(&self.key, &attested_policy(&pcr0));
        (path, pcr0)
    }

    fn daemon(&self, more: &[(&str, &str)]) -> Daemon {
        let aws = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ];
        self.scene.start(&[&aws[..], more].concat())
    }

    /// Seals a config; the file and what the command printed.
    pub(crate) fn seal(&self, text: &str, version: u64) -> (PathBuf, Value) {
        let (sealed, output) = self.try_seal(text, version, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        (sealed, serde_json::from_slice(&output.stdout).unwrap())
    }

    /// With more arguments; it may fail.
    fn try_seal(&self, text: &str, version: u64, more: &[&str]) -> (PathBuf, Output) {
        let plain = self.scene.path("plain");
        std::fs::write(&plain, text).unwrap();
        let sealed = self.scene.path(&format!("{version}.sealed"));
        // The demo and a test below seal with eif-builder.
        let output = Command::new(ours("enclavectl"))
            .args(["--json", "seal", "--version", &version.to_string()])
            .args([Path::new("--spec"), &self.spec, Path::new("-o"), &sealed])
            .args(more)
            .arg(&plain)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .output()
            .unwrap();
        std::fs::remove_file(plain).unwrap();
        (sealed, output)
    }

    /// Creates the enclave `orders` with this config.
    fn create(&self, daemon: &Daemon, config: &Path) -> CommandOutput {
        let image = [
            "create",
            "--name",
            "orders",
            "--image",
            &self.scene.reference,
        ];
        let credentials = ["--registry-username", USER, "--registry-password-stdin"];
        let [spec, config] = [self.spec.as_path(), config].map(|path| path.to_str().unwrap());
        let files = ["--spec", spec, "--config", config];
        daemon.ctl(&[&image[..], &credentials, &files].concat(), PASSWORD)
    }
}

/// Where the daemon may reach the fake.
pub(crate) const INWARD: (&str, &str) = (
    "HOST_PROXY_EGRESS__ALLOW_NETWORKS",
    "['127.0.0.0/8', '::1/128']",
);

fn configure(daemon: &Daemon, sealed: &Path) -> CommandOutput {
    daemon.ctl(&["configure", "orders", sealed.to_str().unwrap()], "")
}

/// Which config the record says, and the status.
fn assert_deployed(record: &Value, version: u64) {
    let found = (&record["config"]["version"], &record["status"]);
    assert_eq!(found, (&version.into(), &"DEPLOYED".into()));
}

fn configs(daemon: &Daemon) -> usize {
    tests::files::count(&daemon.folder().join("state/configs"))
}

pub(crate) fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}
