//! What is tried against a policy, and what it would mean.

use super::condition::Fact;

/// A way to open the key without the enclave that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Attack {
    /// `Decrypt` without an attestation document.
    NoDocument,
    /// `Decrypt` by an enclave of another image.
    OtherCode,
    /// `Decrypt` by an image that has PCR1 in common with the right one.
    OtherApplication,
    /// `Decrypt` by an image that has PCR2 in common with the right one.
    OtherKernel,
    /// `Decrypt` by an enclave in debug mode.
    DebugMode,
    /// `Decrypt` of what was sealed for another name.
    OtherName,
    /// `Decrypt` by an image whose PCR0 is none of the expected ones, but in the policy.
    UnexpectedImage,
    /// `ReEncryptFrom`: the data key is moved below another key.
    ReEncrypt,
    /// `CreateGrant`: a grant replaces the policy's Allow.
    Grant,
    /// `ReplicateKey`: a replica has a policy of its own.
    Replica,
    /// `ImportKeyMaterial`: whoever imports the material has it.
    ImportedMaterial,
    /// `PutKeyPolicy` by anyone: the policy is replaced.
    OpenAdministration,
}

/// Attestation and context of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) attack: Attack,
    pub(super) action: &'static str,
    document: Document,
    /// Whether the encryption context is another one than the policy asks for.
    other_context: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Document {
    None,
    /// All registers of the image differ, but for this one if it is given.
    Other(Option<u8>),
    Debug,
    Right,
}

/// A register's value and a context's that no policy names.
const OTHER_PCR: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const OTHER_CONTEXT: &str = "redoubt: another config";

const DECRYPT: &str = "kms:Decrypt";

/// In the order in which findings are told.
pub(super) const ATTEMPTS: [Attempt; 10] = [
    attempt(Attack::NoDocument, DECRYPT, Document::None),
    attempt(Attack::OtherCode, DECRYPT, Document::Other(None)),
    attempt(Attack::OtherApplication, DECRYPT, Document::Other(Some(1))),
    attempt(Attack::OtherKernel, DECRYPT, Document::Other(Some(2))),
    attempt(Attack::DebugMode, DECRYPT, Document::Debug),
    Attempt {
        other_context: true,
        ..attempt(Attack::OtherName, DECRYPT, Document::Right)
    },
    attempt(Attack::ReEncrypt, "kms:ReEncryptFrom", Document::None),
    attempt(Attack::Grant, "kms:CreateGrant", Document::None),
    attempt(Attack::Replica, "kms:ReplicateKey", Document::None),
    attempt(
        Attack::ImportedMaterial,
        "kms:ImportKeyMaterial",
        Document::None,
    ),
];

const fn attempt(attack: Attack, action: &'static str, document: Document) -> Attempt {
    Attempt {
        attack,
        action,
        document,
        other_context: false,
    }
}

impl Attempt {
    /// What this request has under a condition key, in lower case.
    pub(super) fn fact(&self, key: &str) -> Fact {
        if let Some(register) = key.strip_prefix("kms:recipientattestation:") {
            return self.register(register);
        }
        if key.starts_with("kms:encryptioncontext:") {
            return if self.other_context {
                Fact::Is(OTHER_CONTEXT.to_owned())
            } else {
                Fact::Suitable
            };
        }
        Fact::Unknown
    }

    fn register(&self, name: &str) -> Fact {
        let index = register_index(name);
        match (self.document, index) {
            // NitroTPM's, and what KMS adds: an EC2 instance may have them.
            (_, None) => Fact::Unknown,
            (Document::None, _) => Fact::Absent,
            (Document::Right, _) => Fact::Suitable,
            (Document::Debug, Some(0..=2)) => Fact::Is("0".repeat(96)),
            (Document::Other(same), Some(index)) if same == Some(index) => Fact::Suitable,
            (Document::Other(_), Some(0..=2 | 8)) => Fact::Is(OTHER_PCR.to_owned()),
            // Where the enclave runs is as it should be; from 16 on its code extends what it likes.
            (Document::Other(_) | Document::Debug, _) => Fact::Suitable,
        }
    }
}

/// The register behind the end of `kms:RecipientAttestation:…`, in lower case.
pub(super) fn register_index(name: &str) -> Option<u8> {
    match name {
        "imagesha384" => Some(0),
        name => name.strip_prefix("pcr")?.parse().ok(),
    }
}

impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Attack::NoDocument => "allows Decrypt without an attestation document: no enclave is needed",
            Attack::OtherCode => "allows Decrypt to an enclave of any image",
            Attack::OtherApplication => {
                "allows Decrypt by PCR1 alone: an image with the same kernel and another application has it too"
            }
            Attack::OtherKernel => {
                "allows Decrypt by PCR2 alone: an image with the same application and another kernel has it too"
            }
            Attack::DebugMode => {
                "allows Decrypt to an enclave in debug mode, whose memory the parent instance can read"
            }
            Attack::OtherName => {
                "allows Decrypt of what was sealed for another name: an enclave opens another's config"
            }
            Attack::UnexpectedImage => {
                "allows Decrypt to an image that is none of the expected ones: an old or a foreign one"
            }
            Attack::ReEncrypt => {
                "allows ReEncryptFrom: a data key moves below another key, with another policy"
            }
            Attack::Grant => "allows CreateGrant: a grant allows Decrypt without these conditions",
            Attack::Replica => {
                "allows ReplicateKey: a replica in another Region has a policy of its own"
            }
            Attack::ImportedMaterial => {
                "allows ImportKeyMaterial: whoever imports the key's material has a copy of it"
            }
            Attack::OpenAdministration => "allows PutKeyPolicy to anyone: they replace this policy",
        })
    }
}
