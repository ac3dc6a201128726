//! Enclave images against oracles: AWS's own library, and themselves.

use crate::listing_image;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tests::programs::{lib, ours};
use tests::registry::{PASSWORD, Registry, USER};

/// `eif-builder build` as a pipeline calls it.
pub(crate) fn build(registry: &Registry, reference: &str, output: &Path, extra: &[&str]) -> Output {
    let host = registry.host();
    let mut child = Command::new(ours("eif-builder"))
        .args([
            "build",
            reference,
            "--plain-http",
            &host,
            "--username",
            USER,
            "--password-stdin",
            "--json",
            "-o",
        ])
        .arg(output)
        .args(extra)
        .env("REDOUBT_LIB", lib())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(PASSWORD.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn measurements(output: &Output) -> serde_json::Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_same_image_gives_the_same_bytes_and_awss_library_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let digest = listing_image().write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/app:v1");
    let [first, second] = ["a.eif", "b.eif"].map(|name| folder.path().join(name));

    let json = measurements(&build(&registry, &reference, &first, &[]));
    assert_eq!(json["image"]["reference"], reference.as_str());
    assert_eq!(json["image"]["digest"], digest.as_str());
    assert_eq!(json["eif"], first.to_str().unwrap());
    let again = measurements(&build(&registry, &reference, &second, &[]));
    assert_eq!(json["measurements"], again["measurements"]);
    assert!(
        std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(),
        "two builds differ"
    );

    let mut oracle = aws_nitro_enclaves_image_format::utils::eif_reader::EifReader::from_eif(
        first.display().to_string(),
    )
    .unwrap();
    assert!(oracle.check_crc());
    let theirs = oracle.get_measurements().unwrap();
    for pcr in ["PCR0", "PCR1", "PCR2"] {
        assert_eq!(
            json["measurements"][pcr].as_str(),
            theirs.get(pcr).map(String::as_str),
            "{pcr}"
        );
    }

    let described = Command::new(ours("eif-builder"))
        .arg("describe")
        .arg(&first)
        .output()
        .unwrap();
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).unwrap();
    assert_eq!(described["Measurements"], json["measurements"]);
    assert_eq!(
        (
            &described["CheckCRC"],
            &described["IsSigned"],
            &described["EifVersion"]
        ),
        (&true.into(), &false.into(), &4.into())
    );
    assert_eq!(described["Metadata"]["BuildTime"], "1970-01-01T00:00:00Z");
    // Nothing half-done stays beside the result.
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["a.eif", "b.eif", "layout"]);
}

#[test]
fn what_is_measured_and_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    listing_image().write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/app:v1");
    let pcrs = |spec: &str| {
        let path = folder.path().join("enclave.toml");
        std::fs::write(&path, spec).unwrap();
        let output = build(
            &registry,
            &reference,
            &folder.path().join("app.eif"),
            &["--spec", path.to_str().unwrap()],
        );
        measurements(&output)["measurements"].clone()
    };
    let plain = pcrs("");
    assert_eq!(
        plain,
        pcrs("[resources]\nmemory_mib = 4096\n"),
        "the host's resources are not measured"
    );
    let logs = pcrs("[logs]\nforward = true\n");
    assert_eq!(plain["PCR1"], logs["PCR1"], "the boot code is the same");
    assert_ne!(plain["PCR2"], logs["PCR2"]);
    assert_ne!(plain["PCR0"], logs["PCR0"]);
}
