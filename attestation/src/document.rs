//! The shape of an attestation document, checked strictly and borrowed from its bytes; who signed it is not looked at
//! here, so the fields stay inside this crate until something vouched for them.
//!
//! Source: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, sections 3.1 and 3.2.2. Real documents differ from that text
//! in two ways that are accepted: absent optional fields are `null`, and the payload may be a map of indefinite length.

use crate::cbor::{CborError, Count, Strict};
use crate::der::Problem;
use crate::{Part, Pcr, Pcrs, Time};

/// Genuine documents are 4 to 5 KiB; three fields of 1024 bytes fit well below this. In bytes.
pub const MAX_LEN: usize = 16 * 1024;
const MAX_CERTIFICATE: usize = 1024;
const MAX_FIELD: usize = 1024;
const MAX_CABUNDLE: u64 = 16;
/// Characters of an unknown field's name that an error repeats.
const MAX_NAME: usize = 64;
const MAX_PCR_INDEX: u64 = 31;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the document is {0} bytes long; the limit is {MAX_LEN}")]
    TooLong(usize),
    #[error("{part}: {source}")]
    Cbor {
        part: &'static str,
        source: CborError,
    },
    #[error("COSE: {0}")]
    Envelope(&'static str),
    #[error("field {field}: {problem}")]
    Field {
        field: &'static str,
        problem: &'static str,
    },
    #[error("field {0} is missing")]
    Missing(&'static str),
    #[error("field {0} occurs twice")]
    Duplicate(&'static str),
    #[error("a field that this format does not have: {0:?}")]
    Unknown(String),
    #[error("{part} is no certificate in DER: {problem}")]
    Certificate { part: Part, problem: Problem },
}

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
        let mut cose = Strict::new(bytes);
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
    let mut header = Strict::new(bytes);
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

/// A field that is set at most once.
struct Slot<T> {
    name: &'static str,
    value: Option<T>,
}

impl<T> Slot<T> {
    const fn new(name: &'static str) -> Self {
        Slot { name, value: None }
    }

    fn set(&mut self, value: T) -> Result<(), Malformed> {
        match self.value.replace(value) {
            None => Ok(()),
            Some(_) => Err(Malformed::Duplicate(self.name)),
        }
    }

    fn required(self) -> Result<T, Malformed> {
        self.value.ok_or(Malformed::Missing(self.name))
    }
}

impl<'b> Fields<'b> {
    pub(crate) fn parse(payload: &'b [u8]) -> Result<Self, Malformed> {
        let mut cbor = Strict::new(payload);
        let at = part("payload");
        let mut module_id = Slot::new("module_id");
        let mut digest = Slot::new("digest");
        let mut timestamp = Slot::new("timestamp");
        let mut pcrs = Slot::new("pcrs");
        let mut certificate = Slot::new("certificate");
        let mut cabundle = Slot::new("cabundle");
        let mut public_key = Slot::new("public_key");
        let mut user_data = Slot::new("user_data");
        let mut nonce = Slot::new("nonce");

        let count = cbor.map().map_err(&at)?;
        let mut read = 0;
        while cbor.more(count, read).map_err(&at)? {
            match cbor.text().map_err(&at)? {
                "module_id" => module_id.set(cbor.text().map_err(&at)?)?,
                "digest" => digest.set(cbor.text().map_err(&at)?)?,
                "timestamp" => timestamp.set(cbor.uint().map_err(&at)?)?,
                "pcrs" => pcrs.set(read_pcrs(&mut cbor)?)?,
                "certificate" => certificate.set(read_certificate(&mut cbor)?)?,
                "cabundle" => cabundle.set(read_cabundle(&mut cbor)?)?,
                "public_key" => public_key.set(read_public_key(&mut cbor)?)?,
                "user_data" => user_data.set(read_optional(&mut cbor, "user_data")?)?,
                "nonce" => nonce.set(read_optional(&mut cbor, "nonce")?)?,
                other => return Err(Malformed::Unknown(other.chars().take(MAX_NAME).collect())),
            }
            read += 1;
        }
        cbor.end().map_err(&at)?;

        if digest.required()? != "SHA384" {
            return Err(Malformed::Field {
                field: "digest",
                problem: "only SHA384 is known",
            });
        }
        let module_id = module_id.required()?;
        if module_id.is_empty() {
            return Err(Malformed::Field {
                field: "module_id",
                problem: "is empty",
            });
        }
        Ok(Fields {
            module_id,
            timestamp: i64::try_from(timestamp.required()?)
                .ok()
                .filter(|millis| *millis > 0)
                .map(Time::from_millis)
                .ok_or(Malformed::Field {
                    field: "timestamp",
                    problem: "is zero or too far in the future",
                })?,
            pcrs: pcrs.required()?,
            certificate: certificate.required()?,
            cabundle: cabundle.required()?,
            public_key: public_key.value.flatten(),
            user_data: user_data.value.flatten(),
            nonce: nonce.value.flatten(),
        })
    }
}

fn read_pcrs(cbor: &mut Strict<'_>) -> Result<Pcrs, Malformed> {
    let at = part("pcrs");
    let count = cbor.map().map_err(&at)?;
    let mut pcrs = Pcrs::default();
    let mut read = 0;
    while cbor.more(count, read).map_err(&at)? {
        let index = cbor.uint().map_err(&at)?;
        let index = u8::try_from(index)
            .ok()
            .filter(|_| index <= MAX_PCR_INDEX)
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

fn read_certificate<'b>(cbor: &mut Strict<'b>) -> Result<&'b [u8], Malformed> {
    let der = cbor.bytes().map_err(part("certificate"))?;
    match der.len() {
        1..=MAX_CERTIFICATE => Ok(der),
        _ => Err(Malformed::Field {
            field: "certificate",
            problem: "is empty or longer than 1024 bytes",
        }),
    }
}

fn read_cabundle<'b>(cbor: &mut Strict<'b>) -> Result<Vec<&'b [u8]>, Malformed> {
    let count = cbor.array().map_err(part("cabundle"))?;
    if !(1..=MAX_CABUNDLE).contains(&count) {
        return Err(Malformed::Field {
            field: "cabundle",
            problem: "is empty or has more than 16 certificates",
        });
    }
    (0..count).map(|_| read_certificate(cbor)).collect()
}

fn read_public_key<'b>(cbor: &mut Strict<'b>) -> Result<Option<&'b [u8]>, Malformed> {
    match read_optional(cbor, "public_key")? {
        Some([]) => Err(Malformed::Field {
            field: "public_key",
            problem: "is empty",
        }),
        other => Ok(other),
    }
}

fn read_optional<'b>(
    cbor: &mut Strict<'b>,
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
