//! Workloads that need nothing but themselves.

use crate::image::{Compression, Image, Layer};
use crate::programs::lib;
use serde_json::json;

/// A shell and its tools, from the Debian package that the tests install, and two users.
#[must_use]
pub fn busybox() -> Layer {
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
#[must_use]
pub fn listing_image() -> Image {
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
pub const SPEC: &str = "[resources]\nmemory_mib = 192\ncpus = 1\n[logs]\nforward = true\n";
