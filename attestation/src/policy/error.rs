//! Why conditions make no policy.

/// The fewest bytes of a nonce that alone keeps old documents out. What EAT asks of every nonce
/// (RFC 9711, 4.1).
pub(super) const MIN_SOLE_NONCE: usize = 8;

/// Why [`Conditions`](crate::Conditions) make no [`Policy`](crate::Policy).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No condition restricts the code: any enclave would pass.
    #[error(
        "this policy does not restrict which code may run, so any enclave would pass: add PCR0 (eif-builder build --json prints it), or another of PCR0 to 15"
    )]
    NoConditions,
    /// Two conditions set the register with this index to different values.
    #[error("conflicting values for PCR{0}")]
    Conflict(u8),
    /// A register's index is above 31.
    #[error("there is no PCR{0}; the highest is PCR31")]
    Index(u8),
    /// The list of values for the register with this index is empty.
    #[error("the list of values for PCR{0} is empty")]
    Empty(u8),
    /// Not the ARN of an IAM role. Carries the text.
    #[error("{0:?} is not the ARN of an IAM role (arn:aws:iam::111122223333:role/name)")]
    RoleArn(String),
    /// Not the id of an EC2 instance. Carries the text.
    #[error("{0:?} is not an instance id (i-0123456789abcdef0)")]
    InstanceId(String),
    /// The signing certificate is not a certificate in PEM.
    #[error("the signing certificate is not a PEM certificate")]
    SigningCertificate,
    /// The nonce is empty or too long. Carries its length in bytes.
    #[error("a nonce has 1 to 1024 bytes, not {0}")]
    NonceLength(usize),
    /// `require_nonce` is set, but there is no nonce.
    #[error("the policy requires a nonce; give the one that was sent to the enclave")]
    NonceMissing,
    /// The document's own time is selected, but there is no nonce.
    #[error(
        "the document's own time proves nothing without a nonce: give one, or use the current time"
    )]
    DocumentTimeWithoutNonce,
    /// The document's own time is selected, and the nonce is too short for it. Carries its length
    /// in bytes.
    #[error(
        "with the document's own time only the nonce keeps old documents out: it needs at least {MIN_SOLE_NONCE} bytes, not {0}"
    )]
    ShortNonce(usize),
    /// A field is longer than documents can carry.
    #[error("{field} has at most {limit} bytes, not {len}")]
    FieldLength {
        /// The field's name.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most bytes that it can have.
        limit: usize,
    },
    /// The clock skew is above 600 seconds. Carries it in seconds.
    #[error("a clock skew of {0} seconds is too large; the limit is 600")]
    ClockSkew(u64),
}
