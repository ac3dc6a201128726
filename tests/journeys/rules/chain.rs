//! From the pinned root to the enclave's certificate.

use super::{CAS, CERTIFICATES, assert_cases, conditions, error, now, result};
use attestation::{Error, Part, Policy, TrustAnchor, Untrusted, verify};
use pki::{
    BASIC_CONSTRAINTS, Curve, ECDSA_WITH_SHA256, ECDSA_WITH_SHA384, Extension, INSTANCE, KEY_USAGE,
    Key, LEAF, Plan, REGIONAL, ROOT, Signature, ZONAL, basic_constraints, der, key_usage,
};

#[test]
fn the_root_is_the_pinned_one() {
    let good = Plan::default().mint();
    let policy = Policy::new(conditions()).unwrap();
    let impostor = Plan::with(|plan| plan.certificates[ROOT].key = Key::new(Curve::P384));
    assert_ne!(good.root, impostor.root);
    let anchor = TrustAnchor::from_der(&good.root).unwrap();
    assert_eq!(
        verify(&impostor.document, &anchor, now(), &policy),
        Err(Untrusted::Root.into()),
        "a self-made root with the right name"
    );
    assert_eq!(
        verify(&good.document, &TrustAnchor::aws(), now(), &policy),
        Err(Untrusted::Root.into()),
        "AWS's root with a document of another"
    );
}

#[test]
fn the_order_of_the_chain_is_the_given_one() {
    type Arrange = fn(&mut Vec<Vec<u8>>);
    let cases: [(&str, Arrange, Untrusted); 5] = [
        (
            "two swapped",
            |bundle| bundle.swap(1, 2),
            Untrusted::Issuer(Part::Ca(1)),
        ),
        ("reversed", |bundle| bundle.reverse(), Untrusted::Root),
        (
            "without the zone's",
            |bundle| drop(bundle.remove(2)),
            Untrusted::Issuer(Part::Ca(2)),
        ),
        (
            "without the root",
            |bundle| drop(bundle.remove(0)),
            Untrusted::Root,
        ),
        (
            "without the instance's",
            |bundle| drop(bundle.pop()),
            Untrusted::Issuer(Part::Leaf),
        ),
    ];
    assert_cases(cases.map(|(name, arrange, untrusted)| {
        (name, error(|plan| plan.arrange = arrange), untrusted.into())
    }));
}

/// The right names over another key's signature: what an impostor would make.
#[test]
fn every_certificate_is_signed_by_the_preceding_one() {
    assert_cases(CERTIFICATES.map(|(place, part)| {
        (
            part,
            error(|plan| plan.certificates[place].signer = Some(Key::new(Curve::P384))),
            Untrusted::Signature(part).into(),
        )
    }));
}

/// A good document with another value for one extension.
fn with_extension(place: usize, oid: &[u8], value: &Extension) -> Result<(), Error> {
    result(|plan| plan.certificates[place].extension(oid).value = value.value.clone()).map(drop)
}

#[test]
fn only_ca_certificates_sign_certificates() {
    let without = |place: usize, oid: &'static [u8]| {
        result(|plan| {
            plan.certificates[place]
                .extensions
                .retain(|extension| extension.oid != oid)
        })
        .map(drop)
    };
    let no_ca = basic_constraints(false, None);
    assert_cases(CAS.into_iter().flat_map(|(place, part)| {
        let cases = [
            (
                "no basicConstraints",
                without(place, BASIC_CONSTRAINTS),
                Untrusted::NotCa(part),
            ),
            (
                "no keyUsage",
                without(place, KEY_USAGE),
                Untrusted::KeyUsage(part),
            ),
            (
                "not a CA",
                with_extension(place, BASIC_CONSTRAINTS, &no_ca),
                Untrusted::NotCa(part),
            ),
            (
                "signs data only",
                with_extension(place, KEY_USAGE, &key_usage(0)),
                Untrusted::KeyUsage(part),
            ),
        ];
        cases.map(|(name, found, untrusted)| {
            (format!("{part}: {name}"), found, Err(untrusted.into()))
        })
    }));
}

/// One fewer than what is below is too few, exactly as many is enough.
#[test]
fn cas_sign_only_as_deep_as_their_path_length_allows() {
    for (place, part) in CAS {
        let allow = |path_len| {
            let constraints = basic_constraints(true, Some(path_len));
            with_extension(place, BASIC_CONSTRAINTS, &constraints)
        };
        let below = u8::try_from(INSTANCE - place).unwrap();
        assert_eq!(allow(below), Ok(()), "{part}");
        if let Some(fewer) = below.checked_sub(1) {
            assert_eq!(allow(fewer), Err(Untrusted::PathLen(part).into()));
        }
    }
    let extra = error(|plan| {
        let mut fourth = plan.certificates[INSTANCE].clone();
        fourth.issuer = fourth.subject.clone();
        plan.certificates.insert(LEAF, fourth);
    });
    assert_eq!(extra, Untrusted::PathLen(Part::Ca(REGIONAL)).into());
}

#[test]
fn a_path_length_of_256_is_not_cut_to_0() {
    let long = error(|plan| {
        let value = der::sequence(&[&der::tlv(1, &[0xff]), &der::tlv(2, &[1, 0])]);
        plan.certificates[INSTANCE]
            .extension(BASIC_CONSTRAINTS)
            .value = value;
        plan.certificates[ZONAL].extension(BASIC_CONSTRAINTS).value =
            basic_constraints(true, Some(0)).value;
    });
    assert_eq!(
        long,
        Untrusted::PathLen(Part::Ca(ZONAL)).into(),
        "256 is not 0"
    );
}

#[test]
fn the_enclaves_certificate_signs_documents_only() {
    let leaf =
        |extensions: Vec<Extension>| error(|plan| plan.certificates[LEAF].extensions = extensions);
    assert_cases([
        (
            "a CA",
            leaf(vec![basic_constraints(true, None), key_usage(0)]),
            Untrusted::LeafIsCa.into(),
        ),
        (
            "signs certificates",
            leaf(vec![basic_constraints(false, None), key_usage(5)]),
            Untrusted::LeafIsCa.into(),
        ),
        (
            "no keyUsage",
            leaf(vec![basic_constraints(false, None)]),
            Untrusted::KeyUsage(Part::Leaf).into(),
        ),
        (
            "another keyUsage",
            leaf(vec![key_usage(1)]),
            Untrusted::KeyUsage(Part::Leaf).into(),
        ),
    ]);
    assert!(result(|plan| plan.certificates[LEAF].extensions = vec![key_usage(0)]).is_ok());
}

#[test]
fn refuses_unknown_critical_extensions_and_ignores_others() {
    let unknown = |critical| Extension {
        oid: vec![0x2a, 3],
        critical,
        value: vec![5, 0],
    };
    let with = |place: usize, extension| {
        result(|plan| plan.certificates[place].extensions.push(extension))
    };
    assert_cases(CERTIFICATES.map(|(place, part)| {
        let oid = "2a03".to_owned();
        (
            part,
            with(place, unknown(true)).unwrap_err(),
            Untrusted::CriticalExtension { part, oid }.into(),
        )
    }));
    assert_cases(
        CERTIFICATES.map(|(place, part)| (part, with(place, unknown(false)).map(drop), Ok(()))),
    );
}

#[test]
fn refuses_keys_on_other_curves() {
    let curves = [Curve::P256, Curve::P521];
    assert_cases(curves.into_iter().flat_map(|curve| {
        CERTIFICATES.map(|(place, part)| {
            let error = error(|plan| {
                plan.certificates[place].key = Key::new(curve);
                plan.signature = Signature::Bytes(vec![1; 96]);
            });
            (
                format!("{part} {curve:?}"),
                error,
                Untrusted::Key(part).into(),
            )
        })
    }));
}

#[test]
fn refuses_other_signature_algorithms() {
    let good = der::sequence(&[&der::oid(ECDSA_WITH_SHA384)]);
    let sha256 = der::sequence(&[&der::oid(ECDSA_WITH_SHA256)]);
    let parameters = der::sequence(&[&der::oid(ECDSA_WITH_SHA384), &[5, 0]]);
    let algorithms = [
        [sha256.clone(), good.clone()],
        [good, sha256],
        [parameters.clone(), parameters],
    ];
    assert_cases(algorithms.iter().flat_map(|algorithms| {
        CERTIFICATES.map(|(place, part)| {
            (
                format!("{part} {algorithms:02x?}"),
                error(|plan| plan.certificates[place].algorithms = algorithms.clone()),
                Untrusted::SignatureAlgorithm(part).into(),
            )
        })
    }));
}

#[test]
fn a_trust_anchor_is_a_ca_certificate() {
    let refused = |der: &[u8]| TrustAnchor::from_der(der).unwrap_err().to_string();
    assert!(refused(b"x").contains("is not an X.509 certificate in DER"));
    let certificates = Plan::default().minted_certificates();
    assert!(refused(&certificates[LEAF]).contains("is not a CA certificate"));
    let mut plan = Plan::default();
    plan.certificates[ROOT].extensions.truncate(1);
    assert!(refused(&plan.minted_certificates()[ROOT]).contains("lacks the key usage"));
}
