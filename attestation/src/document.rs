//! The format of attestation documents, checked strictly and borrowed from their bytes. Signatures
//! are not checked here, so the fields stay inside this crate until something has authenticated
//! them.
//!
//! Source: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, sections 3.1 and 3.2.2. Real
//! documents differ from that text in two ways that are accepted: absent optional fields are
//! `null`, and the payload may be a map of indefinite length.

use crate::cbor::{CborError, Count, StrictDecoder};
use crate::error::Malformed;
pub use crate::limits::MAX_LEN;
use crate::limits::{MAX_CABUNDLE, MAX_CERTIFICATE, MAX_FIELD, MAX_PCR_INDEX};
use crate::pcr::{Pcr, Pcrs};
use crate::time::Time;

/// Characters of an unknown field's name that an error repeats.
const MAX_NAME: usize = 64;

/// COSE_Sign1 (RFC 9052, 4.2), untagged or with tag 18.
#[derive(Debug)]
pub(crate) struct Envelope<'b> {
    /// The only protected header there may be: 1, the algorithm.
    pub(crate) algorithm: i64,
    pub(crate) protected: &'b [u8],
    pub(crate) payload: &'b [u8],
    pub(crate) signature: &'b [u8],
}

/// The payload.
#[derive(Debug)]
pub(crate) struct Fields<'b> {
    pub(crate) module_id: &'b str,
    pub(crate) timestamp: Time,
    pub(crate) pcrs: Pcrs,
    pub(crate) certificate: &'b [u8],
    pub(crate) cabundle: Vec<&'b [u8]>,
    pub(crate) public_key: Option<&'b [u8]>,
    pub(crate) user_data: Option<&'b [u8]>,
    pub(crate) nonce: Option<&'b [u8]>,
}

fn part(part: &'static str) -> impl Fn(CborError) -> Malformed {
    move |source| Malformed::Cbor { part, source }
}

impl<'b> Envelope<'b> {
    pub(crate) fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_LEN {
            return Err(Malformed::TooLong(bytes.len()));
        }
        let mut cose = StrictDecoder::new(bytes);
        let cbor = part("COSE_Sign1");
        cose.sign1_tag().map_err(&cbor)?;
        if cose.array().map_err(&cbor)? != 4 {
            return Err(Malformed::Envelope("COSE_Sign1 has four elements"));
        }
        let protected = cose.bytes().map_err(&cbor)?;
        let algorithm = protected_algorithm(protected)?;
        if cose.map().map_err(&cbor)? != Count::Definite(0) {
            return Err(Malformed::Envelope("the unprotected header must be empty"));
        }
        let payload = cose.bytes().map_err(&cbor)?;
        let signature = cose.bytes().map_err(&cbor)?;
        cose.end().map_err(&cbor)?;
        Ok(Envelope {
            algorithm,
            protected,
            payload,
            signature,
        })
    }
}

fn protected_algorithm(bytes: &[u8]) -> Result<i64, Malformed> {
    let mut header = StrictDecoder::new(bytes);
    let cbor = part("protected header");
    if header.map().map_err(&cbor)? != Count::Definite(1) || header.int().map_err(&cbor)? != 1 {
        return Err(Malformed::Envelope(
            "the protected header must hold the algorithm (1) and nothing else",
        ));
    }
    let algorithm = header.int().map_err(&cbor)?;
    header.end().map_err(&cbor)?;
    Ok(algorithm)
}

/// A field that occurs at most once.
struct Once<T> {
    name: &'static str,
    value: Option<T>,
}

impl<T> Once<T> {
    const fn new(name: &'static str) -> Self {
        Once { name, value: None }
    }

    fn put(&mut self, value: T) -> Result<(), Malformed> {
        match self.value.replace(value) {
            None => Ok(()),
            Some(_) => Err(Malformed::Duplicate(self.name)),
        }
    }

    fn required(self) -> Result<T, Malformed> {
        self.value.ok_or(Malformed::Missing(self.name))
    }
}

/// The payload's fields as they are read, in any order.
struct RawFields<'b> {
    module_id: Once<&'b str>,
    digest: Once<&'b str>,
    timestamp: Once<u64>,
    pcrs: Once<Pcrs>,
    certificate: Once<&'b [u8]>,
    cabundle: Once<Vec<&'b [u8]>>,
    public_key: Once<Option<&'b [u8]>>,
    user_data: Once<Option<&'b [u8]>>,
    nonce: Once<Option<&'b [u8]>>,
}

impl<'b> RawFields<'b> {
    fn new() -> Self {
        RawFields {
            module_id: Once::new("module_id"),
            digest: Once::new("digest"),
            timestamp: Once::new("timestamp"),
            pcrs: Once::new("pcrs"),
            certificate: Once::new("certificate"),
            cabundle: Once::new("cabundle"),
            public_key: Once::new("public_key"),
            user_data: Once::new("user_data"),
            nonce: Once::new("nonce"),
        }
    }

    /// Reads one name and its value.
    fn read(&mut self, cbor: &mut StrictDecoder<'b>) -> Result<(), Malformed> {
        let at = part("payload");
        match cbor.text().map_err(&at)? {
            "module_id" => self.module_id.put(cbor.text().map_err(&at)?),
            "digest" => self.digest.put(cbor.text().map_err(&at)?),
            "timestamp" => self.timestamp.put(cbor.uint().map_err(&at)?),
            "pcrs" => self.pcrs.put(read_pcrs(cbor)?),
            "certificate" => self.certificate.put(read_certificate(cbor)?),
            "cabundle" => self.cabundle.put(read_cabundle(cbor)?),
            "public_key" => self.public_key.put(read_public_key(cbor)?),
            "user_data" => self.user_data.put(read_optional(cbor, "user_data")?),
            "nonce" => self.nonce.put(read_optional(cbor, "nonce")?),
            other => Err(Malformed::Unknown(other.chars().take(MAX_NAME).collect())),
        }
    }

    fn finish(self) -> Result<Fields<'b>, Malformed> {
        if self.digest.required()? != "SHA384" {
            return Err(Malformed::Field {
                field: "digest",
                problem: "is not SHA384",
            });
        }
        let module_id = self.module_id.required()?;
        if module_id.is_empty() {
            return Err(Malformed::Field {
                field: "module_id",
                problem: "is empty",
            });
        }
        Ok(Fields {
            module_id,
            timestamp: timestamp(self.timestamp.required()?)?,
            pcrs: self.pcrs.required()?,
            certificate: self.certificate.required()?,
            cabundle: self.cabundle.required()?,
            public_key: self.public_key.value.flatten(),
            user_data: self.user_data.value.flatten(),
            nonce: self.nonce.value.flatten(),
        })
    }
}

impl<'b> Fields<'b> {
    pub(crate) fn parse(payload: &'b [u8]) -> Result<Self, Malformed> {
        let mut cbor = StrictDecoder::new(payload);
        let at = part("payload");
        let mut fields = RawFields::new();
        let count = cbor.map().map_err(&at)?;
        let mut read = 0;
        while cbor.more(count, read).map_err(&at)? {
            fields.read(&mut cbor)?;
            read += 1;
        }
        cbor.end().map_err(&at)?;
        fields.finish()
    }
}

/// Milliseconds since 1970.
fn timestamp(millis: u64) -> Result<Time, Malformed> {
    i64::try_from(millis)
        .ok()
        .filter(|millis| *millis > 0)
        .map(Time::from_millis)
        .ok_or(Malformed::Field {
            field: "timestamp",
            problem: "is zero or too far in the future",
        })
}

fn read_pcrs(cbor: &mut StrictDecoder<'_>) -> Result<Pcrs, Malformed> {
    let at = part("pcrs");
    let count = cbor.map().map_err(&at)?;
    let mut pcrs = Pcrs::default();
    let mut read = 0;
    while cbor.more(count, read).map_err(&at)? {
        let index = cbor.uint().map_err(&at)?;
        let index = u8::try_from(index)
            .ok()
            .filter(|index| *index <= MAX_PCR_INDEX)
            .ok_or(Malformed::Field {
                field: "pcrs",
                problem: "an index is above 31",
            })?;
        let pcr = Pcr::try_from(cbor.bytes().map_err(&at)?).map_err(|_| Malformed::Field {
            field: "pcrs",
            problem: "a register is not 48 bytes long",
        })?;
        if !pcrs.insert(index, pcr) {
            return Err(Malformed::Duplicate("pcrs"));
        }
        read += 1;
    }
    if pcrs.len() == 0 {
        return Err(Malformed::Field {
            field: "pcrs",
            problem: "is empty",
        });
    }
    Ok(pcrs)
}

fn read_certificate<'b>(cbor: &mut StrictDecoder<'b>) -> Result<&'b [u8], Malformed> {
    let der = cbor.bytes().map_err(part("certificate"))?;
    match der.len() {
        1..=MAX_CERTIFICATE => Ok(der),
        _ => Err(Malformed::Field {
            field: "certificate",
            problem: "is empty or longer than 1024 bytes",
        }),
    }
}

fn read_cabundle<'b>(cbor: &mut StrictDecoder<'b>) -> Result<Vec<&'b [u8]>, Malformed> {
    let count = cbor.array().map_err(part("cabundle"))?;
    if !(1..=MAX_CABUNDLE).contains(&count) {
        return Err(Malformed::Field {
            field: "cabundle",
            problem: "is empty or has more than 16 certificates",
        });
    }
    (0..count).map(|_| read_certificate(cbor)).collect()
}

fn read_public_key<'b>(cbor: &mut StrictDecoder<'b>) -> Result<Option<&'b [u8]>, Malformed> {
    match read_optional(cbor, "public_key")? {
        Some([]) => Err(Malformed::Field {
            field: "public_key",
            problem: "is empty",
        }),
        other => Ok(other),
    }
}

fn read_optional<'b>(
    cbor: &mut StrictDecoder<'b>,
    field: &'static str,
) -> Result<Option<&'b [u8]>, Malformed> {
    if cbor.null().map_err(part(field))? {
        return Ok(None);
    }
    let bytes = cbor.bytes().map_err(part(field))?;
    if bytes.len() > MAX_FIELD {
        return Err(Malformed::Field {
            field,
            problem: "is longer than 1024 bytes",
        });
    }
    Ok(Some(bytes))
}
