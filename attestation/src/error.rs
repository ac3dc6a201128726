//! Why a document is refused, and which of its parts is at fault.

use crate::cbor::CborError;
use crate::check::Check;
use crate::der::DerError;
use crate::limits::MAX_LEN;
use crate::time::Time;

/// Why a document is refused, by whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not an attestation document.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The bytes are a document, but nothing shows that it comes from a Nitro Enclave.
    #[error("not trusted: {0}")]
    Untrusted(#[from] Untrusted),
    /// The document comes from an enclave, but one of its parts is not valid yet.
    #[error("{part} is not valid before {from}; the time is {at}")]
    NotYetValid {
        /// What is not valid yet.
        part: Part,
        /// When it becomes valid.
        from: Time,
        /// The time of the verification, without the allowed clock skew.
        at: Time,
    },
    /// The document comes from an enclave, but one of its certificates has expired.
    #[error("{part} expired at {until}; the time is {at}")]
    Expired {
        /// What has expired.
        part: Part,
        /// When it expired.
        until: Time,
        /// The time of the verification, without the allowed clock skew.
        at: Time,
    },
    /// The document is genuine, but does not satisfy the policy. Carries all checks; at least one
    /// of them failed.
    #[error("rejected by the policy: {}", Check::failures(.0))]
    Rejected(Vec<Check>),
}

/// Why bytes are not an attestation document (aws-nitro-enclaves-nsm-api,
/// docs/attestation_process.md, 3.1 and 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The document exceeds [`MAX_LEN`](crate::document::MAX_LEN). Carries its length in bytes.
    #[error("the document is {0} bytes long; the limit is {MAX_LEN}")]
    TooLong(usize),
    /// A part is not CBOR, or not in the one form that is accepted.
    #[error("{part}: {source}")]
    Cbor {
        /// The part or field that was being read.
        part: &'static str,
        /// What is wrong, and at which byte of the part.
        source: CborError,
    },
    /// The COSE_Sign1 structure around the payload breaks a rule.
    #[error("COSE: {0}")]
    Envelope(&'static str),
    /// A field has a value that documents never have.
    #[error("field {field}: {problem}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with its value.
        problem: &'static str,
    },
    /// A required field is missing.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field or a register occurs twice.
    #[error("field {0} occurs twice")]
    Duplicate(&'static str),
    /// The payload has a field that enclaves' documents do not have. Carries at most 64 characters
    /// of its name.
    #[error("unknown field {0:?}")]
    Unknown(String),
    /// A certificate is not X.509 in DER, or not in the one form that is accepted.
    #[error("{part} is not an X.509 certificate in DER: {problem}")]
    Certificate {
        /// Which certificate.
        part: Part,
        /// What is wrong with it.
        problem: DerError,
    },
}

/// Why nothing shows that a document comes from a Nitro Enclave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The chain starts with another root than the trust anchor.
    #[error("cabundle[0] is not the trusted root certificate")]
    Root,
    /// The document is not signed with ES384. Carries the COSE algorithm that it names.
    #[error(
        "the document is signed with COSE algorithm {0}; enclaves sign with ES384 (-35){hint}",
        hint = if *.0 == -1 { "; QEMU's NSM writes -1 and signs nothing" } else { "" }
    )]
    Algorithm(i64),
    /// A signature is invalid.
    #[error("the signature of {0} is invalid")]
    Signature(Part),
    /// A certificate names another issuer than the preceding certificate of the chain.
    #[error("{0} was not issued by the preceding certificate")]
    Issuer(Part),
    /// A certificate of the cabundle is not a CA certificate (basicConstraints).
    #[error("{0} is not a CA certificate")]
    NotCa(Part),
    /// A CA certificate has more CA certificates below it than its pathLenConstraint allows.
    #[error("{0} has more CAs below it than its pathLenConstraint allows")]
    PathLen(Part),
    /// A certificate's key usage is missing, or does not allow what the key is used for.
    #[error("{0} lacks the key usage that its role requires")]
    KeyUsage(Part),
    /// The enclave's certificate could sign other certificates.
    #[error("the enclave's certificate is a CA certificate")]
    LeafIsCa,
    /// A critical extension is unknown to this crate, so the certificate must be refused (RFC 5280,
    /// 4.2).
    #[error("{part} has an unknown critical extension (OID {oid}, DER in hexadecimal)")]
    CriticalExtension {
        /// Whose extension.
        part: Part,
        /// Its OID: the content of the DER element, in hexadecimal.
        oid: String,
    },
    /// A certificate's key is not on P-384.
    #[error("the key of {0} is not on P-384")]
    Key(Part),
    /// A certificate is signed with another algorithm than ecdsa-with-SHA384.
    #[error("{0} is not signed with ecdsa-with-SHA384")]
    SignatureAlgorithm(Part),
}

/// The part of a document that is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The document itself, which the enclave's key signs.
    Document,
    /// The enclave's own certificate.
    Leaf,
    /// The certificate at this position of the cabundle; 0 is the root.
    Ca(usize),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Document => f.write_str("the document"),
            Part::Leaf => f.write_str("the enclave's certificate"),
            Part::Ca(index) => write!(f, "cabundle[{index}]"),
        }
    }
}
