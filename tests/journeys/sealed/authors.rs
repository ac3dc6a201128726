//! Who may say what a config holds: the spec names its variables and its sealer, and the enclave
//! opens no other.

use super::House;
use super::parent::{Parent, Wrong};
use relay::control::Report;
use serde_json::Value;
use tests::eif;
use wire::control::AbortReason;
use wire::sealed::Sealed;

/// Keys of RFC 8032, 7.1, tests 1 and 2, as OpenSSL writes them, and their public parts.
const SEALER: (&str, &str) = (
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
);
const OTHER: (&str, &str) = (
    "MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
);

/// The file that an author makes for the spec after this change, which the enclave knows nothing of.
fn sealed_for(house: &House, from: &str, to: &str, text: &str, more: &[&str]) -> Vec<u8> {
    let spec = std::fs::read_to_string(&house.spec).unwrap();
    assert!(spec.contains(from));
    std::fs::write(&house.spec, spec.replace(from, to)).unwrap();
    let (path, output) = house.try_seal(text, 1, more);
    std::fs::write(&house.spec, spec).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    std::fs::read(path).unwrap()
}

fn pem(house: &House, name: &str, (key, _): (&str, &str)) -> String {
    let path = house.scene.path(name);
    let text = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_config_sets_the_variables_that_its_spec_names_and_no_others() {
    let house = House::new("variables = ['TOKEN', 'URL']");
    let (eif, _) = house.allow();
    let parent = Parent::new(&house, &eif);
    let boot = |config: Vec<u8>| parent.boot(&config);
    let (good, _) = house.seal("TOKEN=x\n", 1);
    assert_eq!(boot(std::fs::read(good).unwrap()), Report::Started);
    let mut wrong = Wrong::default();
    let unnamed = "line 2 of the config sets a variable that config.variables";
    for name in ["OTHER", "LD_PRELOAD", "BASH_ENV", "PATH", "A"] {
        let text = format!("TOKEN=x\n{name}=/tmp/x\n");
        let (_, refused) = house.try_seal(&text, 1, &[]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(stderr.contains(unnamed), "{stderr}");
        // Whoever seals may use another spec. The image itself sets A.
        let config = sealed_for(&house, "'URL'", &format!("'{name}'"), &text, &[]);
        let expected = (AbortReason::ConfigUnusable, unnamed);
        wrong.check(name, boot(config), expected);
    }
    wrong.assert_none();
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_spec_may_name_a_loaders_variable_and_is_cautioned_about() {
    let house = House::new("variables = ['TOKEN', 'LD_PRELOAD']");
    let caution = "names LD_PRELOAD, which steers the dynamic loader";
    let Value::String(sealed) = &house.seal("TOKEN=x", 1).1["cautions"][0] else {
        panic!("no caution");
    };
    assert!(sealed.contains(caution), "{sealed}");
    let arguments = ["--spec", house.spec.to_str().unwrap()];
    let build = || {
        let path = house.scene.path("app.eif");
        eif::build(
            &house.scene.registry,
            &house.scene.reference,
            &path,
            &arguments,
        )
    };
    let built = build();
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(stderr.contains(&format!("caution: config.variables {caution}")));
    let printed = eif::printed(&built);
    assert!(printed["cautions"][0].as_str().unwrap().contains(caution));
    assert_eq!(printed["sealed_config"], true);

    let spec = std::fs::read_to_string(&house.spec).unwrap();
    std::fs::write(&house.spec, spec.replace("LD_PRELOAD", "A")).unwrap();
    let stderr = String::from_utf8(build().stderr).unwrap();
    assert!(stderr.contains("'A' is set by the image"), "{stderr}");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_config_without_its_sealers_signature_is_refused_before_kms_is_asked() {
    let line = format!("sealer = '{}'", SEALER.1);
    let house = House::new(&line);
    let (eif, _) = house.allow();
    let parent = Parent::new(&house, &eif);
    let boot = |config: Vec<u8>| parent.boot(&config);
    let [key, other_key] =
        [("sealer.pem", SEALER), ("other.pem", OTHER)].map(|(name, pair)| pem(&house, name, pair));
    let signed = sealed_for(&house, &line, &line, "TOKEN=x", &["--sign-key", &key]);
    assert_eq!(boot(signed.clone()), Report::Started);
    for (more, part) in [
        (&[][..], "must be signed"),
        (&["--sign-key", &other_key], "has the public key '3d4017"),
    ] {
        let (_, refused) = house.try_seal("TOKEN=x", 1, more);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(stderr.contains(part), "{stderr}");
    }

    let unsigned = sealed_for(&house, &line, "", "TOKEN=x", &[]);
    let other_line = format!("sealer = '{}'", OTHER.1);
    let other = ["--sign-key", &other_key];
    let elsewhere = sealed_for(&house, &line, &other_line, "TOKEN=x", &other);
    let asked = house.kms.seen().len();
    let mut wrong = Wrong::default();
    for (what, config, part) in [
        ("no signature", unsigned.clone(), "is not signed"),
        ("another sealer", elsewhere.clone(), "is signed by '3d4017"),
        (
            "a lie about the sealer",
            renamed(&elsewhere),
            "is not that of",
        ),
        (
            "an unsigned file renamed",
            renamed(&unsigned),
            "is not that of",
        ),
        ("a cut signature", cut(&signed), "is not that of"),
    ] {
        wrong.check(what, boot(config), (AbortReason::ConfigUnsigned, part));
    }
    wrong.assert_none();
    assert_eq!(house.kms.seen().len(), asked, "KMS was asked");
}

/// The file with the spec's sealer in its header; whatever ends it stays.
fn renamed(file: &[u8]) -> Vec<u8> {
    let Sealed {
        mut header,
        authenticated,
        ..
    } = Sealed::parse(file).unwrap();
    let rest = file.strip_prefix(authenticated).unwrap();
    header.sealer = Some(SEALER.1.to_owned().try_into().unwrap());
    [&header.encode(), rest, &[0; 64]].concat()
}

fn cut(file: &[u8]) -> Vec<u8> {
    file.split_last().unwrap().1.to_vec()
}
