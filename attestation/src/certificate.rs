//! X.509 certificates as the Nitro attestation PKI writes them (RFC 5280), checked strictly and
//! borrowed from their bytes: version 3, P-384 keys, ecdsa-with-SHA384. `chain` checks who signed
//! one.

use crate::crypto::{PublicKey, Signature};
use crate::der::{Der, DerError, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, UTC_TIME};
use crate::error::{Part, Untrusted};
use crate::time::Time;
use time::{Date, Month};

const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const BAD_DATE: CertificateError = CertificateError::Malformed("a date is invalid");

// Object identifiers, encoded.
const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const SECP384R1: &[u8] = &[0x2b, 0x81, 4, 0, 34];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];

/// Why a certificate cannot be used.
#[derive(Debug)]
pub(crate) enum CertificateError {
    /// It is not a certificate.
    Malformed(DerError),
    /// It is one, but of a kind that this PKI does not have.
    Untrusted(fn(Part) -> Untrusted),
    /// It has an unknown critical extension with this OID.
    Critical(Vec<u8>),
}

impl From<DerError> for CertificateError {
    fn from(error: DerError) -> Self {
        CertificateError::Malformed(error)
    }
}

type Result<T> = std::result::Result<T, CertificateError>;

#[derive(Debug, Clone)]
pub(crate) struct Certificate<'b> {
    /// What the issuer signed.
    pub(crate) signed: &'b [u8],
    pub(crate) signature: Signature,
    /// Names are compared byte by byte and not parsed.
    pub(crate) issuer: &'b [u8],
    pub(crate) subject: &'b [u8],
    pub(crate) not_before: Time,
    pub(crate) not_after: Time,
    pub(crate) key: PublicKey,
    pub(crate) extensions: Extensions,
}

/// The extensions that decide something. Others are ignored if they are not critical: key
/// identifiers, and CRL distribution points, which AWS asks verifiers not to use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extensions {
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) key_usage: Option<KeyUsage>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct BasicConstraints {
    pub(crate) ca: bool,
    pub(crate) path_len: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyUsage(u16);

impl KeyUsage {
    /// Bit 0 (RFC 5280, 4.2.1.3).
    pub(crate) fn digital_signature(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// Bit 5.
    pub(crate) fn key_cert_sign(self) -> bool {
        self.0 & 0x0400 != 0
    }
}

impl<'b> Certificate<'b> {
    pub(crate) fn parse(der: &'b [u8]) -> Result<Self> {
        let mut outer = Der::new(der);
        let mut certificate = outer.sequence()?;
        outer.end()?;
        let (content, signed) = certificate.element(SEQUENCE)?;
        signature_algorithm(&mut certificate)?;
        let signature = raw_signature(certificate.octets_in_bits()?)?;
        certificate.end()?;

        let mut fields = Der::new(content);
        version(&mut fields)?;
        fields.content(INTEGER)?; // the serial number
        signature_algorithm(&mut fields)?;
        let (_, issuer) = fields.element(SEQUENCE)?;
        let mut validity = fields.sequence()?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        validity.end()?;
        let (_, subject) = fields.element(SEQUENCE)?;
        let key = public_key(fields.sequence()?)?;
        let extensions = if fields.is_empty() {
            Extensions::default()
        } else {
            Extensions::parse(fields.content(EXTENSIONS)?)?
        };
        fields.end()?;
        Ok(Certificate {
            signed,
            signature,
            issuer,
            subject,
            not_before,
            not_after,
            key,
            extensions,
        })
    }
}

fn version(fields: &mut Der<'_>) -> Result<()> {
    let mut version = Der::new(fields.content(VERSION)?);
    let number = version.unsigned()?;
    version.end()?;
    match number {
        [2] => Ok(()),
        _ => Err(CertificateError::Malformed("the version is not 3")),
    }
}

/// ecdsa-with-SHA384 has no parameters (RFC 5758, 3.2).
fn signature_algorithm(fields: &mut Der<'_>) -> Result<()> {
    let mut algorithm = fields.sequence()?;
    match (algorithm.content(OID)?, algorithm.is_empty()) {
        (ECDSA_WITH_SHA384, true) => Ok(()),
        _ => Err(CertificateError::Untrusted(Untrusted::SignatureAlgorithm)),
    }
}

/// ECDSA-Sig-Value (RFC 3279, 2.2.3) to two numbers of 48 bytes.
fn raw_signature(der: &[u8]) -> Result<Signature> {
    let mut outer = Der::new(der);
    let mut numbers = outer.sequence()?;
    outer.end()?;
    let mut signature = [0; 96];
    for half in signature.chunks_exact_mut(48) {
        let digits = numbers.unsigned()?;
        half.iter_mut()
            .rev()
            .zip(digits.iter().rev())
            .for_each(|(to, from)| *to = *from);
        if digits.len() > half.len() {
            return Err(CertificateError::Malformed(
                "an integer of the signature is longer than 48 bytes",
            ));
        }
    }
    numbers.end()?;
    Ok(signature)
}

/// An EC key names its curve (RFC 5480, 2.1.1).
fn public_key(mut info: Der<'_>) -> Result<PublicKey> {
    const UNUSABLE: CertificateError = CertificateError::Untrusted(Untrusted::Key);
    let mut algorithm = info.sequence()?;
    let point = info.octets_in_bits()?;
    info.end()?;
    if algorithm.content(OID)? != EC_PUBLIC_KEY || !algorithm.next_is(OID) {
        return Err(UNUSABLE);
    }
    let curve = algorithm.content(OID)?;
    algorithm.end()?;
    match (curve, PublicKey::try_from(point)) {
        (SECP384R1, Ok(key)) if key.first() == Some(&4) => Ok(key),
        _ => Err(UNUSABLE),
    }
}

/// UTCTime or GeneralizedTime in RFC 5280's only form: to the second, in UTC (4.1.2.5).
fn time(fields: &mut Der<'_>) -> Result<Time> {
    let (year, rest) = if fields.next_is(UTC_TIME) {
        let (year, rest) = digits(fields.content(UTC_TIME)?)?;
        let century = if year >= 50 { 1900 } else { 2000 };
        (century + i32::from(year), rest)
    } else {
        let (century, rest) = digits(fields.content(GENERALIZED_TIME)?)?;
        let (year, rest) = digits(rest)?;
        (i32::from(century) * 100 + i32::from(year), rest)
    };
    let (month, rest) = digits(rest)?;
    let (day, rest) = digits(rest)?;
    let (hour, rest) = digits(rest)?;
    let (minute, rest) = digits(rest)?;
    let (second, rest) = digits(rest)?;
    if rest != b"Z" {
        return Err(BAD_DATE);
    }
    let month = Month::try_from(month).map_err(|_| BAD_DATE)?;
    let date = Date::from_calendar_date(year, month, day).map_err(|_| BAD_DATE)?;
    let time = date.with_hms(hour, minute, second).map_err(|_| BAD_DATE)?;
    Ok(Time::from(time.assume_utc()))
}

/// Splits off a number of two decimal digits.
fn digits(text: &[u8]) -> Result<(u8, &[u8])> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] => {
            Ok(((tens - b'0') * 10 + (ones - b'0'), rest))
        }
        _ => Err(BAD_DATE),
    }
}

impl Extensions {
    fn parse(content: &[u8]) -> Result<Self> {
        let mut outer = Der::new(content);
        let mut list = outer.sequence()?;
        outer.end()?;
        if list.is_empty() {
            return Err(CertificateError::Malformed(
                "the list of extensions is empty",
            ));
        }
        let mut seen = Vec::new();
        let mut extensions = Extensions::default();
        while !list.is_empty() {
            let mut extension = list.sequence()?;
            let id = extension.content(OID)?;
            let critical = extension.default_false()?;
            let value = extension.content(OCTET_STRING)?;
            extension.end()?;
            if seen.contains(&id) {
                return Err(CertificateError::Malformed("an extension occurs twice"));
            }
            seen.push(id);
            match id {
                BASIC_CONSTRAINTS => {
                    extensions.basic_constraints = Some(BasicConstraints::parse(value)?)
                }
                KEY_USAGE => extensions.key_usage = Some(KeyUsage::parse(value)?),
                _ if critical => return Err(CertificateError::Critical(id.to_vec())),
                _ => {}
            }
        }
        Ok(extensions)
    }
}

impl BasicConstraints {
    fn parse(value: &[u8]) -> Result<Self> {
        let mut outer = Der::new(value);
        let mut fields = outer.sequence()?;
        outer.end()?;
        let ca = fields.default_false()?;
        let path_len = match (fields.is_empty(), ca) {
            (true, _) => None,
            // A cabundle has at most 16 certificates: longer paths need not be told apart.
            (false, true) => Some(match fields.unsigned()? {
                [one] => *one,
                _ => u8::MAX,
            }),
            (false, false) => {
                return Err(CertificateError::Malformed(
                    "a certificate has a path length but is not a CA",
                ));
            }
        };
        fields.end()?;
        Ok(BasicConstraints { ca, path_len })
    }
}

impl KeyUsage {
    fn parse(value: &[u8]) -> Result<Self> {
        let mut outer = Der::new(value);
        let bits = outer.named_bits()?;
        outer.end()?;
        Ok(KeyUsage(bits))
    }
}
