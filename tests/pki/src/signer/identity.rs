//! The certificates of a module, named and dated as those of genuine documents, each with a key of
//! its own.
//!
//! Read off documents of 2022 to 2026: a root of 30 years, a region's certificate of 20 days, a
//! zone's of 5.75, a parent instance's of a day, and an enclave's of three hours, from three seconds
//! before it is made. What is left out are the distribution points of revocation lists, which AWS
//! asks verifiers not to use.

use crate::certificates::{Certificate, Curve, Extension, KEY_USAGE, Key, basic_constraints, utc};
use crate::der::{
    self, COMMON_NAME, COUNTRY, LOCALITY, ORGANIZATION, ORGANIZATIONAL_UNIT, STATE,
    distinguished_name,
};
use attestation::Time;
use aws_lc_rs::digest::{SHA256, digest};
use std::time::Duration;
use time::OffsetDateTime;

const REGION: &str = "us-east-1";

const SECOND: u64 = 1;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A certificate's start, before it is made, and its end, after that; in seconds.
type Span = (u64, u64);
const REGIONAL: Span = (3 * DAY, 17 * DAY + HOUR);
const ZONAL: Span = (13 * HOUR, 5 * DAY + 5 * HOUR);
const INSTANCE: Span = (9 * HOUR, 15 * HOUR);
const LEAF: Span = (3 * SECOND, 3 * HOUR);

/// An identity is replaced so long before its leaf expires, which is the first to expire: whoever
/// gets a document has at least this long to verify it.
const RENEWAL: Duration = Duration::from_secs(HOUR / 2);

/// Bits of keyUsage as the first octet of their BIT STRING (RFC 5280, 4.2.1.3).
const DIGITAL_SIGNATURE: u8 = 0x80;
const NON_REPUDIATION: u8 = 0x40;
const KEY_CERT_SIGN: u8 = 0x04;
const CRL_SIGN: u8 = 0x02;

const SUBJECT_KEY_IDENTIFIER: u8 = 14;
const AUTHORITY_KEY_IDENTIFIER: u8 = 35;

/// Whose certificate every document brings.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) key: Key,
    /// In DER.
    pub(super) certificate: Vec<u8>,
}

/// What a module signs with.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: Key,
    /// In DER.
    pub(super) certificate: Vec<u8>,
    /// The root first.
    pub(super) cabundle: [Vec<u8>; 4],
    /// When the certificate expires.
    pub(super) until: Time,
}

/// Who signs a certificate.
struct Issuer<'a> {
    name: &'a [u8],
    key: &'a Key,
}

impl Identity {
    pub(super) fn new(root: &Root, module_id: &str, now: Time) -> Identity {
        let [regional_key, zonal_key, instance_key, key] =
            std::array::from_fn(|_| Key::new(Curve::P384));
        let (instance_id, _) = module_id.split_once("-enc").unwrap_or((module_id, ""));

        let (region, zone) = (regional_name(), zonal_name());
        let instance = local_name(&format!("{instance_id}.{REGION}.aws.nitro-enclaves"));
        let enclave = local_name(&format!("{module_id}.{REGION}.aws"));

        let issuer = |name, key| Issuer { name, key };
        let validity = |span| validity(now, span);
        let signs = DIGITAL_SIGNATURE | KEY_CERT_SIGN | CRL_SIGN;

        let name = root_name();
        let by_root = issuer(&name, &root.key);
        let extensions = ca(2, signs, &regional_key, by_root.key);
        let regional = by_root.issue(&region, &regional_key, validity(REGIONAL), extensions);

        let by_region = issuer(&region, &regional_key);
        let extensions = ca(1, signs, &zonal_key, by_region.key);
        let zonal = by_region.issue(&zone, &zonal_key, validity(ZONAL), extensions);

        let by_zone = issuer(&zone, &zonal_key);
        let extensions = ca(0, KEY_CERT_SIGN, &instance_key, by_zone.key);
        let parent = by_zone.issue(&instance, &instance_key, validity(INSTANCE), extensions);

        let by_instance = issuer(&instance, &instance_key);
        let certificate = by_instance.issue(&enclave, &key, validity(LEAF), end_entity());
        Identity {
            key,
            certificate,
            cabundle: [root.certificate.clone(), regional, zonal, parent],
            until: shifted(now, LEAF.1),
        }
    }

    pub(super) fn is_usable(&self, now: Time) -> bool {
        now.plus(RENEWAL) < self.until
    }
}

impl Issuer<'_> {
    fn issue(
        &self,
        subject: &[u8],
        key: &Key,
        validity: [Vec<u8>; 2],
        extensions: Vec<Extension>,
    ) -> Vec<u8> {
        let mut certificate = Certificate::new("", "", ["", ""], extensions, key);
        certificate.serial = serial();
        certificate.issuer = self.name.to_vec();
        certificate.subject = subject.to_vec();
        certificate.validity = validity;
        certificate.issue(self.key)
    }
}

/// The self-signed certificate of a root, with the dates of AWS's own.
pub(super) fn root_certificate(key: &Key) -> Vec<u8> {
    let name = root_name();
    let extensions = vec![
        basic_constraints(true, None),
        subject_key_identifier(key),
        key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN | CRL_SIGN, true),
    ];
    let validity = ["191028132805Z", "491028142805Z"].map(utc);
    Issuer { name: &name, key }.issue(&name, key, validity, extensions)
}

/// 16 bytes, positive.
fn serial() -> Vec<u8> {
    let mut serial = random::<16>();
    let [first, ..] = &mut serial;
    *first = *first & 0x7f | 0x40;
    serial.to_vec()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system provides randomness");
    bytes
}

fn root_name() -> Vec<u8> {
    global_name("aws.nitro-enclaves")
}

fn regional_name() -> Vec<u8> {
    let number = u64::from_be_bytes(random());
    global_name(&format!("{number:016x}.{REGION}.aws.nitro-enclaves"))
}

fn global_name(common_name: &str) -> Vec<u8> {
    distinguished_name(&[
        (COUNTRY, "US"),
        (ORGANIZATION, "Amazon"),
        (ORGANIZATIONAL_UNIT, "AWS"),
        (COMMON_NAME, common_name),
    ])
}

fn zonal_name() -> Vec<u8> {
    let number = u64::from_be_bytes(random());
    let common_name = format!("{number:016x}.zonal.{REGION}.aws.nitro-enclaves");
    distinguished_name(&[
        (COMMON_NAME, &common_name),
        (ORGANIZATIONAL_UNIT, "AWS"),
        (ORGANIZATION, "Amazon"),
        (COUNTRY, "US"),
        (STATE, "WA"),
        (LOCALITY, "Seattle"),
    ])
}

fn local_name(common_name: &str) -> Vec<u8> {
    distinguished_name(&[
        (COUNTRY, "US"),
        (STATE, "Washington"),
        (LOCALITY, "Seattle"),
        (ORGANIZATION, "Amazon"),
        (ORGANIZATIONAL_UNIT, "AWS"),
        (COMMON_NAME, common_name),
    ])
}

fn ca(path_len: u8, usage: u8, key: &Key, issuer: &Key) -> Vec<Extension> {
    vec![
        basic_constraints(true, Some(path_len)),
        authority_key_identifier(issuer),
        subject_key_identifier(key),
        key_usage(usage, true),
    ]
}

fn end_entity() -> Vec<Extension> {
    vec![
        basic_constraints(false, None),
        key_usage(DIGITAL_SIGNATURE | NON_REPUDIATION, false),
    ]
}

fn key_usage(bits: u8, critical: bool) -> Extension {
    // Fits: a byte has at most 8 zeros.
    let unused = u8::try_from(bits.trailing_zeros()).unwrap_or(0);
    Extension {
        oid: KEY_USAGE.to_vec(),
        critical,
        value: der::tlv(3, &[unused, bits]),
    }
}

/// 160 bits of the key's SHA-256 (RFC 7093, 2, method 1).
fn key_identifier(key: &Key) -> Vec<u8> {
    let hash = digest(&SHA256, &key.point());
    hash.as_ref().iter().copied().take(20).collect()
}

fn subject_key_identifier(key: &Key) -> Extension {
    Extension {
        oid: vec![0x55, 0x1d, SUBJECT_KEY_IDENTIFIER],
        critical: false,
        value: der::tlv(4, &key_identifier(key)),
    }
}

fn authority_key_identifier(issuer: &Key) -> Extension {
    Extension {
        oid: vec![0x55, 0x1d, AUTHORITY_KEY_IDENTIFIER],
        critical: false,
        value: der::sequence(&[&der::tlv(0x80, &key_identifier(issuer))]),
    }
}

fn validity(now: Time, (before, after): Span) -> [Vec<u8>; 2] {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    let from = Time::from_millis(now.as_millis().saturating_sub(seconds(before) * 1000));
    [from, shifted(now, after)].map(utc_time)
}

fn shifted(now: Time, seconds: u64) -> Time {
    now.plus(Duration::from_secs(seconds))
}

/// UTCTime, which ends in 2049 (RFC 5280, 4.1.2.5.1), as the root does.
fn utc_time(time: Time) -> Vec<u8> {
    let time = OffsetDateTime::from_unix_timestamp(time.as_millis().div_euclid(1000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    utc(&format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        time.year().rem_euclid(100),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    ))
}
