//! The outcome of each condition of a policy.

use crate::pcr::FIRST_UNLOCKED;
use serde::Serialize;

/// What a check compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The register with this index, 0 to 31.
    Pcr(u8),
    /// Which AWS product the document comes from, by its module id.
    Kind,
    /// Whether the enclave runs in debug mode.
    Debug,
    /// Whether the enclave opened a sealed config (PCR16).
    SealedConfig,
    /// The nonce.
    Nonce,
    /// The public key.
    PublicKey,
    /// The user data; behind the tag of the origin, if the policy names one.
    UserData,
    /// For whom the document was made.
    Origin,
    /// The document's age.
    Age,
}

/// One condition, and what the document has there. Both are texts for people: registers and byte
/// strings are in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was compared.
    pub subject: Subject,
    /// Whether the document satisfies the condition.
    pub passed: bool,
    /// What the policy asks for; alternatives are joined by "or".
    pub expected: String,
    /// What the document has; "missing" if it has nothing there, "empty" for no bytes.
    pub found: String,
}

impl Check {
    /// What a relying party can do if the check failed, in one or two sentences.
    pub fn advice(&self) -> &'static str {
        match self.subject {
            Subject::Kind => {
                "Another AWS product made this document, or a later kind of enclave; set kind = \"any\" in the policy only if its registers fix the code."
            }
            Subject::Debug => "Run the enclave without debug mode; allow it only for tests.",
            Subject::Pcr(3) => "The parent instance has another IAM role, or none.",
            Subject::Pcr(4) => "The enclave runs on another parent instance.",
            Subject::Pcr(8) => "The image was signed with another certificate, or is not signed.",
            Subject::Pcr(0..FIRST_UNLOCKED) => {
                "The enclave runs other code. If that is intended, build it yourself with `eif-builder build --json` and use its output."
            }
            Subject::Pcr(_) => {
                "The enclave's code extended this register with other data, or left it unlocked."
            }
            Subject::SealedConfig => "The enclave has not opened a sealed config.",
            Subject::Nonce => {
                "This document was made for another request: ask again with a fresh nonce."
            }
            Subject::PublicKey | Subject::UserData => {
                "The enclave attested a different value from the expected one."
            }
            Subject::Origin => {
                "This document was made for another requester than the policy asks for: get it where the policy's author does, the workload's own from the workload."
            }
            Subject::Age => "Request a new document from the enclave.",
        }
    }

    /// A sentence for each check that failed.
    pub(crate) fn failures(checks: &[Check]) -> String {
        let failed = checks.iter().filter(|check| !check.passed);
        let sentences = failed.map(|check| {
            format!(
                "{} is {}, expected {}",
                check.subject, check.found, check.expected
            )
        });
        sentences.collect::<Vec<_>>().join("; ")
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Pcr(index) => write!(f, "PCR{index}"),
            Subject::Kind => f.write_str("kind"),
            Subject::Debug => f.write_str("mode"),
            Subject::SealedConfig => f.write_str("sealed config"),
            Subject::Nonce => f.write_str("nonce"),
            Subject::PublicKey => f.write_str("public key"),
            Subject::UserData => f.write_str("user data"),
            Subject::Origin => f.write_str("origin"),
            Subject::Age => f.write_str("age"),
        }
    }
}
