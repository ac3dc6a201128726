//! Reads `CiphertextForRecipient`, KMS's answer to an attested request: CMS EnvelopedData (RFC
//! 5652, 6) in BER (X.690, 8), with indefinite lengths and the content whole or in pieces, as KMS
//! writes it. Exactly one recipient by subject key identifier, RSAES-OAEP with SHA-256, AES-256-CBC
//! (AWS KMS API reference, "RecipientInfo"). Opens nothing; borrows, and never recurses.

/// KMS gives 4096 bytes of plaintext at most, in pieces of 1000. In bytes.
pub(super) const MAX_LEN: usize = 16 * 1024;

/// Why bytes are not an answer of KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("it is longer than KMS's answers are")]
    TooLong,
    #[error("it is not enveloped data")]
    NotEnveloped,
    #[error("its version is not 2, KMS's: an emulator may have answered")]
    Version,
    #[error("what it holds is not data")]
    NotData,
    #[error("its content is not encrypted with AES-256-CBC")]
    ContentCipher,
    #[error("its initialisation vector is not 16 bytes long")]
    Iv,
    #[error("bytes follow its end")]
    TrailingBytes,
    #[error("its recipient is not named by a key identifier: an emulator may have answered")]
    RecipientKind,
    #[error("its key is not encrypted with RSAES-OAEP")]
    KeyCipher,
    #[error("its mask function is not MGF1")]
    MaskFunction,
    #[error("its hash is not SHA-256")]
    Hash,
    #[error("its hash has parameters")]
    HashParameters,
    #[error("it is cut off")]
    CutOff,
    #[error("an element has another tag than enveloped data has there")]
    Tag,
    #[error("a length is cut off or too long")]
    Length,
    #[error("an element is longer than what holds it")]
    ElementTooLong,
    #[error("a primitive element has no length")]
    NoLength,
    #[error("an element does not end where its length says")]
    WrongEnd,
    #[error("an element of indefinite length does not end")]
    NoEnd,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Enveloped<'b> {
    /// The content key, encrypted for our RSA key.
    pub(super) encrypted_key: &'b [u8],
    pub(super) iv: &'b [u8; 16],
    /// The encrypted content, joined.
    pub(super) content: Vec<u8>,
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Context-specific, constructed and primitive.
const TAG_0: u8 = 0xa0;
const TAG_0_PRIMITIVE: u8 = 0x80;
const TAG_1: u8 = 0xa1;

// Object identifiers, encoded (RFC 5652, 4 and 5.1; RFC 8017, appendix C; NIST CSOR).
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];

pub(super) fn parse(bytes: &[u8]) -> Result<Enveloped<'_>, AnswerError> {
    if bytes.len() > MAX_LEN {
        return Err(AnswerError::TooLong);
    }
    let mut ber = Ber { rest: bytes };
    let info = ber.enter(SEQUENCE)?;
    ber.expect(OID, ENVELOPED_DATA, AnswerError::NotEnveloped)?;
    let wrapper = ber.enter(TAG_0)?;
    let enveloped = ber.enter(SEQUENCE)?;
    ber.expect(INTEGER, &[2], AnswerError::Version)?;
    let encrypted_key = recipient(&mut ber)?;
    let encrypted = ber.enter(SEQUENCE)?;
    ber.expect(OID, DATA, AnswerError::NotData)?;
    let algorithm = ber.enter(SEQUENCE)?;
    ber.expect(OID, AES_256_CBC, AnswerError::ContentCipher)?;
    let iv = ber
        .primitive(OCTET_STRING)?
        .try_into()
        .map_err(|_| AnswerError::Iv)?;
    ber.leave(algorithm)?;
    let content = content(&mut ber)?;
    for scope in [encrypted, enveloped, wrapper, info] {
        ber.leave(scope)?;
    }
    match ber.rest {
        [] => Ok(Enveloped {
            encrypted_key,
            iv,
            content,
        }),
        _ => Err(AnswerError::TrailingBytes),
    }
}

fn recipient<'b>(ber: &mut Ber<'b>) -> Result<&'b [u8], AnswerError> {
    let set = ber.enter(SET)?;
    let info = ber.enter(SEQUENCE)?;
    ber.expect(INTEGER, &[2], AnswerError::RecipientKind)?;
    ber.primitive(TAG_0_PRIMITIVE)?;
    let algorithm = ber.enter(SEQUENCE)?;
    ber.expect(OID, RSAES_OAEP, AnswerError::KeyCipher)?;
    let parameters = ber.enter(SEQUENCE)?;
    let hash = ber.enter(TAG_0)?;
    sha256(ber)?;
    ber.leave(hash)?;
    let mask = ber.enter(TAG_1)?;
    let function = ber.enter(SEQUENCE)?;
    ber.expect(OID, MGF1, AnswerError::MaskFunction)?;
    sha256(ber)?;
    for scope in [function, mask, parameters, algorithm] {
        ber.leave(scope)?;
    }
    let key = ber.primitive(OCTET_STRING)?;
    ber.leave(info)?;
    ber.leave(set)?;
    Ok(key)
}

fn sha256(ber: &mut Ber<'_>) -> Result<(), AnswerError> {
    let algorithm = ber.enter(SEQUENCE)?;
    ber.expect(OID, SHA256, AnswerError::Hash)?;
    ber.expect(NULL, &[], AnswerError::HashParameters)?;
    ber.leave(algorithm)
}

/// Whole, or in octet strings that belong together.
fn content(ber: &mut Ber<'_>) -> Result<Vec<u8>, AnswerError> {
    if ber.next_is(TAG_0_PRIMITIVE) {
        return ber.primitive(TAG_0_PRIMITIVE).map(<[u8]>::to_vec);
    }
    let pieces = ber.enter(TAG_0)?;
    let mut content = Vec::new();
    while ber.next_is(OCTET_STRING) {
        content.extend_from_slice(ber.primitive(OCTET_STRING)?);
    }
    ber.leave(pieces)?;
    Ok(content)
}

/// A cursor. Constructed elements are entered and left; inside of one of indefinite length, `rest`
/// reaches to the end of what is around it.
struct Ber<'b> {
    rest: &'b [u8],
}

/// Where an entered element ends: at two zero bytes, or where this many bytes are left.
#[must_use]
enum Scope {
    Indefinite,
    Definite { left: usize },
}

impl<'b> Ber<'b> {
    fn next_is(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// Tag and length; `None` is indefinite.
    fn head(&mut self, tag: u8) -> Result<Option<usize>, AnswerError> {
        let [found, first, rest @ ..] = self.rest else {
            return Err(AnswerError::CutOff);
        };
        if *found != tag {
            return Err(AnswerError::Tag);
        }
        let (len, rest) = match (first, rest) {
            (0..=0x7f, _) => (Some(usize::from(*first)), rest),
            (0x80, _) => (None, rest),
            (0x81, [len, rest @ ..]) => (Some(usize::from(*len)), rest),
            (0x82, [high, low, rest @ ..]) => {
                (Some(usize::from(u16::from_be_bytes([*high, *low]))), rest)
            }
            _ => return Err(AnswerError::Length),
        };
        self.rest = rest;
        if len.is_some_and(|len| len > rest.len()) {
            return Err(AnswerError::ElementTooLong);
        }
        Ok(len)
    }

    fn primitive(&mut self, tag: u8) -> Result<&'b [u8], AnswerError> {
        let len = self.head(tag)?.ok_or(AnswerError::NoLength)?;
        let (content, rest) = self.rest.split_at_checked(len).ok_or(AnswerError::CutOff)?;
        self.rest = rest;
        Ok(content)
    }

    fn expect(
        &mut self,
        tag: u8,
        content: &[u8],
        otherwise: AnswerError,
    ) -> Result<(), AnswerError> {
        if self.primitive(tag)? != content {
            return Err(otherwise);
        }
        Ok(())
    }

    fn enter(&mut self, tag: u8) -> Result<Scope, AnswerError> {
        Ok(match self.head(tag)? {
            None => Scope::Indefinite,
            Some(len) => Scope::Definite {
                left: self.rest.len() - len,
            },
        })
    }

    /// Nothing may be left in the element.
    fn leave(&mut self, scope: Scope) -> Result<(), AnswerError> {
        match scope {
            Scope::Definite { left } if self.rest.len() == left => Ok(()),
            Scope::Definite { .. } => Err(AnswerError::WrongEnd),
            Scope::Indefinite => {
                self.rest = self.rest.strip_prefix(&[0, 0]).ok_or(AnswerError::NoEnd)?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What KMS sent, third-party data that is not kept in the repository.
    fn samples() -> Option<std::path::PathBuf> {
        let beside = || {
            std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation")
        };
        let directory = std::env::var_os("REDOUBT_SAMPLES")
            .map_or_else(beside, Into::into)
            .join("cms");
        if !directory.is_dir() {
            let notice = format!(
                "SKIPPED: {} has no answers of KMS (REDOUBT_SAMPLES)\n",
                directory.display()
            );
            std::io::Write::write_all(&mut std::io::stderr(), notice.as_bytes()).unwrap();
        }
        directory.is_dir().then_some(directory)
    }

    #[test]
    fn reads_what_kms_sends() {
        let Some(directory) = samples() else { return };
        let len = |name: &str| {
            let bytes = std::fs::read(directory.join(name)).unwrap();
            let Enveloped {
                encrypted_key,
                content,
                ..
            } = parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            for end in 0..bytes.len() {
                assert!(parse(&bytes[..end]).is_err(), "{name} cut to {end} bytes");
            }
            assert!(
                parse(&[bytes.as_slice(), &[0]].concat()).is_err(),
                "{name} and a byte"
            );
            (encrypted_key.len(), content.len())
        };
        assert_eq!(
            len("kms_ciphertext_for_recipient_4.ber"),
            (256, 4112),
            "in pieces"
        );
        assert_eq!(len("kms_ciphertext_for_recipient_3.ber").0, 256, "whole");
        assert_eq!(len("kms_ciphertext_for_recipient_1.ber").0, 256);
        assert_eq!(len("edgebit-ciphertext-for-recipient.ber"), (256, 48));
    }

    /// The shape that LocalStack answers with: DER, version 0, the recipient by issuer and serial
    /// number.
    #[test]
    fn refuses_an_emulators_answer_and_says_so() {
        let inner = [0x30, 3, INTEGER, 1, 0];
        let wrapper = [&[TAG_0, 5][..], &inner].concat();
        let body = [&[OID, 9][..], ENVELOPED_DATA, &wrapper].concat();
        let bytes = [&[SEQUENCE, u8::try_from(body.len()).unwrap()][..], &body].concat();
        assert_eq!(parse(&bytes), Err(AnswerError::Version));
        assert_eq!(parse(&[0; MAX_LEN + 1]), Err(AnswerError::TooLong));
        assert_eq!(parse(&[]), Err(AnswerError::CutOff));
        assert_eq!(parse(&[0x30, 0x84, 0, 0, 0, 0]), Err(AnswerError::Length));
    }
}
