//! On a parent instance: the daemon is the packaged service, the driver is Linux's own, and the
//! hypervisor behind it is ours.

mod driver;
mod life;
mod nitro_cli;
mod package;
mod service;

use serde_json::{Value, json};
use tests::image::{Compression, Image};
use tests::parent::Parent;
use tests::registry::Registry;
use tests::scene::Scene;
use tests::workloads::busybox;

/// One enclave, one core.
const SPEC: &str = "[resources]\nmemory_mib = 192\ncpus = 1\n[network]\ningress = [{ port = 8080 }]\n[logs]\nforward = true\n";

/// A machine, and a registry in its reach that has a small web server.
struct Box {
    parent: Parent,
    scene: Scene,
}

impl Box {
    fn new(settings: &[(&str, &str)]) -> Box {
        Box::with(Parent::boot(), settings)
    }

    fn with(parent: Parent, settings: &[(&str, &str)]) -> Box {
        let entrypoint = [
            "/bin/sh",
            "-c",
            "exec busybox httpd -f -p 127.0.0.1:8080 -h /etc",
        ];
        let image = Image::new(json!({ "Entrypoint": entrypoint, "User": "web" }))
            .layer(busybox(), Compression::Gzip);
        let scene = Scene::at(Registry::start(), &image, "org/app:v1");
        parent.with_registry(&scene.registry, settings);
        Box { parent, scene }
    }

    /// Creates an enclave that must be DEPLOYED, and gives its record.
    fn deployed(&self, name: &str) -> Value {
        let created = self.parent.create(name, &self.scene.reference, SPEC);
        assert_eq!(created.code, 0, "{created:?}\n{}", self.parent.logs());
        let record = self.parent.show(name);
        assert_eq!(record["status"], "DEPLOYED", "{record}");
        record
    }

    /// Creates an enclave that must fail, and gives its failure. It is gone afterwards.
    fn failure(&self, name: &str) -> Value {
        let created = self.parent.create(name, &self.scene.reference, SPEC);
        let record = self.parent.show(name);
        assert_eq!(
            (created.code, &record["status"]),
            (1, &"FAILED".into()),
            "{created:?}"
        );
        self.terminate(name);
        record["failure"].clone()
    }

    /// The CID of the one enclave there is.
    fn only_cid(&self) -> u64 {
        let events = self.parent.machine.events().lines();
        let started = events
            .iter()
            .rev()
            .find_map(|line| line.split_once("started CID "));
        let (_, rest) = started.unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    }

    fn terminate(&self, name: &str) {
        self.parent.ok(&format!("enclavectl terminate {name}"));
    }

    fn serves(&self, name: &str) {
        assert!(self.parent.get(name, "/passwd").contains("web:x:1000"));
    }
}
