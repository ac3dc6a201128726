//! Just enough DER to write certificates, right or wrong.
#![allow(
    clippy::unwrap_used,
    reason = "a kit for tests: what goes wrong here is to end the test with a backtrace"
)]

/// An element with a tag of one byte. Panics if `content` is longer than 65535 bytes.
#[must_use]
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let head = match len {
        0..=0x7f => vec![tag, u8::try_from(len).unwrap()],
        0x80..=0xff => vec![tag, 0x81, u8::try_from(len).unwrap()],
        _ => [
            &[tag, 0x82],
            u16::try_from(len).unwrap().to_be_bytes().as_slice(),
        ]
        .concat(),
    };
    [head.as_slice(), content].concat()
}

/// A SEQUENCE of elements that are encoded already.
#[must_use]
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// An OBJECT IDENTIFIER whose arcs are encoded already.
#[must_use]
pub fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(0x06, encoded)
}

/// A BIT STRING of whole octets.
#[must_use]
pub fn bits(octets: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], octets].concat())
}

/// A Name with one attribute, commonName.
#[must_use]
pub fn name(common_name: &str) -> Vec<u8> {
    distinguished_name(&[(COMMON_NAME, common_name)])
}

/// The last arc of an attribute type of X.520, 2.5.4.N (RFC 5280, A.1).
pub const COMMON_NAME: u8 = 3;
/// See [`COMMON_NAME`]. Its value is a PrintableString; those of the others are UTF8Strings.
pub const COUNTRY: u8 = 6;
/// See [`COMMON_NAME`].
pub const LOCALITY: u8 = 7;
/// See [`COMMON_NAME`].
pub const STATE: u8 = 8;
/// See [`COMMON_NAME`].
pub const ORGANIZATION: u8 = 10;
/// See [`COMMON_NAME`].
pub const ORGANIZATIONAL_UNIT: u8 = 11;

/// A Name of attributes in this order, each with the last arc of its type.
#[must_use]
pub fn distinguished_name(attributes: &[(u8, &str)]) -> Vec<u8> {
    let sets = attributes.iter().map(|(kind, value)| {
        let tag = if *kind == COUNTRY { 0x13 } else { 0x0c };
        let attribute = sequence(&[&oid(&[0x55, 4, *kind]), &tlv(tag, value.as_bytes())]);
        tlv(0x31, &attribute)
    });
    tlv(0x30, &sets.collect::<Vec<_>>().concat())
}
