//! Workloads that need nothing but themselves.

use crate::image::{Compression, Image, Layer};
use crate::programs::{lib, named};
use serde_json::json;
use std::io::Read as _;

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

/// Python, curl, OpenSSL and the like of Debian, as a layer: what `scripts/test-programs` makes,
/// without its largest parts.
#[must_use]
pub fn small_programs() -> Vec<u8> {
    const LEFT_OUT: [&str; 5] = [
        "lib/jvm",
        "lib/git-core",
        "lib/postgresql",
        "share/perl",
        "bin/hey",
    ];
    let file = std::fs::File::open(named("REDOUBT_TEST_PROGRAMS")).unwrap();
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let (mut layer, mut before) = (Vec::new(), Vec::new());
    for entry in archive.entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let mut block = entry.header().as_bytes().to_vec();
        entry.read_to_end(&mut block).unwrap();
        block.resize(block.len().next_multiple_of(512), 0);
        // Long names and attributes are entries of their own before what they are about.
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
            before.extend(block);
            continue;
        }
        let path = entry.header().path_bytes().into_owned();
        let path = String::from_utf8_lossy(&path).into_owned();
        if LEFT_OUT
            .iter()
            .all(|prefix| !path.starts_with(&format!("./usr/{prefix}")))
        {
            layer.append(&mut before);
            layer.extend(block);
        }
        before.clear();
    }
    layer.resize(layer.len() + 1024, 0);
    layer
}

/// Lets the output out, and keeps the enclave small.
pub const SPEC: &str = "[resources]\nmemory_mib = 192\ncpus = 1\n[logs]\nforward = true\n";
