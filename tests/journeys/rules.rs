//! The rules for documents, one by one: each case starts from a good document and breaks a single rule.

use attestation::{
    Conditions, Error, Malformed, Part, Pcr, Policy, PolicyError, Subject, Time, TrustAnchor,
    Untrusted, ValidityTime, Verified, verify,
};
use tests::pki::{
    BASIC_CONSTRAINTS, Curve, ECDSA_WITH_SHA256, Extension, INSTANCE, KEY_USAGE, Key, LEAF,
    MADE_AT, Minted, Plan, REGIONAL, ROOT, Signature, ZONAL, basic_constraints, bytes, cbor, der,
    key_usage, pcrs, registers, utc,
};

fn pcr(byte: u8) -> Pcr {
    Pcr::try_from([byte; 48].as_slice()).unwrap()
}

fn conditions() -> Conditions {
    Conditions {
        pcrs: [(0, [pcr(1)].into())].into(),
        ..Conditions::default()
    }
}

fn now() -> Time {
    Time::from_millis(MADE_AT)
}

fn result_of(minted: &Minted) -> Result<Verified, Error> {
    let anchor = TrustAnchor::from_der(&minted.root).unwrap();
    verify(
        &minted.document,
        &anchor,
        now(),
        &Policy::new(conditions()).unwrap(),
    )
}

fn result(change: impl FnOnce(&mut Plan)) -> Result<Verified, Error> {
    result_of(&Plan::with(change))
}

fn error(change: impl FnOnce(&mut Plan)) -> Error {
    result(change).unwrap_err()
}

fn field(field: &'static str, problem: &'static str) -> Error {
    Malformed::Field { field, problem }.into()
}

/// The part in which CBOR went wrong.
fn cbor_error(error: Error) -> (&'static str, String) {
    match error {
        Error::Malformed(Malformed::Cbor { part, source }) => (
            part,
            source.to_string().split_once(": ").unwrap().1.to_owned(),
        ),
        other => panic!("{other:?}"),
    }
}

const NOT_SHORTEST: &str = "a length or number is not in its shortest form";

#[test]
fn accepts_every_form_that_hardware_writes() {
    assert!(result(|_| ()).is_ok());
    assert!(result(|plan| plan.indefinite = true).is_ok());
    let tagged = |tag: &[u8]| {
        let good = Plan::default().mint();
        result_of(&Minted {
            document: [tag, &good.document].concat(),
            ..good
        })
    };
    assert!(tagged(&[0xd2]).is_ok(), "tag 18");
    assert_eq!(
        cbor_error(tagged(&[0xd1]).unwrap_err()),
        ("COSE_Sign1", "the tag is not COSE_Sign1 (18)".to_owned())
    );
    assert_eq!(
        cbor_error(tagged(&[0xd8, 18]).unwrap_err()),
        ("COSE_Sign1", NOT_SHORTEST.to_owned())
    );

    let absent = result(|plan| {
        plan.remove("nonce");
        plan.remove("user_data");
        plan.set("public_key", cbor(minicbor::Encoder::null));
    })
    .unwrap();
    assert_eq!(
        (absent.public_key, absent.user_data, absent.nonce),
        (None, None, None)
    );
    assert_eq!(
        result(|plan| plan.set("user_data", bytes(&[])))
            .unwrap()
            .user_data,
        Some(vec![])
    );
    for name in ["public_key", "user_data", "nonce"] {
        assert!(
            result(|plan| plan.set(name, bytes(&[1; 1024]))).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn refuses_envelopes_that_are_not_exactly_cose_sign1_with_es384() {
    let envelope = |text| Error::from(Malformed::Envelope(text));
    let one_algorithm =
        envelope("the protected header must hold the algorithm (1) and nothing else");
    assert_eq!(
        error(|plan| plan.unprotected = vec![0xa1, 4, 0x40]),
        envelope("the unprotected header must be empty")
    );
    assert_eq!(
        error(|plan| plan.unprotected = vec![0xbf, 0xff]),
        envelope("the unprotected header must be empty")
    );
    assert_eq!(
        error(|plan| plan.protected = vec![0xa2, 1, 0x38, 0x22, 4, 0x40]),
        one_algorithm
    );
    assert_eq!(
        error(|plan| plan.protected = vec![0xa1, 2, 0x38, 0x22]),
        one_algorithm
    );
    assert_eq!(error(|plan| plan.protected = vec![0xa0]), one_algorithm);
    assert_eq!(
        error(|plan| plan.protected = vec![0xa1, 1, 0x26]),
        Untrusted::Algorithm(-7).into()
    );
    assert_eq!(
        error(|plan| plan.protected = vec![0xa1, 1, 0x38, 0x23]),
        Untrusted::Algorithm(-36).into()
    );
    for (header, problem) in [
        (vec![], "expected a map"),
        (vec![0xa1, 1, 0x38, 0x22, 0], "bytes follow the end"),
        (vec![0xa1, 1, 0x39, 0, 0x22], NOT_SHORTEST),
        (vec![0xb8, 1, 1, 0x38, 0x22], NOT_SHORTEST),
    ] {
        assert_eq!(
            cbor_error(error(|plan| plan.protected = header)),
            ("protected header", problem.to_owned())
        );
    }

    let good = Plan::default().mint();
    let raw = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut document = good.document.clone();
        change(&mut document);
        result_of(&Minted {
            document,
            ..good.clone()
        })
        .unwrap_err()
    };
    let four = envelope("COSE_Sign1 has four elements");
    assert_eq!(raw(&|document| document[0] = 0x83), four);
    assert_eq!(
        raw(&|document| {
            document[0] = 0x85;
            document.push(0);
        }),
        four
    );
    assert_eq!(
        cbor_error(raw(&|document| {
            document[0] = 0x9f;
            document.push(0xff);
        })),
        (
            "COSE_Sign1",
            "expected an array of definite length".to_owned()
        )
    );
    assert_eq!(
        cbor_error(raw(&|document| document.push(0))),
        ("COSE_Sign1", "bytes follow the end".to_owned())
    );
    assert_eq!(
        cbor_error(raw(&|document| document.truncate(9))).0,
        "COSE_Sign1"
    );
    assert_eq!(cbor_error(raw(&Vec::clear)).0, "COSE_Sign1");
    // The payload's head is 59 xx xx: the same length in four bytes, and a length that nobody could send.
    assert_eq!(
        cbor_error(raw(&|document| {
            document.splice(7..8, [0x5a, 0, 0]);
        })),
        ("COSE_Sign1", NOT_SHORTEST.to_owned())
    );
    assert_eq!(
        cbor_error(raw(&|document| {
            document.splice(
                7..10,
                [0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            );
        })),
        (
            "COSE_Sign1",
            "expected a byte string of definite length".to_owned()
        )
    );
}

#[test]
fn refuses_signatures_of_another_form() {
    let length = Error::from(Malformed::Envelope(
        "an ES384 signature is r and s of 48 bytes each",
    ));
    assert_eq!(error(|plan| plan.signature = Signature::Der), length);
    for len in [0, 64, 95, 97] {
        assert_eq!(
            error(|plan| plan.signature = Signature::Bytes(vec![1; len])),
            length
        );
    }
    let order = hex::decode(concat!(
        "ffffffffffffffffffffffffffffffffffffffffffffffff",
        "c7634d81f4372ddf581a0db248b0a77aecec196accc52973"
    ))
    .unwrap();
    for (r, s) in [
        (vec![0; 48], vec![1; 48]),
        (vec![1; 48], vec![0; 48]),
        (order.clone(), vec![1; 48]),
        (vec![1; 48], order),
        (vec![0xff; 48], vec![0xff; 48]),
        (vec![1; 48], vec![1; 48]),
    ] {
        let signature = Signature::Bytes([r, s].concat());
        assert_eq!(
            error(|plan| plan.signature = signature),
            Untrusted::Signature(Part::Document).into()
        );
    }
}

#[test]
fn refuses_payloads_that_are_not_a_nitro_document() {
    let text = |text: &str| cbor(|e| e.str(text));
    assert_eq!(
        cbor_error(error(|plan| plan.payload_tail = vec![0])),
        ("payload", "bytes follow the end".to_owned())
    );
    for name in ["module_id", "digest", "timestamp", "pcrs"] {
        assert_eq!(
            error(|plan| plan.remove(name)),
            Malformed::Missing(name).into()
        );
    }
    let good = Plan::default();
    let leaf = good.minted_certificates().pop().unwrap();
    for (name, value) in [
        ("certificate", bytes(&leaf)),
        ("cabundle", cbor(|e| e.array(1)?.bytes(&leaf))),
    ] {
        let twice = error(|plan| {
            plan.fields
                .extend([(text(name), value.clone()), (text(name), value)])
        });
        assert_eq!(twice, Malformed::Duplicate(name).into());
        assert_eq!(
            error(|plan| plan.without = Some(text(name))),
            Malformed::Missing(name).into()
        );
    }
    for name in [
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "public_key",
        "user_data",
        "nonce",
    ] {
        let twice = error(|plan| {
            let again = plan
                .fields
                .iter()
                .find(|(other, _)| *other == text(name))
                .unwrap()
                .clone();
            plan.fields.push(again);
        });
        assert_eq!(twice, Malformed::Duplicate(name).into());
    }
    let unknown = |name: &str| Error::from(Malformed::Unknown(name.to_owned()));
    assert_eq!(
        error(|plan| plan.set("nitrotpm_pcrs", pcrs(&registers()))),
        unknown("nitrotpm_pcrs")
    );
    let nitrotpm = error(|plan| {
        plan.remove("pcrs");
        plan.set("nitrotpm_pcrs", pcrs(&registers()));
    });
    assert_eq!(
        nitrotpm,
        unknown("nitrotpm_pcrs"),
        "an EC2 instance is no enclave"
    );
    assert_eq!(
        error(|plan| plan.set("digest", text("SHA256"))),
        field("digest", "is not SHA384")
    );
    assert_eq!(
        error(|plan| plan.set("module_id", text(""))),
        field("module_id", "is empty")
    );
    for timestamp in [0, u64::MAX] {
        assert_eq!(
            error(|plan| plan.set("timestamp", cbor(|e| e.u64(timestamp)))),
            field("timestamp", "is zero or too far in the future")
        );
    }
    for name in ["public_key", "user_data", "nonce"] {
        assert_eq!(
            error(|plan| plan.set(name, bytes(&[1; 1025]))),
            field(name, "is longer than 1024 bytes")
        );
    }
    assert_eq!(
        error(|plan| plan.set("public_key", bytes(&[]))),
        field("public_key", "is empty")
    );
}

#[test]
fn refuses_cbor_that_can_be_read_in_two_ways() {
    let definite = "expected a byte string of definite length";
    let text_definite = "expected a text string of definite length";
    let cases: [(&str, Vec<u8>, &str, &str); 12] = [
        ("nonce", vec![0x5f, 0x41, 1, 0xff], "nonce", definite),
        ("nonce", vec![0x58, 1, 1], "nonce", NOT_SHORTEST),
        ("nonce", vec![0x61, b'x'], "nonce", definite),
        ("nonce", vec![0x81, 1], "nonce", definite),
        ("nonce", vec![0xd8, 24, 0x41, 1], "nonce", definite),
        (
            "module_id",
            vec![0x7f, 0x61, b'i', 0xff],
            "payload",
            text_definite,
        ),
        ("module_id", vec![0x41, b'i'], "payload", text_definite),
        (
            "module_id",
            vec![0x62, 0xc3, 0x28],
            "payload",
            text_definite,
        ),
        ("timestamp", vec![0x1a, 0, 0, 0, 1], "payload", NOT_SHORTEST),
        (
            "timestamp",
            vec![0xfb, 0x42, 0x79, 0, 0, 0, 0, 0, 0],
            "payload",
            "expected an unsigned integer",
        ),
        ("pcrs", vec![0xb8, 1, 0, 0x41, 1], "pcrs", NOT_SHORTEST),
        ("pcrs", vec![0x80], "pcrs", "expected a map"),
    ];
    for (name, value, part, problem) in cases {
        let found = cbor_error(error(|plan| plan.set(name, value.clone())));
        assert_eq!(found, (part, problem.to_owned()), "{name} {value:02x?}");
    }
    // A name that is longer than its bytes, a number for a name, and 65 arrays in each other: none is read into.
    let nested = [vec![0x81; 65], vec![0]].concat();
    assert_eq!(
        cbor_error(error(|plan| plan.set("user_data", nested))),
        ("user_data", definite.to_owned())
    );
    let huge = vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(
        cbor_error(error(|plan| plan.set("user_data", huge))),
        ("user_data", definite.to_owned())
    );
    let number = error(|plan| plan.fields.insert(0, (vec![1], vec![0xf6])));
    assert_eq!(cbor_error(number), ("payload", text_definite.to_owned()));
    let wide = error(|plan| plan.fields[0].0 = [vec![0x78, 9], b"module_id".to_vec()].concat());
    assert_eq!(cbor_error(wide), ("payload", NOT_SHORTEST.to_owned()));
}

#[test]
fn refuses_registers_that_are_none() {
    let with = |registers: &[(u64, Vec<u8>)]| error(|plan| plan.set("pcrs", pcrs(registers)));
    assert_eq!(with(&[]), field("pcrs", "is empty"));
    assert_eq!(
        with(&[(32, vec![1; 48])]),
        field("pcrs", "an index is above 31")
    );
    assert_eq!(
        with(&[(256, vec![1; 48])]),
        field("pcrs", "an index is above 31")
    );
    for len in [0, 32, 47, 49, 64] {
        assert_eq!(
            with(&[(0, vec![1; len])]),
            field("pcrs", "a register is not 48 bytes long")
        );
    }
    assert_eq!(
        with(&[(0, vec![1; 48]), (0, vec![1; 48])]),
        Malformed::Duplicate("pcrs").into()
    );
    let registers = [
        (31, vec![9; 48]),
        (0, vec![1; 48]),
        (2, vec![1; 48]),
        (1, vec![1; 48]),
    ];
    let sparse = result(|plan| plan.set("pcrs", pcrs(&registers))).unwrap();
    assert_eq!(
        sparse
            .pcrs
            .iter()
            .map(|(index, _)| index)
            .collect::<Vec<_>>(),
        [0, 1, 2, 31]
    );
    let open = [vec![0xbf], pcrs(&registers)[1..].to_vec(), vec![0xff]].concat();
    assert!(
        result(|plan| plan.set("pcrs", open)).is_ok(),
        "open maps are what newer hardware writes around it"
    );
}

#[test]
fn refuses_bundles_and_certificates_of_another_size() {
    let bundle = |items: &[Vec<u8>]| {
        let head = cbor(|e| e.array(items.len() as u64));
        error(|plan| plan.set("cabundle", [head, items.concat()].concat()))
    };
    assert_eq!(
        bundle(&[]),
        field("cabundle", "is empty or has more than 16 certificates")
    );
    assert_eq!(
        bundle(&vec![bytes(&[1]); 17]),
        field("cabundle", "is empty or has more than 16 certificates")
    );
    let size = |name, len: usize| match name {
        "cabundle" => bundle(&[bytes(&vec![1; len])]),
        _ => error(|plan| plan.set(name, bytes(&vec![1; len]))),
    };
    for name in ["cabundle", "certificate"] {
        for len in [0, 1025] {
            assert_eq!(
                size(name, len),
                field("certificate", "is empty or longer than 1024 bytes"),
                "{name}"
            );
        }
    }
    let open = error(|plan| plan.set("cabundle", vec![0x9f, 0x41, 1, 0xff]));
    assert_eq!(
        cbor_error(open),
        (
            "cabundle",
            "expected an array of definite length".to_owned()
        )
    );
    let open = error(|plan| plan.set("certificate", vec![0x5f, 0x41, 1, 0xff]));
    assert_eq!(cbor_error(open).0, "certificate");
}

#[test]
fn the_root_is_the_pinned_one_and_the_order_is_the_given_one() {
    let good = Plan::default().mint();
    let policy = Policy::new(conditions()).unwrap();
    // A self-made root with the right name, and AWS's with this document.
    let impostor = Plan::with(|plan| plan.certificates[ROOT].key = Key::new(Curve::P384));
    assert_ne!(good.root, impostor.root);
    let anchor = TrustAnchor::from_der(&good.root).unwrap();
    assert_eq!(
        verify(&impostor.document, &anchor, now(), &policy),
        Err(Untrusted::Root.into())
    );
    assert_eq!(
        verify(&good.document, &TrustAnchor::aws(), now(), &policy),
        Err(Untrusted::Root.into())
    );

    let arranged = |arrange: fn(&mut Vec<Vec<u8>>)| error(|plan| plan.arrange = arrange);
    assert_eq!(
        arranged(|bundle| bundle.swap(1, 2)),
        Untrusted::Issuer(Part::Ca(1)).into()
    );
    assert_eq!(arranged(|bundle| bundle.reverse()), Untrusted::Root.into());
    assert_eq!(
        arranged(|bundle| drop(bundle.remove(2))),
        Untrusted::Issuer(Part::Ca(2)).into()
    );
    assert_eq!(
        arranged(|bundle| drop(bundle.remove(0))),
        Untrusted::Root.into()
    );
    assert_eq!(
        arranged(|bundle| drop(bundle.pop())),
        Untrusted::Issuer(Part::Leaf).into()
    );
}

#[test]
fn every_link_is_signed_by_the_one_before() {
    for place in [REGIONAL, ZONAL, INSTANCE, LEAF] {
        let part = if place == LEAF {
            Part::Leaf
        } else {
            Part::Ca(place)
        };
        // The right names over another key's signature: what an impostor would make.
        let error = error(|plan| plan.certificates[place].signer = Some(Key::new(Curve::P384)));
        assert_eq!(error, Untrusted::Signature(part).into());
    }
}

/// CAs that may be at fault, and their parts.
const AUTHORITIES: [(usize, Part); 3] = [
    (REGIONAL, Part::Ca(REGIONAL)),
    (ZONAL, Part::Ca(ZONAL)),
    (INSTANCE, Part::Ca(INSTANCE)),
];
const ALL: [(usize, Part); 4] = [
    AUTHORITIES[0],
    AUTHORITIES[1],
    AUTHORITIES[2],
    (LEAF, Part::Leaf),
];

#[test]
fn only_cas_sign_and_only_as_deep_as_they_may() {
    for (place, part) in AUTHORITIES {
        let drop_extension = |oid: &'static [u8]| {
            error(move |plan| {
                plan.certificates[place]
                    .extensions
                    .retain(|extension| extension.oid != oid)
            })
        };
        assert_eq!(
            drop_extension(BASIC_CONSTRAINTS),
            Untrusted::NotCa(part).into()
        );
        assert_eq!(drop_extension(KEY_USAGE), Untrusted::KeyUsage(part).into());
        let no_ca = error(|plan| {
            plan.certificates[place].extension(BASIC_CONSTRAINTS).value =
                basic_constraints(false, None).value;
        });
        assert_eq!(no_ca, Untrusted::NotCa(part).into());
        let signs_data =
            error(|plan| plan.certificates[place].extension(KEY_USAGE).value = key_usage(0).value);
        assert_eq!(signs_data, Untrusted::KeyUsage(part).into());
        // One fewer than what is below is too few, exactly as many is enough.
        let below = u8::try_from(INSTANCE - place).unwrap();
        let allow = |path_len| {
            result(|plan| {
                plan.certificates[place].extension(BASIC_CONSTRAINTS).value =
                    basic_constraints(true, Some(path_len)).value;
            })
        };
        assert!(allow(below).is_ok());
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
    assert_eq!(
        leaf(vec![basic_constraints(true, None), key_usage(0)]),
        Untrusted::LeafIsCa.into()
    );
    assert_eq!(
        leaf(vec![basic_constraints(false, None), key_usage(5)]),
        Untrusted::LeafIsCa.into()
    );
    assert_eq!(
        leaf(vec![basic_constraints(false, None)]),
        Untrusted::KeyUsage(Part::Leaf).into()
    );
    assert_eq!(
        leaf(vec![key_usage(1)]),
        Untrusted::KeyUsage(Part::Leaf).into()
    );
    assert!(result(|plan| plan.certificates[LEAF].extensions = vec![key_usage(0)]).is_ok());
}

#[test]
fn refuses_critical_extensions_that_it_does_not_know() {
    for (place, part) in ALL {
        let unknown = |critical| Extension {
            oid: vec![0x2a, 3],
            critical,
            value: vec![5, 0],
        };
        let error = error(|plan| plan.certificates[place].extensions.push(unknown(true)));
        assert_eq!(
            error,
            Untrusted::CriticalExtension {
                part,
                oid: "2a03".to_owned()
            }
            .into()
        );
        assert!(result(|plan| plan.certificates[place].extensions.push(unknown(false))).is_ok());
    }
}

#[test]
fn refuses_other_keys_and_other_signatures() {
    for (place, part) in ALL {
        for curve in [Curve::P256, Curve::P521] {
            let error = error(|plan| {
                plan.certificates[place].key = Key::new(curve);
                plan.signature = Signature::Bytes(vec![1; 96]);
            });
            assert_eq!(error, Untrusted::Key(part).into());
        }
        let sha256 = der::sequence(&[&der::oid(ECDSA_WITH_SHA256)]);
        for which in [0, 1] {
            let error = error(|plan| plan.certificates[place].algorithms[which] = sha256.clone());
            assert_eq!(error, Untrusted::SignatureAlgorithm(part).into());
        }
        let parameters = der::sequence(&[&der::oid(tests::pki::ECDSA_WITH_SHA384), &[5, 0]]);
        let error =
            error(|plan| plan.certificates[place].algorithms = [parameters.clone(), parameters]);
        assert_eq!(error, Untrusted::SignatureAlgorithm(part).into());
    }
}

#[test]
fn certificates_are_exactly_der() {
    for (place, part) in ALL {
        let malformed = |problem| Error::from(Malformed::Certificate { part, problem });
        let broken = |change: &dyn Fn(&mut tests::pki::Certificate)| {
            error(|plan| change(&mut plan.certificates[place]))
        };
        assert_eq!(
            broken(&|c| c.tail = vec![0]),
            malformed("bytes follow the end")
        );
        assert_eq!(
            broken(&|c| c.signed_tail = vec![5, 0]),
            malformed("bytes follow the end")
        );
        assert_eq!(
            broken(&|c| c.version = 1),
            malformed("the version is not 3")
        );
        assert_eq!(
            broken(&|c| c.extensions.push(c.extensions[0].clone())),
            malformed("an extension occurs twice")
        );
        assert_eq!(
            broken(&|c| c.extensions.clear()),
            malformed("the list of extensions is empty")
        );
        assert_eq!(
            broken(&|c| c.extension(KEY_USAGE).value.push(0)),
            malformed("bytes follow the end")
        );
        for bad in [
            "260230120000Z",
            "261301120000Z",
            "260101240000Z",
            "260101120060Z",
            "2601011200Z",
            "260101120000+",
        ] {
            assert_eq!(
                broken(&|c| c.validity[0] = utc(bad)),
                malformed("a date is invalid"),
                "{bad}"
            );
        }
        let trailing = |element: &[u8]| [element, &[5, 0]].concat();
        assert_eq!(
            broken(&|c| c.validity[1] = trailing(&c.validity[1])),
            malformed("bytes follow the end")
        );
        assert_eq!(
            broken(&|c| c.extension(KEY_USAGE).value = trailing(&key_usage(0).value)),
            malformed("bytes follow the end")
        );
        let signed = |r: &[u8], s: &[u8], tail: &[u8]| {
            let signature = der::sequence(&[&der::tlv(2, r), &der::tlv(2, s), tail]);
            broken(&|c| c.signature = Some(signature.clone()))
        };
        assert_eq!(
            signed(&[1], &[1], &[5, 0]),
            malformed("bytes follow the end")
        );
        assert_eq!(
            signed(&[0x80], &[1], &[]),
            malformed("an integer is negative")
        );
        assert_eq!(
            signed(&[0, 1], &[1], &[]),
            malformed("an integer is not in its shortest form")
        );
        assert_eq!(
            signed(&[1; 49], &[1], &[]),
            malformed("an integer of the signature is longer than 48 bytes")
        );
        assert_eq!(signed(&[0], &[1], &[]), Untrusted::Signature(part).into());
        assert_eq!(signed(&[1], &[0], &[]), Untrusted::Signature(part).into());
        assert_eq!(
            broken(&|c| c.validity[0] = der::tlv(0x16, b"260101120000Z")),
            malformed("an element has an unexpected tag")
        );
        let generalized =
            |c: &mut tests::pki::Certificate| c.validity[1] = der::tlv(0x18, b"20510101000000Z");
        assert!(result(|plan| generalized(&mut plan.certificates[place])).is_ok());
    }
    let garbage = error(|plan| plan.set("certificate", bytes(&[1])));
    let cut = "an element is cut off or missing";
    assert_eq!(
        garbage,
        Malformed::Certificate {
            part: Part::Leaf,
            problem: cut
        }
        .into()
    );
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

#[test]
fn times_are_looked_at_in_every_place() {
    let time = |text: &str| text.parse::<Time>().unwrap();
    for (place, part) in [(ROOT, Part::Ca(ROOT))].into_iter().chain(ALL) {
        let expired = error(|plan| plan.certificates[place].validity[1] = utc("260101115859Z"));
        assert_eq!(
            expired,
            Error::Expired {
                part,
                until: time("2026-01-01T11:58:59Z"),
                at: now()
            }
        );
        let future = error(|plan| plan.certificates[place].validity[0] = utc("260101120101Z"));
        assert_eq!(
            future,
            Error::NotYetValid {
                part,
                from: time("2026-01-01T12:01:01Z"),
                at: now()
            }
        );
        // A minute of skew, both ways.
        assert!(result(|plan| plan.certificates[place].validity[1] = utc("260101115900Z")).is_ok());
        assert!(result(|plan| plan.certificates[place].validity[0] = utc("260101120100Z")).is_ok());
    }
    let made = |offset: i64| {
        result(|plan| {
            plan.set(
                "timestamp",
                cbor(|e| e.u64((MADE_AT + offset).unsigned_abs())),
            )
        })
    };
    assert!(made(60_000).is_ok());
    assert_eq!(
        made(60_001).unwrap_err(),
        Error::NotYetValid {
            part: Part::Document,
            from: Time::from_millis(MADE_AT + 60_001),
            at: now()
        }
    );
}

fn under(conditions: Conditions) -> Result<Verified, Error> {
    let minted = Plan::default().mint();
    let anchor = TrustAnchor::from_der(&minted.root).unwrap();
    verify(
        &minted.document,
        &anchor,
        now(),
        &Policy::new(conditions).unwrap(),
    )
}

/// Which checks failed.
fn unmet(conditions: Conditions) -> Vec<Subject> {
    match under(conditions) {
        Ok(_) => vec![],
        Err(Error::Rejected(checks)) => checks
            .into_iter()
            .filter(|check| !check.passed)
            .map(|check| check.subject)
            .collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn each_condition_is_held_against_the_document() {
    let pcrs = |registers: &[(u8, &[u8])]| Conditions {
        pcrs: registers
            .iter()
            .map(|(index, any)| (*index, any.iter().map(|byte| pcr(*byte)).collect()))
            .collect(),
        ..Conditions::default()
    };
    assert_eq!(unmet(pcrs(&[(0, &[1]), (15, &[16])])), []);
    assert_eq!(
        unmet(pcrs(&[(0, &[7, 1])])),
        [],
        "an old image or a new one"
    );
    assert_eq!(unmet(pcrs(&[(0, &[7, 8])])), [Subject::Pcr(0)]);
    assert_eq!(
        unmet(pcrs(&[(0, &[1]), (16, &[1])])),
        [Subject::Pcr(16)],
        "missing is not zero"
    );
    assert_eq!(unmet(pcrs(&[(0, &[1]), (16, &[0])])), [Subject::Pcr(16)]);

    let with = |change: fn(&mut Conditions)| {
        let mut conditions = conditions();
        change(&mut conditions);
        unmet(conditions)
    };
    assert_eq!(with(|c| c.nonce = Some(b"12345678".to_vec())), []);
    assert_eq!(
        with(|c| c.nonce = Some(b"12345679".to_vec())),
        [Subject::Nonce]
    );
    assert_eq!(
        with(|c| c.nonce = Some(b"1234567".to_vec())),
        [Subject::Nonce]
    );
    assert_eq!(with(|c| c.public_key = Some(b"key".to_vec())), []);
    assert_eq!(
        with(|c| c.public_key = Some(b"other".to_vec())),
        [Subject::PublicKey]
    );
    assert_eq!(
        with(|c| c.user_data = Some(vec![])),
        [Subject::UserData],
        "none is not empty"
    );
    assert_eq!(
        with(|c| c.role_arn = Some("arn:aws:iam::123456789012:role/Webserver".to_owned())),
        [Subject::Pcr(3)]
    );
    assert_eq!(
        with(|c| c.instance_id = Some("i-0123456789abcdef0".to_owned())),
        [Subject::Pcr(4)]
    );
    assert_eq!(with(|c| c.sealed_config = true), [Subject::SealedConfig]);
    assert_eq!(with(|c| c.max_age_seconds = Some(0)), []);

    let minted = Plan::with(|plan| {
        let registers = [registers(), vec![(16, vec![0; 48])]].concat();
        plan.set("pcrs", pcrs_of(&registers));
    });
    let sealed = Policy::new(Conditions {
        sealed_config: true,
        ..conditions()
    })
    .unwrap();
    let anchor = TrustAnchor::from_der(&minted.root).unwrap();
    assert!(
        matches!(
            verify(&minted.document, &anchor, now(), &sealed),
            Err(Error::Rejected(_))
        ),
        "locked, not extended"
    );
}

fn pcrs_of(registers: &[(u64, Vec<u8>)]) -> Vec<u8> {
    pcrs(registers)
}

#[test]
fn age_and_debug_mode_are_conditions() {
    let minted = Plan::default().mint();
    let anchor = TrustAnchor::from_der(&minted.root).unwrap();
    let old = |seconds: i64| {
        let policy = Policy::new(Conditions {
            max_age_seconds: Some(60),
            ..conditions()
        })
        .unwrap();
        verify(
            &minted.document,
            &anchor,
            Time::from_millis(MADE_AT + seconds * 1000),
            &policy,
        )
    };
    assert!(old(60).is_ok());
    let Err(Error::Rejected(checks)) = old(61) else {
        panic!("too old")
    };
    let age = checks.iter().find(|check| !check.passed).unwrap();
    assert_eq!(
        (age.subject, age.expected.as_str(), age.found.as_str()),
        (Subject::Age, "at most 60 s", "61.0 s")
    );

    // One of the three suffices, and so does one that is not there.
    for index in 0..3 {
        for change in [
            (|registers, index| registers[index].1 = vec![0; 48])
                as fn(&mut Vec<(u64, Vec<u8>)>, usize),
            |registers, index| drop(registers.remove(index)),
        ] {
            let minted = Plan::with(|plan| {
                let mut registers = registers();
                change(&mut registers, index);
                plan.set("pcrs", pcrs(&registers));
            });
            let policy = Policy::new(Conditions {
                pcrs: [(3, [pcr(4)].into())].into(),
                ..Conditions::default()
            })
            .unwrap();
            assert!(
                matches!(
                    verify(&minted.document, &anchor, now(), &policy),
                    Err(Error::Rejected(_))
                ),
                "PCR{index}"
            );
        }
    }

    let debug = Plan::with(|plan| {
        let mut registers = registers();
        registers[..3]
            .iter_mut()
            .for_each(|(_, pcr)| *pcr = vec![0; 48]);
        plan.set("pcrs", pcrs(&registers));
    });
    let under = |allow_debug| {
        let conditions = Conditions {
            pcrs: [(3, [pcr(4)].into())].into(),
            allow_debug,
            ..Conditions::default()
        };
        verify(
            &debug.document,
            &anchor,
            now(),
            &Policy::new(conditions).unwrap(),
        )
    };
    assert!(under(true).unwrap().debug);
    let Err(Error::Rejected(checks)) = under(false) else {
        panic!("debug mode passed")
    };
    assert_eq!(
        checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| check.subject)
            .collect::<Vec<_>>(),
        [Subject::Debug]
    );
}

#[test]
fn the_documents_own_time_decides_only_with_a_nonce() {
    let own_time = Conditions {
        time: ValidityTime::Document,
        ..conditions()
    };
    assert_eq!(
        Policy::new(own_time.clone()).unwrap_err(),
        PolicyError::DocumentTimeWithoutNonce
    );
    let policy = Policy::new(Conditions {
        nonce: Some(b"12345678".to_vec()),
        ..own_time
    })
    .unwrap();
    let minted = Plan::default().mint();
    let anchor = TrustAnchor::from_der(&minted.root).unwrap();
    assert!(
        verify(
            &minted.document,
            &anchor,
            "2040-01-01T00:00:00Z".parse().unwrap(),
            &policy
        )
        .is_ok()
    );

    // Certificates are held against that time, and a document's age is still the caller's to tell.
    let late = Plan::with(|plan| {
        plan.set(
            "timestamp",
            cbor(|e| e.u64((MADE_AT + 3 * 3_600_000).unsigned_abs())),
        )
    });
    assert!(matches!(
        verify(&late.document, &anchor, now(), &policy),
        Err(Error::Expired {
            part: Part::Leaf,
            ..
        })
    ));
    let aged = Conditions {
        time: ValidityTime::Document,
        nonce: Some(b"12345678".to_vec()),
        max_age_seconds: Some(60),
        clock_skew_seconds: Some(5),
        ..conditions()
    };
    let aged = Policy::new(aged).unwrap();
    let at = |offset: i64| {
        verify(
            &minted.document,
            &anchor,
            Time::from_millis(MADE_AT + offset),
            &aged,
        )
        .is_ok()
    };
    assert!(at(0) && at(60_000) && at(-5_000));
    assert!(!at(60_001) && !at(-5_001), "too old, and from the future");
}
