//! From the pinned root to the enclave's certificate, in the order in which the document gives the
//! certificates: no path building, no certificate from elsewhere. Times are collected here and
//! compared by the caller.

use crate::cache::{ChainCache, ChainHash};
use crate::certificate::{BasicConstraints, Certificate, CertificateError};
use crate::crypto::{self, PublicKey};
use crate::error::{Error, Malformed, Part, Untrusted};
use crate::time::Time;
use sha2::{Digest as _, Sha256};

/// The root certificate that a chain must start with, byte for byte.
#[derive(Clone)]
pub struct TrustAnchor {
    der: Vec<u8>,
}

impl TrustAnchor {
    /// AWS's root G1, SHA-256 641a0321…79bb5b. Published by AWS at
    /// <https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html>.
    pub fn aws() -> TrustAnchor {
        TrustAnchor {
            der: include_bytes!("aws-nitro-enclaves-root-g1.der").to_vec(),
        }
    }

    /// Another root, for a PKI of your own: documents of real enclaves do not verify below it.
    /// `der` is its certificate in DER.
    ///
    /// # Errors
    ///
    /// [`AnchorError`] if `der` is not the certificate of a CA with a P-384 key, or breaks another
    /// rule that CA certificates of a document must keep. Its signature and validity are not
    /// checked here.
    pub fn from_der(der: &[u8]) -> Result<TrustAnchor, AnchorError> {
        let anchor = TrustAnchor { der: der.to_vec() };
        let root = anchor
            .root()
            .map_err(|error| AnchorError(Box::new(error)))?;
        check_ca(&root, Part::Ca(0), 0).map_err(|error| AnchorError(Box::new(error.into())))?;
        Ok(anchor)
    }

    fn root(&self) -> Result<Certificate<'_>, Error> {
        parse(&self.der, Part::Ca(0))
    }
}

impl std::fmt::Debug for TrustAnchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TrustAnchor(SHA-256 {})",
            hex::encode(Sha256::digest(&self.der))
        )
    }
}

/// Why a certificate cannot be a trust anchor, in words; the reason is that of [`Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this certificate cannot be a trust anchor: {0}")]
pub struct AnchorError(Box<Error>);

/// A chain whose signatures and rules were all checked; its times are for the caller to compare.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Of the enclave's certificate.
    pub(crate) key: PublicKey,
    /// Of every certificate, the root first.
    pub(crate) validity: Vec<Validity>,
    /// CA certificates that the cache did not have, and when they expire: for the cache, once the
    /// whole document is authentic.
    pub(crate) newly_verified: Vec<(ChainHash, Time)>,
}

#[derive(Debug)]
pub(crate) struct Validity {
    pub(crate) part: Part,
    pub(crate) from: Time,
    pub(crate) until: Time,
}

/// The rules of RFC 5280, 6.1, that this PKI uses, and of AWS's attestation_process.md, 3.2.3.
/// Certificates in `cache` must be valid at `at` to count as verified.
pub(crate) fn verify(
    anchor: &TrustAnchor,
    cabundle: &[&[u8]],
    leaf: &[u8],
    at: Time,
    cache: &impl ChainCache,
) -> Result<Chain, Error> {
    let Some((root, others)) = cabundle
        .split_first()
        .filter(|(root, _)| **root == anchor.der)
    else {
        return Err(Untrusted::Root.into());
    };
    let mut issuer = anchor.root()?;
    check_ca(&issuer, Part::Ca(0), others.len())?;
    let mut hash: ChainHash = Sha256::digest(root).into();
    let mut validity = vec![Validity::of(&issuer, Part::Ca(0))];
    let mut newly_verified = Vec::new();
    for (index, der) in (1..).zip(others) {
        let part = Part::Ca(index);
        let certificate = parse(der, part)?;
        hash = extend(hash, der);
        check_issuer(&certificate, &issuer, part)?;
        if !cache.contains(&hash, at) {
            check_signature(&certificate, &issuer, part)?;
            newly_verified.push((hash, certificate.not_after));
        }
        check_ca(&certificate, part, others.len() - index)?;
        validity.push(Validity::of(&certificate, part));
        issuer = certificate;
    }
    let certificate = parse(leaf, Part::Leaf)?;
    check_issuer(&certificate, &issuer, Part::Leaf)?;
    check_signature(&certificate, &issuer, Part::Leaf)?;
    check_leaf(&certificate)?;
    validity.push(Validity::of(&certificate, Part::Leaf));
    Ok(Chain {
        key: certificate.key,
        validity,
        newly_verified,
    })
}

fn extend(hash: ChainHash, der: &[u8]) -> ChainHash {
    Sha256::new()
        .chain_update(hash)
        .chain_update(der)
        .finalize()
        .into()
}

impl Validity {
    fn of(certificate: &Certificate<'_>, part: Part) -> Validity {
        Validity {
            part,
            from: certificate.not_before,
            until: certificate.not_after,
        }
    }
}

fn parse(der: &[u8], part: Part) -> Result<Certificate<'_>, Error> {
    Certificate::parse(der).map_err(|error| match error {
        CertificateError::Malformed(problem) => Malformed::Certificate { part, problem }.into(),
        CertificateError::Untrusted(reason) => reason(part).into(),
        CertificateError::Critical(oid) => Untrusted::CriticalExtension {
            part,
            oid: hex::encode(oid),
        }
        .into(),
    })
}

/// The certificate may sign others, and have `below` CAs below it.
fn check_ca(certificate: &Certificate<'_>, part: Part, below: usize) -> Result<(), Untrusted> {
    let Some(BasicConstraints { ca: true, path_len }) = certificate.extensions.basic_constraints
    else {
        return Err(Untrusted::NotCa(part));
    };
    if path_len.is_some_and(|allowed| usize::from(allowed) < below) {
        return Err(Untrusted::PathLen(part));
    }
    match certificate.extensions.key_usage {
        Some(usage) if usage.key_cert_sign() => Ok(()),
        _ => Err(Untrusted::KeyUsage(part)),
    }
}

/// The enclave's certificate may sign documents and nothing else.
fn check_leaf(certificate: &Certificate<'_>) -> Result<(), Untrusted> {
    match (
        certificate.extensions.basic_constraints,
        certificate.extensions.key_usage,
    ) {
        (Some(BasicConstraints { ca: true, .. }), _) => Err(Untrusted::LeafIsCa),
        (_, Some(usage)) if usage.key_cert_sign() => Err(Untrusted::LeafIsCa),
        (_, Some(usage)) if usage.digital_signature() => Ok(()),
        _ => Err(Untrusted::KeyUsage(Part::Leaf)),
    }
}

fn check_issuer(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
    part: Part,
) -> Result<(), Untrusted> {
    if certificate.issuer == issuer.subject {
        Ok(())
    } else {
        Err(Untrusted::Issuer(part))
    }
}

fn check_signature(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
    part: Part,
) -> Result<(), Untrusted> {
    if crypto::verify_p384_sha384(&issuer.key, certificate.signed, &certificate.signature) {
        Ok(())
    } else {
        Err(Untrusted::Signature(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aws_root_is_the_published_one() {
        let fingerprint = Sha256::digest(&TrustAnchor::aws().der);
        assert_eq!(
            hex::encode(fingerprint),
            "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
        );
        assert!(TrustAnchor::from_der(&TrustAnchor::aws().der).is_ok());
    }
}
