//! All journeys in one binary: it is linked once.
#![allow(
    clippy::let_underscore_must_use,
    clippy::match_bool,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: what goes wrong here is to end the test with a backtrace"
)]

mod attest;
mod broker;
mod credentials;
mod deploy;
mod documents;
mod eif;
mod failures;
mod house;
mod launch;
mod login;
mod providers;
mod pull;
mod rules;
mod sealed;
mod tree;

use serde_json::json;
use tests::image::{Compression, Image, Layer};
use tests::programs::lib;

/// A shell and its tools, from the Debian package that the tests install, and two users.
fn busybox() -> Layer {
    let program = std::fs::read("/bin/busybox")
        .or_else(|_| std::fs::read("/usr/bin/busybox"))
        .unwrap();
    Layer::default()
        .dir("etc", 0o755)
        .file(
            "etc/passwd",
            0o644,
            0,
            "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n",
        )
        .file("bin/busybox", 0o755, 0, program)
        .hard_link("bin/sh", "bin/busybox")
}

/// A workload that needs nothing: `tree-listing`, which prints what it sees and waits.
fn listing_image() -> Image {
    let program = std::fs::read(lib().join("tree-listing")).unwrap();
    let base = Layer::default()
        .dir("etc", 0o755)
        .file(
            "etc/passwd",
            0o644,
            0,
            "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n",
        )
        .file("etc/group", 0o644, 0, "root:x:0:\nweb:x:1000:\n")
        .file("etc/hosts", 0o644, 0, "127.0.0.1 localhost\n");
    Image::new(json!({ "Entrypoint": ["/tree-listing"], "Cmd": ["/", "--wait"], "User": "root" }))
        .layer(base, Compression::Gzip)
        .layer(
            Layer::default().file("tree-listing", 0o755, 0, program),
            Compression::Gzip,
        )
}

/// Lets the output out, and keeps the enclave small.
const SPEC: &str = "[resources]\nmemory_mib = 192\ncpus = 1\n[logs]\nforward = true\n";
