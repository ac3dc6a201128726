//! The network that a workload sees: ordinary programs of Debian, unchanged, and what they cannot
//! reach. The image has them all; `scripts/test-programs` makes it.

mod flood;
mod load;
mod programs;
mod refusals;
mod streams;

use serde_json::json;
use tests::daemon::Daemon;
use tests::image::{Compression, Image, Layer};
use tests::names::Names;
use tests::programs::named;
use tests::scene::Scene;
use tests::wait_for;

/// What a workload prints last.
const DONE: &str = "that was all\n";

/// The programs, and files of the test in `/test`. `start` is run by the shell there.
fn image(files: &[(&str, &str)], start: &str) -> Image {
    let programs = std::fs::read(named("REDOUBT_TEST_PROGRAMS")).unwrap();
    let script = format!(
        "{start}\nprintf '{}'; exec sleep 1000",
        DONE.escape_default()
    );
    let mut own = Layer::default().dir("test", 0o755);
    for (name, content) in files {
        own = own.file(&format!("test/{name}"), 0o644, 0, content);
    }
    let own = own.file("test/start", 0o644, 0, script);
    let config = json!({ "Entrypoint": ["/bin/sh", "/test/start"], "WorkingDir": "/test" });
    let mut image = Image::new(config);
    image.layers.push((programs, Compression::None));
    image.layer(own, Compression::Gzip)
}

/// Runs an image whose host resolves these names to itself, and lets enclaves reach its loopback.
/// Gives what the workload said.
fn said(image: &Image, names: &[&str], egress: &[String], seconds: u64) -> String {
    let (scene, _names, daemon) = start(image, names);
    run(&daemon, &scene.reference, egress, seconds)
}

/// A daemon on such a host.
fn start(image: &Image, names: &[&str]) -> (Scene, Names, Daemon) {
    let scene = Scene::new(image, "org/programs:v1");
    let names = Names::of_this_machine(names);
    let daemon = scene.start_with(&names);
    (scene, names, daemon)
}

fn run(daemon: &Daemon, reference: &str, egress: &[String], seconds: u64) -> String {
    let spec = format!(
        "[resources]\nmemory_mib = 1536\ncpus = 1\n[logs]\nforward = true\n[network]\negress = {egress:?}\n"
    );
    let created = daemon.create("net", reference, &spec);
    assert_eq!(created.code, 0, "{created:?}");
    let mut said = String::new();
    wait_for("the workload's last line", seconds, || {
        said = daemon.logs("net");
        said.contains(DONE)
    });
    said
}
