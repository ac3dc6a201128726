//! How it is checked that a document comes from the enclave that was launched.
//!
//! On Nitro that is AWS's signature. QEMU's NSM signs nothing, or has a stand-in for AWS sign: what
//! vouches for its documents is that this host started that very QEMU, and so only a launcher of
//! this module can make the evidence that reads them.

use attestation::emulated::{EmulatedDocument, read_emulated};
use attestation::{
    Check, Conditions, Error, Malformed, Measurements, Origin, Pcr, PcrMismatch, Policy,
    PolicyError, Subject, Time, TrustAnchor, Verifier,
};
use explain::{Code, Explain};
use std::collections::{BTreeMap, BTreeSet};

/// The register that the agent extends with the sealed config that it opened.
const SEALED_CONFIG: u8 = 16;
/// For whom the agent makes the documents that this host asks for.
const ORIGIN: Origin = Origin::Endpoint;

/// How documents of one launcher's enclaves are checked.
#[derive(Debug)]
pub struct Evidence(Kind);

#[derive(Debug)]
enum Kind {
    Signed(Box<Verifier>),
    Emulated,
}

/// What a document of the enclave that was launched must carry.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// What was built.
    pub measurements: &'a Measurements,
    /// PCR16, if the enclave was given a sealed config.
    pub sealed_config: Option<Pcr>,
    /// What this host asked with.
    pub nonce: &'a [u8],
    /// It was launched in debug mode: PCR0, 1 and 2 must be zero, and without it must not be.
    pub debug: bool,
}

impl Expected<'_> {
    /// The registers that the document must have.
    fn registers(&self) -> Measurements {
        if !self.debug {
            return *self.measurements;
        }
        Measurements {
            pcr0: Pcr::ZERO,
            pcr1: Pcr::ZERO,
            pcr2: Pcr::ZERO,
            ..*self.measurements
        }
    }
}

/// Why a document is not that of the enclave that was launched.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The signed document is not genuine, or not of this enclave.
    #[error(transparent)]
    Rejected(#[from] Error),
    /// What was expected makes no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// QEMU's NSM did not make this.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The document was made for another request.
    #[error("the document does not carry the nonce that was sent")]
    Nonce,
    /// The document was made for another requester than the endpoint's.
    #[error("the document was not made for the attestation endpoint")]
    Origin,
    /// Another sealed config was opened, or none.
    #[error("PCR16 does not match the sealed config that was sent")]
    SealedConfig,
    /// Another image runs, or it runs in debug mode.
    #[error("the running enclave is not what was built: {0}")]
    Measurements(#[from] PcrMismatch),
}

impl Explain for EvidenceError {
    fn code(&self) -> Code {
        match self {
            EvidenceError::Measurements(_) => Code::MeasurementMismatch,
            EvidenceError::Rejected(Error::Rejected(checks))
                if checks.iter().any(is_other_code) =>
            {
                Code::MeasurementMismatch
            }
            _ => Code::AttestationFailed,
        }
    }
}

/// A failed check that means other code than what was built, or debug mode.
fn is_other_code(check: &Check) -> bool {
    let is_code = match check.subject {
        Subject::Pcr(index) => index < SEALED_CONFIG,
        Subject::Debug => true,
        _ => false,
    };
    is_code && !check.passed
}

impl Evidence {
    /// Documents carry a signature that chains to `anchor`.
    pub fn signed(anchor: TrustAnchor) -> Evidence {
        Evidence(Kind::Signed(Box::new(Verifier::new(anchor))))
    }

    /// Documents carry no signature that counts; this host started what makes them.
    pub(super) fn emulated() -> Evidence {
        Evidence(Kind::Emulated)
    }

    /// Checks a document that was fetched just now from an enclave that this host launched.
    ///
    /// # Errors
    /// It is not genuine, not fresh, or not from what was built.
    pub fn check(
        &self,
        document: &[u8],
        now: Time,
        expected: Expected<'_>,
    ) -> Result<(), EvidenceError> {
        match &self.0 {
            Kind::Signed(verifier) => {
                verifier.verify(document, now, &policy(expected)?)?;
                Ok(())
            }
            Kind::Emulated => check_emulated(&read_emulated(document)?, expected),
        }
    }
}

/// The same question for the verifier of signed documents.
fn policy(expected: Expected<'_>) -> Result<Policy, PolicyError> {
    let Expected {
        measurements: _,
        sealed_config,
        nonce,
        debug,
    } = expected;
    let pcrs: BTreeMap<u8, BTreeSet<Pcr>> = sealed_config
        .map(|pcr| (SEALED_CONFIG, BTreeSet::from([pcr])))
        .into_iter()
        .collect();
    Policy::new(Conditions {
        measurements: Some(expected.registers()),
        pcrs,
        nonce: Some(nonce.to_vec()),
        origin: Some(ORIGIN),
        allow_debug: debug,
        ..Conditions::default()
    })
}

fn check_emulated(
    document: &EmulatedDocument,
    expected: Expected<'_>,
) -> Result<(), EvidenceError> {
    let Expected {
        measurements: _,
        sealed_config,
        nonce,
        debug: _,
    } = expected;
    if document.nonce.as_deref() != Some(nonce) {
        return Err(EvidenceError::Nonce);
    }
    if document.origin() != Some(ORIGIN) {
        return Err(EvidenceError::Origin);
    }
    if let Some(pcr16) = sealed_config
        && document.pcrs.get(SEALED_CONFIG) != Some(&pcr16)
    {
        return Err(EvidenceError::SealedConfig);
    }
    Ok(document.pcrs.expect(&expected.registers())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation::HashAlgorithm;

    fn measurements(byte: u8) -> Measurements {
        let pcr = Pcr::try_from([byte; 48].as_slice()).unwrap();
        Measurements {
            hash_algorithm: HashAlgorithm::Sha384,
            pcr0: pcr,
            pcr1: pcr,
            pcr2: pcr,
            pcr8: Some(pcr),
        }
    }

    #[test]
    fn what_is_expected_follows_from_how_the_enclave_was_launched() {
        let built = measurements(1);
        let expected = |debug| Expected {
            measurements: &built,
            sealed_config: None,
            nonce: &[7; 32],
            debug,
        };
        assert_eq!(expected(false).registers(), built);
        // The certificate that an image is signed with is measured in debug mode too.
        let zero = Measurements {
            pcr8: built.pcr8,
            ..measurements(0)
        };
        assert_eq!(expected(true).registers(), zero);
        assert!(policy(expected(false)).unwrap().fixes_code());
        assert!(policy(expected(true)).is_ok());
    }
}
