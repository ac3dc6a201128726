//! The tree in the enclave against umoci: what its kernel mounted there must be what umoci unpacks,
//! entry by entry.

use std::process::Command;
use tests::image::{Compression, Layer};
use tests::programs::{lib, run};
use tests::scene::Scene;
use tests::wait_for;
use tests::workloads::{SPEC, listing_image};

const CAPABILITY: &[u8] =
    b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00";

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).trim() == "0"
}

/// What images hold that is easily lost.
fn rich_image() -> tests::image::Image {
    listing_image()
        .layer(many_files(), Compression::Gzip)
        .layer(
            contents_and_attributes(kinds_and_links()),
            Compression::Zstd,
        )
        .layer(changes(), Compression::None)
}

fn many_files() -> Layer {
    (0..600).fold(Layer::default().dir("many", 0o755), |layer, n| {
        layer.file(
            &format!("many/{n:04}-with-a-name-that-is-long-enough-to-fill-directory-blocks"),
            0o644,
            0,
            format!("{n}"),
        )
    })
}

/// What later layers change is among them.
fn kinds_and_links() -> Layer {
    Layer::default()
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("usr/lib/libc.so", 0o755, 0, vec![7; 300_000])
        .hard_link("usr/lib/libc.so.6", "usr/lib/libc.so")
        .hard_link("second-name", "usr/lib/libc.so")
        .file("su", 0o4755, 0, "setuid")
        .file("sticky", 0o2711, 12, "setgid")
        .dir("tmp", 0o1777)
        .file("gone", 0o644, 0, "a later layer hides this")
        .dir("opaque", 0o755)
        .file("opaque/old", 0o644, 0, "old")
        .file("replaced-by-a-directory", 0o644, 0, "x")
        .dir("replaced-by-a-file", 0o755)
        .file("replaced-by-a-file/inner", 0o644, 0, "x")
}

fn contents_and_attributes(layer: Layer) -> Layer {
    let big: Vec<u8> = (0..400_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    layer
        .file(
            "owned",
            0o600,
            4_000_000_000,
            "by somebody with a large number",
        )
        .file("empty", 0o644, 0, "")
        .file("big", 0o644, 0, &big)
        .file("same-as-big", 0o644, 0, &big)
        .file("zeros", 0o644, 0, vec![0; 300_001])
        .xattrs(&[
            ("security.capability", CAPABILITY),
            ("user.note", b"two\nlines"),
        ])
        .file("ping", 0o755, 0, "with a capability")
        .xattrs(&[("user.note", b"of a directory")])
        .dir("noted", 0o755)
        .symlink("dangling", "/nowhere/at/all")
        .fifo("pipe")
        .char_device("null", 1, 3)
        .dir("sub", 0o711)
        .file("sub/\u{fc}mlaut name", 0o644, 0, "x")
}

/// Over the layer before.
fn changes() -> Layer {
    Layer::default()
        .file("lib/through-the-link", 0o644, 0, "lands in usr/lib")
        .file(".wh.gone", 0o644, 0, "")
        .dir("opaque", 0o700)
        .file("opaque/new", 0o644, 0, "new")
        .file("opaque/.wh..wh..opq", 0o644, 0, "")
        .dir("replaced-by-a-directory", 0o755)
        .file("replaced-by-a-directory/inner", 0o644, 0, "y")
        .file("replaced-by-a-file", 0o644, 0, "y")
        .file("second-name", 0o644, 0, "no longer the same file")
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_tree_in_the_enclave_is_the_one_that_umoci_unpacks() {
    if !is_root() {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: umoci keeps owners and devices for root only\n",
        );
        return;
    }
    let expected = unpacked_by_umoci();
    assert!(expected.lines().count() > 630, "{expected}");

    let scene = Scene::new(&rich_image(), "org/rich:v1");
    let daemon = scene.start(&[]);
    let created = daemon.create("rich", &scene.reference, SPEC);
    assert_eq!(created.code, 0, "{created:?}");
    wait_for("the listing", 60, || daemon.logs("rich").contains("\nEND "));
    let strange = difference(&expected, &daemon.logs("rich"));
    assert!(
        strange.is_empty(),
        "umoci (-) and the enclave (+) differ:\n{}",
        strange.join("\n")
    );
    assert_eq!(daemon.ctl(&["terminate", "rich"], "").code, 0);
}

/// The listing of the tree that umoci makes of the image.
fn unpacked_by_umoci() -> String {
    let folder = tempfile::tempdir().unwrap();
    let (layout, unpacked) = (folder.path().join("layout"), folder.path().join("unpacked"));
    let mut image = rich_image();
    // Debian's umoci is older than zstd layers: it gets the same archives in gzip.
    for (_, compression) in &mut image.layers {
        *compression = Compression::Gzip;
    }
    image.write(&layout);
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:v1", layout.display()))
        .arg(&unpacked));
    run(Command::new(lib().join("tree-listing")).arg(unpacked.join("rootfs")))
}

fn difference(expected: &str, found: &str) -> Vec<String> {
    let set = |text: &str| {
        text.lines()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (expected, found) = (set(expected), set(found));
    let missing = expected.difference(&found).map(|line| format!("- {line}"));
    missing
        .chain(found.difference(&expected).map(|line| format!("+ {line}")))
        .collect()
}
