//! What a parent can do with sealed files: it gets reasons, and never a running workload.

use super::House;
use super::parent::{Parent, Wrong, credentials, failed};
use aws_credential_types::Credentials;
use relay::control::Report;
use std::path::Path;
use tests::kms::{SECRET_ACCESS_KEY, attested_policy};
use wire::control::AbortReason;
use wire::sealed::{Header, Sealed};

const CHANGED: &str = "changed after it was sealed";
const OTHER_KEY: &str = "another data key than the one that KMS gave";
const CIPHERTEXT: &str = "InvalidCiphertext";

/// What a parent sends, and what it hears.
struct Case {
    what: &'static str,
    config: Option<Vec<u8>>,
    /// What it signs requests with.
    credentials: Option<Credentials>,
    expected: (AbortReason, &'static str),
}

impl Case {
    /// With the credentials that KMS knows.
    fn new(what: &'static str, config: Vec<u8>, expected: (AbortReason, &'static str)) -> Case {
        Case {
            what,
            config: Some(config),
            credentials: Some(credentials()),
            expected,
        }
    }
}

/// Genuine files that were sealed for this enclave, and parts of such.
struct Files {
    good: Vec<u8>,
    /// Another key of the same KMS.
    other_key: String,
    /// Encrypted data keys: of the next version, of the same one again, of another key.
    newer: Vec<u8>,
    twin: Vec<u8>,
    elsewhere: Vec<u8>,
    /// Of a version below the minimum.
    old: Vec<u8>,
}

impl Files {
    fn seal(house: &House) -> Files {
        let read = |path: &Path| std::fs::read(path).unwrap();
        let sealed = |text: &str, version| read(&house.seal(text, version).0);
        let good = sealed("TOKEN=x", 2);
        let newer = data_key(&sealed("TOKEN=newer", 3));
        let twin = data_key(&sealed("TOKEN=twin", 2));
        let other_key = house.kms.key(&attested_policy("x"));
        let spec = std::fs::read_to_string(&house.spec).unwrap();
        let write = |text: String| std::fs::write(&house.spec, text).unwrap();
        write(spec.replace("minimum_version = 2", ""));
        let old = sealed("TOKEN=old", 1);
        write(spec.replace(&house.key, &other_key));
        let elsewhere = data_key(&sealed("TOKEN=elsewhere", 2));
        write(spec);
        Files {
            good,
            other_key,
            newer,
            twin,
            elsewhere,
            old,
        }
    }

    /// The good file with another header.
    fn reseal(&self, change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let Sealed {
            mut header,
            ciphertext,
            ..
        } = Sealed::parse(&self.good).unwrap();
        change(&mut header);
        [header.encode(), ciphertext.to_vec()].concat()
    }

    /// The last byte is of the ciphertext's tag.
    fn flipped(&self) -> Vec<u8> {
        let mut bytes = self.good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    }
}

fn data_key(sealed: &[u8]) -> Vec<u8> {
    Sealed::parse(sealed).unwrap().header.encrypted_key
}

/// What the parent leaves out, or has no right to.
fn withheld(files: &Files) -> [Case; 3] {
    let nobody = Credentials::new("AKIANOBODY", SECRET_ACCESS_KEY, None, None, "test");
    let case = |what, expected| Case::new(what, files.good.clone(), expected);
    [
        Case {
            config: None,
            ..case(
                "nothing",
                (AbortReason::ConfigMissing, "the host sent none"),
            )
        },
        Case {
            credentials: None,
            ..case(
                "no signature",
                (AbortReason::SignatureRefused, "no config to open now"),
            )
        },
        Case {
            credentials: Some(nobody),
            ..case(
                "bad credentials",
                (AbortReason::KmsRefused, "UnrecognizedClientException"),
            )
        },
    ]
}

/// Damaged files, and genuine ones for something else.
fn foreign(files: &Files) -> [Case; 6] {
    use AbortReason::{ConfigDamaged, ConfigForeign, ConfigTooOld};
    let last = files.good.len() - 1;
    let name = files.reseal(|h| h.name = "other".to_owned());
    let key = files.reseal(|h| h.kms_key.clone_from(&files.other_key));
    let context = files.reseal(|h| h.context.clear());
    let old = (ConfigTooOld, "version 1, the spec wants 2");
    [
        Case::new(
            "cut off",
            files.good[..last].to_vec(),
            (ConfigDamaged, CHANGED),
        ),
        Case::new("a flipped bit", files.flipped(), (ConfigDamaged, CHANGED)),
        Case::new("another name", name, (ConfigForeign, "the name 'other'")),
        Case::new("another key", key, (ConfigForeign, "the key")),
        Case::new("another context", context, (ConfigForeign, "the context")),
        Case::new("an older file", files.old.clone(), old),
    ]
}

/// The right header with another file's data key, or the other way round.
fn recombined(files: &Files) -> [Case; 6] {
    let damaged = |what, config, part| Case::new(what, config, (AbortReason::ConfigDamaged, part));
    let with_key = |key: &Vec<u8>| files.reseal(|h| h.encrypted_key.clone_from(key));
    [
        damaged(
            "a newer file's data key",
            with_key(&files.newer),
            CIPHERTEXT,
        ),
        damaged(
            "another key's data key",
            with_key(&files.elsewhere),
            CIPHERTEXT,
        ),
        damaged("its twin's data key", with_key(&files.twin), OTHER_KEY),
        damaged(
            "another commitment",
            files.reseal(|h| h.commitment[31] ^= 1),
            OTHER_KEY,
        ),
        damaged(
            "a lie about the version",
            files.reseal(|h| h.version = 3),
            CIPHERTEXT,
        ),
        damaged(
            "another data key",
            files.reseal(|h| h.encrypted_key[20] ^= 1),
            CIPHERTEXT,
        ),
    ]
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_hostile_parent_gets_reasons_and_never_a_running_workload() {
    let house = House::new("minimum_version = 2");
    let (eif, _) = house.allow();
    let files = Files::seal(&house);
    let parent = Parent::new(&house, &eif);
    assert_eq!(parent.boot(&files.good), Report::Started);

    let mut wrong = Wrong::default();
    let cases = withheld(&files).into_iter();
    for case in cases.chain(foreign(&files)).chain(recombined(&files)) {
        let report = parent.boot_as(case.config.as_deref(), case.credentials);
        wrong.check(case.what, report, case.expected);
    }
    wrong.assert_none();
    let report = parent.boot_through(Some(&files.good), Some(credentials()), &[]);
    let (found, detail) = failed(report);
    assert_eq!(found, AbortReason::EgressRefused, "{detail}");
}
