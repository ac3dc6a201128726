//! Policies of KMS keys that unseal configs: [`KeyPolicy::generate`] writes one that only the
//! attested enclaves of a spec get past, [`KeyPolicy::check`] finds what opens another.
//!
//! The check plays attacks against the policy as AWS evaluates it (IAM user guide, "Policy
//! evaluation logic"; KMS developer guide, "Condition keys for AWS Nitro Enclaves"). What it cannot
//! know, such as who a condition on `aws:PrincipalTag` lets through, it counts against the policy.
//! It sees the policy alone: not IAM, not grants, not where the key's material comes from.

mod attack;
mod check;
mod condition;
mod document;
mod generate;
mod glob;
mod statement;

#[cfg(test)]
mod tests;

pub use attack::Attack;
pub use check::{ExpectedImages, KeyPolicyFinding, KeyPolicyReport};
pub use document::{KeyPolicy, Statement};
pub use generate::{Principals, SealingKey};

use explain::{Class, Code, Explain};
use std::borrow::Cow;

/// Why a key policy can be neither written nor read.
#[derive(Debug, thiserror::Error)]
pub enum KeyPolicyError {
    /// The spec has no key for a config.
    #[error("the spec has no [config], so there is no key")]
    NoConfig,
    /// The spec is invalid.
    #[error(transparent)]
    Spec(#[from] wire::spec::SpecError),
    /// The key is a multi-Region key. Carries its ARN.
    #[error("{0} is a multi-Region key: each of its replicas has a policy of its own")]
    MultiRegion(String),
    /// There are no measurements to allow.
    #[error("no measurements are given")]
    NoMeasurements,
    /// The measurements are those of debug mode: zero, so they admit any image.
    #[error("PCR{0} of the measurements is zero, as in debug mode: it would admit any image")]
    ZeroMeasurement(u8),
    /// Not the ARN of an IAM principal. Carries the text.
    #[error(
        "{0:?} is not the ARN of an IAM role, user or account (arn:aws:iam::111122223333:role/name)"
    )]
    Principal(String),
    /// The text is not a policy.
    #[error("not a key policy: {0}")]
    Parse(#[from] serde_json::Error),
}

impl Explain for KeyPolicyError {
    fn code(&self) -> Code {
        match self {
            KeyPolicyError::NoConfig | KeyPolicyError::Spec(_) | KeyPolicyError::MultiRegion(_) => {
                Code::SpecInvalid
            }
            KeyPolicyError::NoMeasurements
            | KeyPolicyError::ZeroMeasurement(_)
            | KeyPolicyError::Principal(_)
            | KeyPolicyError::Parse(_) => Code::RequestInvalid,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            KeyPolicyError::NoConfig => "Add [config] with a kms_key to enclave.toml.",
            KeyPolicyError::Spec(_) => "Correct enclave.toml.",
            KeyPolicyError::MultiRegion(_) => "Name a single-Region key in config.kms_key.",
            KeyPolicyError::NoMeasurements => {
                "Give the output of eif-builder build --json with --measurements."
            }
            KeyPolicyError::ZeroMeasurement(_) => {
                "Take the measurements from eif-builder build --json, not from an enclave in debug \
                 mode."
            }
            KeyPolicyError::Principal(_) => "Correct --admin, --sealer or --host.",
            KeyPolicyError::Parse(_) => {
                "Give the output of aws kms get-key-policy --query Policy --output text."
            }
        }
        .into()
    }

    fn class(&self) -> Class {
        match self {
            KeyPolicyError::Parse(_) | KeyPolicyError::ZeroMeasurement(_) => Class::Data,
            _ => self.code().class(),
        }
    }
}
