//! What is signed verifies as a genuine document would, and what is not unsigned is refused.

use super::*;
use crate::documents::{MADE_AT, MODULE_ID, Plan, pcrs, registers};
use attestation::emulated::read_emulated;
use attestation::{
    Check, Conditions, Error, Pcr, Policy, Subject, TrustAnchor, Untrusted, Verified, Verifier,
};
use std::time::Duration;
use tempfile::TempDir;

const NOW: Time = Time::from_millis(MADE_AT);
const MINUTE: Duration = Duration::from_secs(60);

fn signer() -> (TempDir, Signer) {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::open(directory.path()).unwrap();
    (directory, signer)
}

fn unsigned(change: impl FnOnce(&mut Plan)) -> Vec<u8> {
    let mut plan = Plan::unsigned();
    change(&mut plan);
    plan.mint().document
}

fn with_module_id(module_id: &str) -> Vec<u8> {
    unsigned(|plan| plan.set("module_id", cbor(|e| e.str(module_id))))
}

/// What [`Plan::unsigned`] satisfies.
fn conditions() -> Conditions {
    let pcr = |bytes: Vec<u8>| [Pcr::try_from(bytes.as_slice()).unwrap()].into();
    let pcrs = registers()
        .into_iter()
        .map(|(index, bytes)| (u8::try_from(index).unwrap(), pcr(bytes)));
    Conditions {
        pcrs: pcrs.collect(),
        nonce: Some(b"12345678".to_vec()),
        ..Conditions::default()
    }
}

fn verify_at(
    signed: &[u8],
    root: &[u8],
    now: Time,
    conditions: Conditions,
) -> Result<Verified, Error> {
    let verifier = Verifier::new(TrustAnchor::from_der(root).unwrap());
    verifier.verify(signed, now, &Policy::new(conditions).unwrap())
}

#[test]
fn a_signed_document_verifies_below_the_root_and_keeps_every_field() {
    let (_directory, signer) = signer();
    for change in [
        |_: &mut Plan| {},
        |plan: &mut Plan| plan.set("user_data", bytes(&[])),
        |plan: &mut Plan| plan.set("user_data", bytes(&[7; 1024])),
        |plan: &mut Plan| plan.remove("public_key"),
        |plan: &mut Plan| {
            plan.set(
                "pcrs",
                pcrs(&[registers(), vec![(16, vec![8; 48])]].concat()),
            )
        },
    ] {
        let document = unsigned(change);
        let signed = signer.sign_at(&document, NOW).unwrap();
        let given = read_unsigned(&document).unwrap();
        assert_eq!(read_emulated(&signed).unwrap(), given);
        let verified = verify_at(&signed, signer.root_der(), NOW, conditions()).unwrap();
        assert_eq!(
            (verified.module_id, verified.timestamp, verified.pcrs),
            (given.module_id, given.timestamp, given.pcrs)
        );
        assert_eq!(
            (verified.public_key, verified.user_data, verified.nonce),
            (given.public_key, given.user_data, given.nonce)
        );
        assert_eq!(verified.valid_until, NOW.plus(180 * MINUTE));
    }
}

/// As today's NSM writes it: untagged, ES384, no unprotected header, a payload of indefinite
/// length, and null for a field that the guest did not give.
#[test]
fn a_signed_document_has_the_form_of_genuine_ones() {
    let (_directory, signer) = signer();
    let document = unsigned(|plan| plan.remove("public_key"));
    let signed = signer.sign_at(&document, NOW).unwrap();
    assert_eq!(hex(&signed[..8]), "8444a1013822a059");
    let payload = &signed[10..];
    assert_eq!(payload[0], 0xbf);
    let null = [cbor(|e| e.str("public_key")), vec![0xf6]].concat();
    assert!(payload.windows(null.len()).any(|window| window == null));
    // r and s end it.
    assert_eq!(hex(&signed[signed.len() - 98..][..2]), "5860");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn certificates_are_named_as_those_of_genuine_documents() {
    let (_directory, signer) = signer();
    let identity = signer.identity(MODULE_ID, NOW);
    let [root, regional, zonal, instance] = &identity.cabundle;
    let leaf = &identity.certificate;
    for (certificate, name) in [
        (root, "aws.nitro-enclaves"),
        (regional, ".us-east-1.aws.nitro-enclaves"),
        (zonal, ".zonal.us-east-1.aws.nitro-enclaves"),
        (instance, "i-0123456789abcdef0.us-east-1.aws.nitro-enclaves"),
        (leaf, "i-0123456789abcdef0-enc0123456789abcde.us-east-1.aws"),
    ] {
        assert!(
            certificate
                .windows(name.len())
                .any(|window| window == name.as_bytes()),
            "{name}"
        );
    }
}

#[test]
fn a_signed_document_is_not_trusted_below_aws_root() {
    let (_directory, signer) = signer();
    let signed = signer.sign_at(&unsigned(|_| {}), NOW).unwrap();
    let policy = Policy::new(conditions()).unwrap();
    assert_eq!(
        Verifier::new(TrustAnchor::aws()).verify(&signed, NOW, &policy),
        Err(Untrusted::Root.into())
    );
}

#[test]
fn debug_mode_is_signed_and_refused_unless_the_policy_allows_it() {
    let (_directory, signer) = signer();
    let document = unsigned(|plan| {
        let mut registers = registers();
        registers[..3]
            .iter_mut()
            .for_each(|(_, pcr)| *pcr = vec![0; 48]);
        plan.set("pcrs", pcrs(&registers));
    });
    let signed = signer.sign_at(&document, NOW).unwrap();
    let mut conditions = conditions();
    conditions.pcrs.retain(|index, _| *index > 2);
    let verify = |allow_debug| {
        let conditions = Conditions {
            allow_debug,
            ..conditions.clone()
        };
        verify_at(&signed, signer.root_der(), NOW, conditions)
    };
    assert!(verify(true).unwrap().debug);
    let Err(Error::Rejected(checks)) = verify(false) else {
        panic!("debug mode is not rejected");
    };
    let failed: Vec<&Check> = checks.iter().filter(|check| !check.passed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].subject, Subject::Debug);
}

#[test]
fn refuses_a_document_that_claims_a_signature() {
    let (_directory, signer) = signer();
    let signed = signer.sign_at(&unsigned(|_| {}), NOW).unwrap();
    for document in [signed, Plan::default().mint().document] {
        assert_eq!(
            signer.sign_at(&document, NOW),
            Err(SignError::Unsigned(UnsignedError::NotUnsigned))
        );
    }
}

#[test]
fn never_panics_on_a_cut_or_flipped_document() {
    let (_directory, signer) = signer();
    let whole = unsigned(|_| {});
    for end in 0..whole.len() {
        assert!(signer.sign_at(&whole[..end], NOW).is_err());
    }
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        drop(signer.sign_at(&flipped, NOW));
    }
}

#[test]
fn signs_for_a_module_id_of_128_bytes_and_not_of_129() {
    let (_directory, signer) = signer();
    let signed = signer.sign_at(&with_module_id(&format!("i-1-enc{}", "a".repeat(121))), NOW);
    verify_at(&signed.unwrap(), signer.root_der(), NOW, conditions()).unwrap();
    assert_eq!(
        signer.sign_at(&with_module_id(&format!("i-1-enc{}", "a".repeat(122))), NOW),
        Err(SignError::ModuleId(129))
    );
}

#[test]
fn a_certificate_is_replaced_half_an_hour_before_it_expires() {
    let (_directory, signer) = signer();
    let document = unsigned(|_| {});
    let expiry = |minutes: u32| {
        let now = NOW.plus(minutes * MINUTE);
        let signed = signer.sign_at(&document, now).unwrap();
        let verified = verify_at(&signed, signer.root_der(), now, conditions());
        verified.unwrap().valid_until
    };
    let first = NOW.plus(180 * MINUTE);
    assert_eq!((expiry(0), expiry(149)), (first, first));
    assert_eq!(expiry(150), first.plus(150 * MINUTE));
    // Long after everything below the root has expired.
    assert_eq!(expiry(60 * 24 * 365), first.plus(60 * 24 * 365 * MINUTE));
}

#[test]
fn certificates_of_64_modules_are_kept() {
    let (_directory, signer) = signer();
    for number in 0..65 {
        let now = NOW.plus(Duration::from_secs(number));
        signer
            .sign_at(&with_module_id(&format!("m{number}")), now)
            .unwrap();
    }
    let identities = signer.identities.lock().unwrap();
    assert_eq!(identities.len(), 64);
    assert!(!identities.contains_key("m0"), "the first to expire goes");
}

#[test]
fn the_root_survives_a_restart_and_the_certificates_do_not() {
    let (directory, before) = signer();
    let after = Signer::open(directory.path()).unwrap();
    assert_eq!(before.root_der(), after.root_der());
    let identities = [&before, &after].map(|signer| signer.identity(MODULE_ID, NOW));
    assert_ne!(identities[0].certificate, identities[1].certificate);
    let signed = after.sign_at(&unsigned(|_| {}), NOW).unwrap();
    verify_at(&signed, before.root_der(), NOW, conditions()).unwrap();
}

#[test]
fn signers_that_open_a_directory_at_once_have_one_root() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let roots: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let open = || Signer::open(path).unwrap().root_der().to_vec();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 2);
}

#[test]
fn only_the_owner_reads_the_roots_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, _signer) = signer();
    let mode = |name: &str| {
        let metadata = std::fs::metadata(directory.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("root.key"), mode("root.pem")), (0o600, 0o644));
}

#[test]
fn refuses_a_directory_whose_files_are_broken_or_do_not_belong_together() {
    let (directory, _signer) = signer();
    let (_other, other) = signer();
    let write = |name: &str, text: String| {
        std::fs::write(directory.path().join(name), text).unwrap();
        Signer::open(directory.path()).unwrap_err()
    };
    let error = write("root.pem", crate::pem(other.root_der()));
    assert!(matches!(error, OpenError::OtherKey(_)), "{error}");
    let leaf = other.identity(MODULE_ID, NOW).certificate.clone();
    let error = write("root.pem", crate::pem(&leaf));
    assert!(matches!(error, OpenError::Anchor { .. }), "{error}");
    let error = write("root.pem", "no PEM".to_owned());
    assert!(matches!(error, OpenError::Pem { .. }), "{error}");
    let error = write("root.key", crate::pem_of("PRIVATE KEY", &[0x30, 0]));
    assert!(matches!(error, OpenError::Key { .. }), "{error}");
    let error = Signer::open(&directory.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
