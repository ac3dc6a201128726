//! A PKI shaped like AWS's for Nitro attestation, and documents signed with it: good ones, and ones
//! that break a single rule.
//!
//! A [`Plan`] starts as a good document; a test changes one thing and mints it. Nothing here checks
//! anything, and certificates are written by hand so that every rule can be broken.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _,
};
use minicbor::Encoder;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, OnceLock};

/// When the documents are made: 2026-01-01T12:00:00Z, in milliseconds.
pub const MADE_AT: i64 = 1_767_268_800_000;
pub const MODULE_ID: &str = "i-0123456789abcdef0-enc0123456789abcde";

/// Places in [`Plan::certificates`].
pub const ROOT: usize = 0;
pub const REGIONAL: usize = 1;
pub const ZONAL: usize = 2;
pub const INSTANCE: usize = 3;
pub const LEAF: usize = 4;

pub mod der {
    //! Just enough DER to write certificates, right or wrong.

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

    pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
        tlv(0x30, &parts.concat())
    }

    pub fn oid(encoded: &[u8]) -> Vec<u8> {
        tlv(0x06, encoded)
    }

    pub fn bits(octets: &[u8]) -> Vec<u8> {
        tlv(0x03, &[&[0], octets].concat())
    }

    /// A Name with one attribute, commonName.
    pub fn name(common_name: &str) -> Vec<u8> {
        let attribute = sequence(&[&oid(&[0x55, 4, 3]), &tlv(0x0c, common_name.as_bytes())]);
        sequence(&[&tlv(0x31, &attribute)])
    }
}

pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
pub const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
pub const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

#[derive(Debug, Clone)]
pub struct Extension {
    pub oid: Vec<u8>,
    pub critical: bool,
    pub value: Vec<u8>,
}

/// `ca: false` is left out, as DER does with default values.
pub fn basic_constraints(ca: bool, path_len: Option<u8>) -> Extension {
    let ca = if ca { der::tlv(1, &[0xff]) } else { vec![] };
    let path_len = path_len.map(|n| der::tlv(2, &[n])).unwrap_or_default();
    Extension {
        oid: BASIC_CONSTRAINTS.to_vec(),
        critical: true,
        value: der::sequence(&[&ca, &path_len]),
    }
}

/// Bit 0 is digitalSignature, bit 5 keyCertSign.
pub fn key_usage(bit: u8) -> Extension {
    Extension {
        oid: KEY_USAGE.to_vec(),
        critical: true,
        value: der::tlv(3, &[7 - bit, 0x80 >> bit]),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn oid(self) -> &'static [u8] {
        match self {
            Curve::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            Curve::P384 => &[0x2b, 0x81, 4, 0, 34],
            Curve::P521 => &[0x2b, 0x81, 4, 0, 35],
        }
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
            Curve::P521 => &ECDSA_P521_SHA512_ASN1_SIGNING,
        }
    }
}

/// A key pair in PKCS #8.
#[derive(Clone)]
pub struct Key {
    curve: Curve,
    pkcs8: Vec<u8>,
}

impl Key {
    pub fn new(curve: Curve) -> Key {
        let pair = EcdsaKeyPair::generate(curve.signing()).unwrap();
        Key {
            curve,
            pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        }
    }

    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// DER-encoded, as certificates have it.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign_with(self.curve.signing(), message)
    }

    fn sign_with(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8).unwrap();
        pair.sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }

    fn info(&self) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(self.curve.signing(), &self.pkcs8).unwrap();
        let algorithm = der::sequence(&[
            &der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]),
            &der::oid(self.curve.oid()),
        ]);
        der::sequence(&[&algorithm, &der::bits(pair.public_key().as_ref())])
    }
}

/// A certificate before it is signed.
#[derive(Clone)]
pub struct Certificate {
    pub issuer: Vec<u8>,
    pub subject: Vec<u8>,
    /// Two elements, UTCTime as a rule.
    pub validity: [Vec<u8>; 2],
    pub key: Key,
    /// Signs it in place of the certificate before it.
    pub signer: Option<Key>,
    pub extensions: Vec<Extension>,
    /// Of the signed part, and the one beside the signature.
    pub algorithms: [Vec<u8>; 2],
    /// In place of a real signature, in DER.
    pub signature: Option<Vec<u8>>,
    pub version: u8,
    /// Bytes that follow the certificate.
    pub tail: Vec<u8>,
    /// Bytes that follow the last field of the signed part.
    pub signed_tail: Vec<u8>,
}

/// Signing is not deterministic; the same certificate by the same key is signed once.
static MINTED: Mutex<BTreeMap<[Vec<u8>; 2], Vec<u8>>> = Mutex::new(BTreeMap::new());

impl Certificate {
    #[must_use]
    pub fn new(
        issuer: &str,
        subject: &str,
        validity: [&str; 2],
        extensions: Vec<Extension>,
        key: &Key,
    ) -> Self {
        let algorithm = der::sequence(&[&der::oid(ECDSA_WITH_SHA384)]);
        Certificate {
            issuer: der::name(issuer),
            subject: der::name(subject),
            validity: validity.map(utc),
            key: key.clone(),
            signer: None,
            extensions,
            algorithms: [algorithm.clone(), algorithm],
            signature: None,
            version: 2,
            tail: vec![],
            signed_tail: vec![],
        }
    }

    pub fn mint(&self, signer: &Key) -> Vec<u8> {
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::der).collect();
        let signed = der::sequence(&[
            &der::tlv(0xa0, &der::tlv(2, &[self.version])),
            &der::tlv(2, &[7]),
            &self.algorithms[0],
            &self.issuer,
            &der::sequence(&[&self.validity[0], &self.validity[1]]),
            &self.subject,
            &self.key.info(),
            &der::tlv(0xa3, &der::tlv(0x30, &extensions)),
            &self.signed_tail,
        ]);
        let signer = self.signer.as_ref().unwrap_or(signer);
        if let Some(signature) = &self.signature {
            return der::sequence(&[&signed, &self.algorithms[1], &der::bits(signature)]);
        }
        let key = [
            der::sequence(&[&signed, &self.algorithms[1]]),
            signer.pkcs8.clone(),
        ];
        let mut minted = MINTED.lock().unwrap();
        let certificate = minted.entry(key).or_insert_with(|| {
            der::sequence(&[
                &signed,
                &self.algorithms[1],
                &der::bits(&signer.sign(&signed)),
            ])
        });
        [certificate.clone(), self.tail.clone()].concat()
    }

    pub fn extension(&mut self, oid: &[u8]) -> &mut Extension {
        self.extensions
            .iter_mut()
            .find(|extension| extension.oid == oid)
            .unwrap()
    }
}

impl Extension {
    fn der(&self) -> Vec<u8> {
        let critical = if self.critical {
            der::tlv(1, &[0xff])
        } else {
            vec![]
        };
        der::sequence(&[&der::oid(&self.oid), &critical, &der::tlv(4, &self.value)])
    }
}

/// A TLS server's certificate for a name, below a CA of its own.
pub struct Server {
    /// The CA's certificate, in DER.
    pub authority: Vec<u8>,
    pub certificate: Vec<u8>,
    /// PKCS #8.
    pub key: Vec<u8>,
}

#[must_use]
pub fn server(name: &str) -> Server {
    const CA: &str = "a test's CA";
    let (ca_key, key) = (Key::new(Curve::P384), Key::new(Curve::P384));
    let validity = ["200101000000Z", "491231235959Z"];
    let extensions = vec![basic_constraints(true, None), key_usage(5)];
    let ca = Certificate::new(CA, CA, validity, extensions, &ca_key);
    let alternative = Extension {
        oid: vec![0x55, 0x1d, 17],
        critical: false,
        value: der::sequence(&[&der::tlv(0x82, name.as_bytes())]),
    };
    let extensions = vec![key_usage(0), alternative];
    let own = Certificate::new(CA, name, validity, extensions, &key);
    Server {
        authority: ca.mint(&ca_key),
        certificate: own.mint(&ca_key),
        key: key.pkcs8().to_vec(),
    }
}

/// A certificate as files hold it (RFC 7468).
#[must_use]
pub fn pem(der: &[u8]) -> String {
    pem_of("CERTIFICATE", der)
}

#[must_use]
pub fn pem_of(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let digits = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{digits}\n-----END {label}-----\n")
}

/// UTCTime; `260101120000Z`.
pub fn utc(text: &str) -> Vec<u8> {
    der::tlv(0x17, text.as_bytes())
}

/// Everything that makes up a document.
#[derive(Clone)]
pub struct Plan {
    pub certificates: Vec<Certificate>,
    /// Names and values of the payload, encoded, in order. `certificate` and `cabundle` are filled
    /// in when minting if they are not here.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// A name that is left out of the payload, even if it was filled in.
    pub without: Option<Vec<u8>>,
    /// Whether the payload is a map of indefinite length.
    pub indefinite: bool,
    /// Bytes that follow the payload's map.
    pub payload_tail: Vec<u8>,
    /// The protected header, as the content of its byte string.
    pub protected: Vec<u8>,
    pub unprotected: Vec<u8>,
    pub signature: Signature,
    /// Puts certificates into another order, or loses some.
    pub arrange: fn(&mut Vec<Vec<u8>>),
}

/// What a document carries as its signature.
#[derive(Clone)]
pub enum Signature {
    /// r and s, 48 bytes each, as ES384 has it.
    Fixed,
    /// In DER, as certificates have it.
    Der,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A document, and the root that it chains to.
#[derive(Debug, Clone)]
pub struct Minted {
    pub document: Vec<u8>,
    /// The self-made root, in DER.
    pub root: Vec<u8>,
}

/// One CBOR item.
pub fn cbor(
    write: impl FnOnce(
        &mut Encoder<Vec<u8>>,
    ) -> Result<&mut Encoder<Vec<u8>>, minicbor::encode::Error<Infallible>>,
) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder).unwrap();
    encoder.into_writer()
}

pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    cbor(|e| e.bytes(bytes))
}

/// A map of registers.
pub fn pcrs(registers: &[(u64, Vec<u8>)]) -> Vec<u8> {
    cbor(|e| {
        let e = e.map(registers.len() as u64)?;
        registers
            .iter()
            .try_fold(e, |e, (index, pcr)| e.u64(*index)?.bytes(pcr))
    })
}

/// The registers of a good document: 0 to 15, each filled with its index plus one.
pub fn registers() -> Vec<(u64, Vec<u8>)> {
    (0..16)
        .map(|index| (index, vec![u8::try_from(index).unwrap() + 1; 48]))
        .collect()
}

fn keys() -> &'static [Key; 5] {
    static KEYS: OnceLock<[Key; 5]> = OnceLock::new();
    KEYS.get_or_init(|| std::array::from_fn(|_| Key::new(Curve::P384)))
}

/// Five certificates shaped like AWS's: root, region, zone, parent instance, enclave.
fn certificates() -> Vec<Certificate> {
    let [root, regional, zonal, instance, leaf] = keys();
    let ca = |path_len| vec![basic_constraints(true, path_len), key_usage(5)];
    let end_entity = vec![basic_constraints(false, None), key_usage(0)];
    let decades = ["191028132805Z", "491028142805Z"];
    let weeks = ["251220000000Z", "260109010000Z"];
    let days = ["251230000000Z", "260104180000Z"];
    let day = ["260101000000Z", "260102000000Z"];
    let hours = ["260101110000Z", "260101140000Z"];
    vec![
        Certificate::new("root", "root", decades, ca(None), root),
        Certificate::new("root", "region", weeks, ca(Some(2)), regional),
        Certificate::new("region", "zone", days, ca(Some(1)), zonal),
        Certificate::new("zone", "instance", day, ca(Some(0)), instance),
        Certificate::new("instance", "enclave", hours, end_entity, leaf),
    ]
}

impl Default for Plan {
    fn default() -> Plan {
        let text = |text: &str| cbor(|e| e.str(text));
        Plan {
            certificates: certificates(),
            fields: vec![
                (text("module_id"), text(MODULE_ID)),
                (text("digest"), text("SHA384")),
                (text("timestamp"), cbor(|e| e.u64(MADE_AT.unsigned_abs()))),
                (text("pcrs"), pcrs(&registers())),
                (text("public_key"), bytes(b"key")),
                (text("user_data"), cbor(Encoder::null)),
                (text("nonce"), bytes(b"12345678")),
            ],
            without: None,
            indefinite: false,
            payload_tail: vec![],
            protected: vec![0xa1, 0x01, 0x38, 0x22],
            unprotected: vec![0xa0],
            signature: Signature::Fixed,
            arrange: |_| {},
        }
    }
}

impl Plan {
    /// A good document after `change`.
    pub fn with(change: impl FnOnce(&mut Plan)) -> Minted {
        let mut plan = Plan::default();
        change(&mut plan);
        plan.mint()
    }

    /// Replaces the value of a field.
    pub fn set(&mut self, name: &str, value: Vec<u8>) {
        let name = cbor(|e| e.str(name));
        match self.fields.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name, value)),
        }
    }

    pub fn remove(&mut self, name: &str) {
        let name = cbor(|e| e.str(name));
        self.fields.retain(|(other, _)| *other != name);
    }

    /// The certificates in DER, the root first and the enclave's last.
    pub fn minted_certificates(&self) -> Vec<Vec<u8>> {
        (0..self.certificates.len())
            .map(|place| {
                self.certificates[place].mint(&self.certificates[place.saturating_sub(1)].key)
            })
            .collect()
    }

    pub fn mint(mut self) -> Minted {
        let mut cabundle = self.minted_certificates();
        let (root, leaf) = (cabundle[ROOT].clone(), cabundle.pop().unwrap());
        (self.arrange)(&mut cabundle);
        let names: Vec<_> = self.fields.iter().map(|(name, _)| name.clone()).collect();
        if !names.contains(&cbor(|e| e.str("certificate"))) {
            self.set("certificate", bytes(&leaf));
        }
        if !names.contains(&cbor(|e| e.str("cabundle"))) {
            let list = cbor(|e| {
                let e = e.array(cabundle.len() as u64)?;
                cabundle.iter().try_fold(e, |e, der| e.bytes(der))
            });
            self.set("cabundle", list);
        }
        self.fields
            .retain(|(name, _)| self.without.as_ref() != Some(name));
        let document = self.sign();
        Minted { document, root }
    }

    /// The payload as it is signed.
    fn payload(&self) -> Vec<u8> {
        let (head, end) = if self.indefinite {
            (vec![0xbf], vec![0xff])
        } else {
            (cbor(|e| e.map(self.fields.len() as u64)), vec![])
        };
        let entries: Vec<u8> = self
            .fields
            .iter()
            .flat_map(|(name, value)| [name.clone(), value.clone()].concat())
            .collect();
        [head, entries, end, self.payload_tail.clone()].concat()
    }

    /// COSE_Sign1 over the payload, with the last certificate's key.
    fn sign(&self) -> Vec<u8> {
        let payload = self.payload();
        let message = cbor(|e| {
            e.array(4)?
                .str("Signature1")?
                .bytes(&self.protected)?
                .bytes(&[])?
                .bytes(&payload)
        });
        let key = &self.certificates.last().unwrap().key;
        let signature = match &self.signature {
            Signature::Bytes(bytes) => bytes.clone(),
            Signature::Fixed if key.curve == Curve::P384 => {
                key.sign_with(&ECDSA_P384_SHA384_FIXED_SIGNING, &message)
            }
            Signature::Fixed | Signature::Der => key.sign(&message),
        };
        [
            vec![0x84],
            bytes(&self.protected),
            self.unprotected.clone(),
            bytes(&payload),
            bytes(&signature),
        ]
        .concat()
    }
}
