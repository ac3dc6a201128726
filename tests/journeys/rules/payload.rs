//! The fields of the payload, and the one form of CBOR that they have.

use super::{BYTES_FOLLOW, NOT_SHORTEST, assert_cases, cbor_error, error, field, result};
use attestation::{Error, Malformed};
use pki::{Plan, bytes, cbor, pcrs, registers};

const DEFINITE_BYTES: &str = "expected a byte string of definite length";
const DEFINITE_TEXT: &str = "expected a text string of definite length";
const SUPPLIED_BY_THE_ENCLAVE: [&str; 3] = ["public_key", "user_data", "nonce"];

fn text(text: &str) -> Vec<u8> {
    cbor(|e| e.str(text))
}

/// A good document with another value for a field.
fn with(name: &str, value: Vec<u8>) -> Error {
    error(|plan| plan.set(name, value))
}

#[test]
fn accepts_optional_fields_that_are_absent_null_or_empty() {
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
    let empty = result(|plan| plan.set("user_data", bytes(&[]))).unwrap();
    assert_eq!(empty.user_data, Some(vec![]));
    assert_eq!(
        with("public_key", bytes(&[])),
        field("public_key", "is empty")
    );
}

#[test]
fn accepts_optional_fields_of_1024_bytes_and_not_of_1025() {
    assert_cases(SUPPLIED_BY_THE_ENCLAVE.map(|name| {
        let longest = result(|plan| plan.set(name, bytes(&[1; 1024])));
        (name, longest.map(drop), Ok(()))
    }));
    assert_cases(SUPPLIED_BY_THE_ENCLAVE.map(|name| {
        (
            name,
            with(name, bytes(&[1; 1025])),
            field(name, "is longer than 1024 bytes"),
        )
    }));
}

#[test]
fn refuses_payloads_that_lack_a_required_field() {
    let required = ["module_id", "digest", "timestamp", "pcrs"];
    assert_cases(required.map(|name| {
        (
            name,
            error(|plan| plan.remove(name)),
            Malformed::Missing(name).into(),
        )
    }));
    assert_cases(["certificate", "cabundle"].map(|name| {
        (
            name,
            error(|plan| plan.without = Some(text(name))),
            Malformed::Missing(name).into(),
        )
    }));
}

#[test]
fn refuses_payloads_with_a_field_twice() {
    let names = [
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "public_key",
        "user_data",
        "nonce",
    ];
    assert_cases(names.map(|name| {
        let twice = error(|plan| {
            let same = |(other, _): &&(Vec<u8>, Vec<u8>)| *other == text(name);
            let again = plan.fields.iter().find(same).unwrap().clone();
            plan.fields.push(again);
        });
        (name, twice, Malformed::Duplicate(name).into())
    }));
    let leaf = Plan::default().minted_certificates().pop().unwrap();
    let chain = [
        ("certificate", bytes(&leaf)),
        ("cabundle", cbor(|e| e.array(1)?.bytes(&leaf))),
    ];
    assert_cases(chain.map(|(name, value)| {
        let pair = [(text(name), value.clone()), (text(name), value)];
        (
            name,
            error(|plan| plan.fields.extend(pair)),
            Malformed::Duplicate(name).into(),
        )
    }));
}

#[test]
fn refuses_unknown_fields_such_as_an_ec2_instances() {
    let unknown = Error::from(Malformed::Unknown("nitrotpm_pcrs".to_owned()));
    assert_eq!(with("nitrotpm_pcrs", pcrs(&registers())), unknown);
    let nitrotpm = error(|plan| {
        plan.remove("pcrs");
        plan.set("nitrotpm_pcrs", pcrs(&registers()));
    });
    assert_eq!(nitrotpm, unknown, "an EC2 instance is not an enclave");
}

#[test]
fn refuses_values_that_documents_never_have() {
    assert_eq!(
        with("digest", text("SHA256")),
        field("digest", "is not SHA384")
    );
    assert_eq!(with("module_id", text("")), field("module_id", "is empty"));
    assert_cases([0, u64::MAX].map(|timestamp| {
        (
            timestamp,
            with("timestamp", cbor(|e| e.u64(timestamp))),
            field("timestamp", "is zero or too far in the future"),
        )
    }));
    assert_eq!(
        cbor_error(error(|plan| plan.payload_tail = vec![0])),
        ("payload", BYTES_FOLLOW.to_owned())
    );
}

#[test]
fn refuses_cbor_that_can_be_read_in_two_ways() {
    let cases: [(&str, Vec<u8>, &str, &str); 12] = [
        ("nonce", vec![0x5f, 0x41, 1, 0xff], "nonce", DEFINITE_BYTES),
        ("nonce", vec![0x58, 1, 1], "nonce", NOT_SHORTEST),
        ("nonce", vec![0x61, b'x'], "nonce", DEFINITE_BYTES),
        ("nonce", vec![0x81, 1], "nonce", DEFINITE_BYTES),
        ("nonce", vec![0xd8, 24, 0x41, 1], "nonce", DEFINITE_BYTES),
        (
            "module_id",
            vec![0x7f, 0x61, b'i', 0xff],
            "payload",
            DEFINITE_TEXT,
        ),
        ("module_id", vec![0x41, b'i'], "payload", DEFINITE_TEXT),
        (
            "module_id",
            vec![0x62, 0xc3, 0x28],
            "payload",
            DEFINITE_TEXT,
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
    assert_cases(cases.map(|(name, value, part, problem)| {
        (
            format!("{name} {value:02x?}"),
            cbor_error(with(name, value)),
            (part, problem.to_owned()),
        )
    }));
}

#[test]
fn refuses_nesting_and_lengths_without_reading_into_them() {
    let nested = [vec![0x81; 65], vec![0]].concat();
    let huge = vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_cases([("nested", nested), ("huge", huge)].map(|(name, value)| {
        (
            name,
            cbor_error(with("user_data", value)),
            ("user_data", DEFINITE_BYTES.to_owned()),
        )
    }));
}

#[test]
fn refuses_field_names_that_are_not_text_in_its_shortest_form() {
    let number = error(|plan| plan.fields.insert(0, (vec![1], vec![0xf6])));
    assert_eq!(cbor_error(number), ("payload", DEFINITE_TEXT.to_owned()));
    let wide = error(|plan| plan.fields[0].0 = [vec![0x78, 9], b"module_id".to_vec()].concat());
    assert_eq!(cbor_error(wide), ("payload", NOT_SHORTEST.to_owned()));
}

#[test]
fn refuses_register_tables_that_are_empty_too_wide_or_ambiguous() {
    let with = |registers: &[(u64, Vec<u8>)]| error(|plan| plan.set("pcrs", pcrs(registers)));
    assert_eq!(with(&[]), field("pcrs", "is empty"));
    assert_cases([32, 256].map(|index| {
        (
            index,
            with(&[(index, vec![1; 48])]),
            field("pcrs", "an index is above 31"),
        )
    }));
    assert_cases([0, 32, 47, 49, 64].map(|len| {
        (
            len,
            with(&[(0, vec![1; len])]),
            field("pcrs", "a register is not 48 bytes long"),
        )
    }));
    assert_eq!(
        with(&[(0, vec![1; 48]), (0, vec![1; 48])]),
        Malformed::Duplicate("pcrs").into()
    );
}

#[test]
fn accepts_registers_in_any_order_and_in_an_open_map() {
    let registers = [
        (31, vec![9; 48]),
        (0, vec![1; 48]),
        (2, vec![1; 48]),
        (1, vec![1; 48]),
    ];
    let sparse = result(|plan| plan.set("pcrs", pcrs(&registers))).unwrap();
    let indexes: Vec<_> = sparse.pcrs.iter().map(|(index, _)| index).collect();
    assert_eq!(indexes, [0, 1, 2, 31]);
    let open = [vec![0xbf], pcrs(&registers)[1..].to_vec(), vec![0xff]].concat();
    assert!(
        result(|plan| plan.set("pcrs", open)).is_ok(),
        "newer hardware writes open maps around it"
    );
}

#[test]
fn refuses_bundles_of_another_size() {
    let bundle = |items: &[Vec<u8>]| {
        let head = cbor(|e| e.array(items.len() as u64));
        with("cabundle", [head, items.concat()].concat())
    };
    let count = field("cabundle", "is empty or has more than 16 certificates");
    assert_eq!(bundle(&[]), count);
    assert_eq!(bundle(&vec![bytes(&[1]); 17]), count);
    assert_cases([0, 1025].map(|len| {
        (
            len,
            bundle(&[bytes(&vec![1; len])]),
            field("certificate", "is empty or longer than 1024 bytes"),
        )
    }));
    let open = with("cabundle", vec![0x9f, 0x41, 1, 0xff]);
    assert_eq!(
        cbor_error(open),
        (
            "cabundle",
            "expected an array of definite length".to_owned()
        )
    );
}

#[test]
fn refuses_enclave_certificates_of_another_size() {
    assert_cases([0, 1025].map(|len| {
        (
            len,
            with("certificate", bytes(&vec![1; len])),
            field("certificate", "is empty or longer than 1024 bytes"),
        )
    }));
    let open = with("certificate", vec![0x5f, 0x41, 1, 0xff]);
    assert_eq!(cbor_error(open).0, "certificate");
}
