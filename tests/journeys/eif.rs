//! Enclave images against oracles: AWS's own library, and themselves.

use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::process::Command;
use tests::eif::{build, printed};
use tests::programs::{lib, ours};
use tests::scene::Scene;
use tests::workloads::listing_image;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_same_image_gives_the_same_bytes_and_awss_library_agrees() {
    let scene = Scene::new(&listing_image(), "org/app:v1");
    let [first, second] = ["a.eif", "b.eif"].map(|name| scene.path(name));
    let json = printed(&build(&scene.registry, &scene.reference, &first, &[]));
    assert_eq!(json["image"]["reference"], scene.reference.as_str());
    assert_eq!(json["image"]["digest"], scene.digest.as_str());
    assert_eq!(json["eif"], first.to_str().unwrap());
    let again = printed(&build(&scene.registry, &scene.reference, &second, &[]));
    assert_eq!(json["measurements"], again["measurements"]);
    assert_eq!(json["parts"], again["parts"]);
    let agent = std::fs::read(lib().join("enclave-agent")).unwrap();
    let agent = hex::encode(Sha256::digest(agent));
    assert_eq!(json["parts"]["agent"], format!("sha256:{agent}"));
    let are_same = std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap();
    assert!(are_same, "two builds differ");

    awss_library_measures_the_same(&first, &json["measurements"]);
    description_agrees(&first, &json["measurements"]);
    // Nothing half-done stays beside the result.
    let entries = std::fs::read_dir(scene.folder()).unwrap();
    let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.eif", "b.eif", "layout"]);
}

fn awss_library_measures_the_same(eif: &Path, measurements: &Value) {
    let mut oracle = EifReader::from_eif(eif.display().to_string()).unwrap();
    assert!(oracle.check_crc());
    let theirs = oracle.get_measurements().unwrap();
    for pcr in ["PCR0", "PCR1", "PCR2"] {
        let expected = theirs.get(pcr).map(String::as_str);
        assert_eq!(measurements[pcr].as_str(), expected, "{pcr}");
    }
}

fn description_agrees(eif: &Path, measurements: &Value) {
    let mut describe = Command::new(ours("eif-builder"));
    let output = describe.arg("describe").arg(eif).output().unwrap();
    let described: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(described["Measurements"], *measurements);
    let [crc, signed, version] =
        ["CheckCRC", "IsSigned", "EifVersion"].map(|name| &described[name]);
    assert_eq!(
        (crc, signed, version),
        (&true.into(), &false.into(), &4.into())
    );
    assert_eq!(described["Metadata"]["BuildTime"], "1970-01-01T00:00:00Z");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn what_is_measured_and_what_is_not() {
    let scene = Scene::new(&listing_image(), "org/app:v1");
    let pcrs = |spec: &str| {
        let path = scene.path("enclave.toml");
        std::fs::write(&path, spec).unwrap();
        let arguments = ["--spec", path.to_str().unwrap()];
        let eif = scene.path("app.eif");
        let output = build(&scene.registry, &scene.reference, &eif, &arguments);
        printed(&output)["measurements"].clone()
    };
    let plain = pcrs("");
    let larger = pcrs("[resources]\nmemory_mib = 4096\n");
    assert_eq!(plain, larger, "the host's resources are not measured");
    let logs = pcrs("[logs]\nforward = true\n");
    assert_eq!(plain["PCR1"], logs["PCR1"], "the boot code is the same");
    assert_ne!(plain["PCR2"], logs["PCR2"]);
    assert_ne!(plain["PCR0"], logs["PCR0"]);
}
