//! Attestation for the workload: the socket, the origin of documents, and a TLS key that is bound
//! to one. The documents are QEMU's, signed by a stand-in for AWS, so that `attest` judges them as a
//! relying party's does.

mod socket;
mod tls;

use pki::Signer;
use serde_json::json;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use tests::daemon::{CommandOutput, Daemon, exchange};
use tests::image::{Compression, Image, Layer};
use tests::programs::ours;
use tests::scene::Scene;
use tests::workloads::small_programs;

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n";

/// An enclave with Debian's Python, and what a relying party knows of it.
struct Enclave {
    daemon: Daemon,
    scene: Scene,
}

impl Enclave {
    /// Runs a script of Python as the user of the spec.
    fn start(script: &str, spec: &str) -> Enclave {
        let own = Layer::default()
            .dir("etc", 0o755)
            .file("etc/passwd", 0o644, 0, PASSWD)
            .dir("srv", 0o755)
            .file("srv/serve.py", 0o644, 0, script);
        let command = json!({ "Entrypoint": ["/usr/bin/python3", "-u", "/srv/serve.py"] });
        let mut image = Image::new(command);
        image.layers.push((small_programs(), Compression::None));
        let scene = Scene::new(&image.layer(own, Compression::Gzip), "org/app:v1");
        let socket = scene.path("signer");
        let signer = Signer::open(scene.folder()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || signer.serve(listener));
        let signer = socket.to_str().unwrap();
        let daemon = scene.start(&[("HOST_PROXY_QEMU__NSM_SIGNER", signer)]);
        let created = daemon.create("app", &scene.reference, spec);
        assert_eq!(created.code, 0, "{created:?}");
        let enclave = Enclave { daemon, scene };
        let measurements = enclave.daemon.show("app")["measurements"].to_string();
        std::fs::write(enclave.path("built.json"), measurements).unwrap();
        enclave
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    /// Where relying parties ask.
    fn endpoint(&self) -> String {
        let record = self.daemon.show("app");
        record["attestation"].as_str().unwrap().to_owned()
    }

    /// `attest` with the enclave's measurements, below the stand-in's root.
    fn attest(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = std::process::Command::new(ours("attest"));
        command.args(arguments).current_dir(self.scene.folder());
        command.args([
            "--measurements",
            "built.json",
            "--root",
            "root.pem",
            "--json",
        ]);
        exchange(&mut command, "")
    }
}
