//! Keys and certificates, written by hand so that every rule can be broken.
#![allow(
    clippy::unwrap_used,
    reason = "a kit for tests: what goes wrong here is to end the test with a backtrace"
)]

use crate::der;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _,
};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// An extension's OID, encoded (RFC 5280, 4.2.1.9).
pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
/// An extension's OID, encoded (RFC 5280, 4.2.1.3).
pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
/// A signature algorithm's OID, encoded (RFC 5758, 3.2).
pub const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
/// A signature algorithm's OID, encoded (RFC 5758, 3.2).
pub const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// An extension of a certificate.
#[derive(Debug, Clone)]
pub struct Extension {
    /// Without tag and length.
    pub oid: Vec<u8>,
    /// Left out of the encoding if false, as DER does with default values.
    pub critical: bool,
    /// In DER.
    pub value: Vec<u8>,
}

/// `ca: false` is left out, as DER does with default values.
#[must_use]
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
#[must_use]
pub fn key_usage(bit: u8) -> Extension {
    Extension {
        oid: KEY_USAGE.to_vec(),
        critical: true,
        value: der::tlv(3, &[7 - bit, 0x80 >> bit]),
    }
}

/// What a [`Key`] lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1; signs with SHA-256.
    P256,
    /// secp384r1, that of Nitro's PKI; signs with SHA-384.
    P384,
    /// secp521r1; signs with SHA-512.
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

/// The bytes are not a private key on the curve, in PKCS #8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a private key on {0:?} in PKCS #8")]
pub struct KeyError(Curve);

/// A key pair in PKCS #8.
#[derive(Clone)]
pub struct Key {
    curve: Curve,
    pkcs8: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, …)", self.curve)
    }
}

impl Key {
    /// A random key. Panics if the system provides no randomness.
    #[must_use]
    pub fn new(curve: Curve) -> Key {
        let pair = EcdsaKeyPair::generate(curve.signing()).unwrap();
        Key {
            curve,
            pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        }
    }

    /// A key that was kept.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if `pkcs8` is not a private key on `curve`.
    pub fn from_pkcs8(curve: Curve, pkcs8: &[u8]) -> Result<Key, KeyError> {
        EcdsaKeyPair::from_pkcs8(curve.signing(), pkcs8).map_err(|_| KeyError(curve))?;
        Ok(Key {
            curve,
            pkcs8: pkcs8.to_vec(),
        })
    }

    /// The private key, in DER.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// r and s, 48 bytes each, if the curve is P-384; otherwise as [`Key::sign`].
    pub(crate) fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        if self.curve == Curve::P384 {
            self.sign_with(&ECDSA_P384_SHA384_FIXED_SIGNING, message)
        } else {
            self.sign(message)
        }
    }

    /// DER-encoded, as certificates have it.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign_with(self.curve.signing(), message)
    }

    fn sign_with(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8).unwrap();
        pair.sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }

    /// The public key as an uncompressed point (SEC 1, 2.3.3).
    pub(crate) fn point(&self) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(self.curve.signing(), &self.pkcs8).unwrap();
        pair.public_key().as_ref().to_vec()
    }

    /// SubjectPublicKeyInfo.
    pub(crate) fn info(&self) -> Vec<u8> {
        let algorithm = der::sequence(&[
            &der::oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]),
            &der::oid(self.curve.oid()),
        ]);
        der::sequence(&[&algorithm, &der::bits(&self.point())])
    }
}

/// A certificate before it is signed.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The content of an INTEGER.
    pub serial: Vec<u8>,
    /// A Name, in DER.
    pub issuer: Vec<u8>,
    /// A Name, in DER.
    pub subject: Vec<u8>,
    /// Two elements, UTCTime as a rule.
    pub validity: [Vec<u8>; 2],
    /// The key that it certifies.
    pub key: Key,
    /// Signs it in place of the certificate before it.
    pub signer: Option<Key>,
    /// In this order.
    pub extensions: Vec<Extension>,
    /// Of the signed part, and the one beside the signature.
    pub algorithms: [Vec<u8>; 2],
    /// In place of a real signature, in DER.
    pub signature: Option<Vec<u8>>,
    /// 2 is version 3.
    pub version: u8,
    /// Bytes that follow the certificate.
    pub tail: Vec<u8>,
    /// Bytes that follow the last field of the signed part.
    pub signed_tail: Vec<u8>,
}

/// Signing is not deterministic; the same certificate by the same key is signed once.
static MINTED: Mutex<BTreeMap<[Vec<u8>; 2], Vec<u8>>> = Mutex::new(BTreeMap::new());

impl Certificate {
    /// A certificate of version 3, serial number 7, with commonNames alone. `validity` as in
    /// [`utc`].
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
            serial: vec![7],
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

    /// TBSCertificate.
    fn signed_part(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::der).collect();
        let [algorithm, _] = &self.algorithms;
        let [from, until] = &self.validity;
        der::sequence(&[
            &der::tlv(0xa0, &der::tlv(2, &[self.version])),
            &der::tlv(2, &self.serial),
            algorithm,
            &self.issuer,
            &der::sequence(&[from, until]),
            &self.subject,
            &self.key.info(),
            &der::tlv(0xa3, &der::tlv(0x30, &extensions)),
            &self.signed_tail,
        ])
    }

    /// Signs it each time: no two results are equal, and nothing is remembered.
    pub(crate) fn issue(&self, signer: &Key) -> Vec<u8> {
        let signed = self.signed_part();
        let [_, algorithm] = &self.algorithms;
        der::sequence(&[&signed, algorithm, &der::bits(&signer.sign(&signed))])
    }

    /// The certificate in DER, signed by `signer` unless it names another signer or brings a
    /// signature. Equal certificates have equal bytes.
    pub fn mint(&self, signer: &Key) -> Vec<u8> {
        let signed = self.signed_part();
        let [_, algorithm] = &self.algorithms;
        let signer = self.signer.as_ref().unwrap_or(signer);
        if let Some(signature) = &self.signature {
            return der::sequence(&[&signed, algorithm, &der::bits(signature)]);
        }
        let key = [der::sequence(&[&signed, algorithm]), signer.pkcs8.clone()];
        let mut minted = MINTED.lock().unwrap();
        let certificate = minted.entry(key).or_insert_with(|| self.issue(signer));
        [certificate.clone(), self.tail.clone()].concat()
    }

    /// Its extension with this OID. Panics if it has none.
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
#[derive(Debug)]
pub struct Server {
    /// The CA's certificate, in DER.
    pub authority: Vec<u8>,
    /// In DER.
    pub certificate: Vec<u8>,
    /// PKCS #8.
    pub key: Vec<u8>,
}

/// A new CA and a server's certificate for `name` below it.
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

/// DER as files hold it (RFC 7468), in lines of 64 characters.
#[must_use]
pub fn pem_of(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let lines: String = der
        .chunks(48)
        .map(|line| base64::engine::general_purpose::STANDARD.encode(line) + "\n")
        .collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

/// UTCTime; `260101120000Z`.
#[must_use]
pub fn utc(text: &str) -> Vec<u8> {
    der::tlv(0x17, text.as_bytes())
}
