//! The talk with KMS, and with what pretends to be it.

use super::parent::{Parent, Wrong, failed};
use super::{ENV_SCRIPT, House, INWARD, image};
use relay::control::Report;
use tests::daemon::Daemon;
use tests::files::holds;
use tests::kms::{Kms, Mischief};
use tests::metadata::fake_metadata_service;
use tests::tcp::Recorder;
use wire::control::AbortReason;
use wire::sealed::Header;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn only_a_kms_that_attests_and_proves_itself_will_do() {
    use AbortReason::{KmsAnswer, KmsUnreachable};
    let house = House::new("");
    let (eif, _) = house.allow();
    let (path, _) = house.seal("TOKEN=x", 1);
    let config = std::fs::read(path).unwrap();
    let parent = Parent::new(&house, &eif);
    let plaintext = "did not look at the attestation document";
    let mut wrong = Wrong::default();
    for (mischief, reason, part) in [
        (Mischief::AnswersPlaintext, KmsAnswer, plaintext),
        (
            Mischief::AnswersLocalStack,
            KmsAnswer,
            "an emulator may have answered",
        ),
        (Mischief::Hangs, KmsUnreachable, "KMS could not be asked"),
        (Mischief::Stalls, KmsUnreachable, "KMS could not be asked"),
    ] {
        house.kms.misbehave(mischief);
        let report = parent.boot(&config);
        wrong.check(&format!("{mischief:?}"), report, (reason, part));
    }
    wrong.assert_none();
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_server_with_another_name_is_not_kms() {
    let kms = Kms::start_as("kms.example.com");
    let house = House::of(&image(ENV_SCRIPT, "A=1"), kms, "");
    let (eif, _) = house.build();
    let header = Header {
        name: "orders".to_owned(),
        version: 1,
        kms_key: house.key.clone(),
        context: [("app".to_owned(), "orders".to_owned())].into(),
        encrypted_key: vec![1; 60],
        nonce: [0; 12],
        commitment: [0; 32],
        sealer: None,
    };
    let config = [header.encode(), vec![0; 40]].concat();
    let (found, detail) = failed(Parent::new(&house, &eif).boot(&config));
    assert_eq!(found, AbortReason::KmsTls, "{detail}");
    assert_eq!(house.kms.seen(), Vec::<String>::new());
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_parent_sees_ciphertext_of_the_talk_with_kms() {
    let kms = Kms::start();
    let recorder = Recorder::before(kms.port);
    let house = House::behind(&image(ENV_SCRIPT, "A=1"), kms, recorder.port, "");
    let (eif, _) = house.allow();
    let (path, _) = house.seal("TOKEN=x", 1);
    recorder.rewind();
    let config = std::fs::read(&path).unwrap();
    assert_eq!(Parent::new(&house, &eif).boot(&config), Report::Started);
    assert_eq!(house.kms.seen(), ["GenerateDataKey", "Decrypt"]);
    let (requests, replies) = (recorder.requests(), recorder.replies());
    assert_eq!(requests.first(), Some(&0x16), "a TLS handshake");
    let len = requests.len() + replies.len();
    assert!(len > 4000, "an attestation document and more went by");
    for needle in [
        "TrentService",
        "CiphertextForRecipient",
        "AttestationDocument",
        "AWS4-HMAC",
        "HTTP/1.1",
    ] {
        for tape in [&requests, &replies] {
            assert!(!holds(tape, needle.as_bytes()), "{needle}");
        }
    }
}

/// A daemon that gets its AWS credentials from the metadata service alone.
fn daemon_of_an_instance(house: &House, metadata_service: &str) -> Daemon {
    house.scene.start(&[
        INWARD,
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_service),
        ("AWS_REGION", "us-east-1"),
    ])
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn credentials_for_kms_come_from_the_instances_role() {
    let house = House::new("");
    house.allow();
    let (sealed, _) = house.seal("TOKEN=x", 1);
    let daemon = daemon_of_an_instance(&house, &fake_metadata_service());
    let created = house.create(&daemon, &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    drop(daemon);

    let nowhere = format!("http://127.0.0.1:{}", tests::free_port());
    let daemon = daemon_of_an_instance(&house, &nowhere);
    let created = house.create(&daemon, &sealed);
    assert_eq!(created.code, 1, "{created:?}");
    let failure = &daemon.show("orders")["failure"];
    assert_eq!(failure["code"], "AWS_CREDENTIALS_MISSING");
}
