//! From the pinned root to the enclave's certificate, in the order in which the document gives the certificates: no search
//! for paths, no certificate from elsewhere. Times are collected here and compared by the caller.

use crate::certificate::{BasicConstraints, Certificate, CertificateError};
use crate::crypto::{self, PublicKey};
use crate::{Error, Malformed, Part, Time, Untrusted};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

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

    /// Another root, for a PKI of one's own: documents of real enclaves will not verify with it.
    pub fn from_der(der: &[u8]) -> Result<TrustAnchor, AnchorError> {
        let anchor = TrustAnchor { der: der.to_vec() };
        let root = anchor
            .root()
            .map_err(|error| AnchorError(Box::new(error)))?;
        authority(&root, Part::Ca(0), 0).map_err(|error| AnchorError(Box::new(error.into())))?;
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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this certificate cannot be a trust anchor: {0}")]
pub struct AnchorError(Box<Error>);

/// Links from one CA certificate to the next whose signatures were verified. A link is known by the SHA-256 over the DER
/// of every certificate from the root to it, so it says nothing about the same certificate in another chain.
#[derive(Debug)]
pub(crate) struct Links {
    expiry: HashMap<Link, Time>,
    capacity: usize,
}

pub(crate) type Link = [u8; 32];

impl Links {
    pub(crate) fn new(capacity: usize) -> Links {
        Links {
            expiry: HashMap::new(),
            capacity,
        }
    }

    pub(crate) fn knows(&self, link: &Link, at: Time) -> bool {
        self.expiry.get(link).is_some_and(|expiry| at <= *expiry)
    }

    /// Makes room by forgetting what has expired, then what expires first.
    pub(crate) fn remember(&mut self, link: Link, expiry: Time, at: Time) {
        if self.expiry.len() >= self.capacity {
            self.expiry.retain(|_, expiry| at <= *expiry);
        }
        if self.expiry.len() >= self.capacity
            && let Some(first) = self
                .expiry
                .iter()
                .min_by_key(|(_, expiry)| **expiry)
                .map(|(link, _)| *link)
        {
            self.expiry.remove(&first);
        }
        if self.capacity > 0 {
            self.expiry.insert(link, expiry);
        }
    }
}

/// Where verified links are looked up and kept.
pub(crate) trait Memory {
    fn knows(&self, link: &Link, at: Time) -> bool;
    fn remember(&self, link: Link, expiry: Time, at: Time);
}

/// Remembers nothing.
impl Memory for () {
    fn knows(&self, _: &Link, _: Time) -> bool {
        false
    }

    fn remember(&self, _: Link, _: Time, _: Time) {}
}

/// A chain whose every signature and rule holds; when it holds is for the caller to compare.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Of the enclave's certificate.
    pub(crate) key: PublicKey,
    pub(crate) validity: Vec<Validity>,
    /// Links that were verified now, and when they expire: to be remembered once the whole document is authentic.
    pub(crate) fresh: Vec<(Link, Time)>,
}

#[derive(Debug)]
pub(crate) struct Validity {
    pub(crate) part: Part,
    pub(crate) from: Time,
    pub(crate) until: Time,
}

/// The rules of RFC 5280, 6.1, that this PKI uses, and of AWS's attestation_process.md, 3.2.3.
pub(crate) fn verify(
    anchor: &TrustAnchor,
    cabundle: &[&[u8]],
    leaf: &[u8],
    at: Time,
    memory: &impl Memory,
) -> Result<Chain, Error> {
    let Some((root, others)) = cabundle
        .split_first()
        .filter(|(root, _)| **root == anchor.der)
    else {
        return Err(Untrusted::Root.into());
    };
    let mut issuer = anchor.root()?;
    authority(&issuer, Part::Ca(0), others.len())?;
    let mut link: Link = Sha256::digest(root).into();
    let mut validity = vec![Validity::of(&issuer, Part::Ca(0))];
    let mut fresh = Vec::new();
    for (index, der) in (1..).zip(others) {
        let part = Part::Ca(index);
        let certificate = parse(der, part)?;
        link = Sha256::new()
            .chain_update(link)
            .chain_update(der)
            .finalize()
            .into();
        let known = memory.knows(&link, at);
        issued(&certificate, &issuer, part, known)?;
        authority(&certificate, part, others.len() - index)?;
        if !known {
            fresh.push((link, certificate.not_after));
        }
        validity.push(Validity::of(&certificate, part));
        issuer = certificate;
    }
    let certificate = parse(leaf, Part::Leaf)?;
    issued(&certificate, &issuer, Part::Leaf, false)?;
    end_entity(&certificate)?;
    validity.push(Validity::of(&certificate, Part::Leaf));
    Ok(Chain {
        key: certificate.key,
        validity,
        fresh,
    })
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

/// A certificate that may sign others, `below` of which are CAs too.
fn authority(certificate: &Certificate<'_>, part: Part, below: usize) -> Result<(), Untrusted> {
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
fn end_entity(certificate: &Certificate<'_>) -> Result<(), Untrusted> {
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

fn issued(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
    part: Part,
    signature_is_known: bool,
) -> Result<(), Untrusted> {
    if certificate.issuer != issuer.subject {
        return Err(Untrusted::Issuer(part));
    }
    let signature_holds = signature_is_known
        || crypto::verify_p384_sha384(&issuer.key, certificate.signed, &certificate.signature);
    match signature_holds {
        true => Ok(()),
        false => Err(Untrusted::Signature(part)),
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

    #[test]
    fn remembers_a_bounded_number_of_links_until_they_expire() {
        let at = Time::from_millis;
        let mut links = Links::new(2);
        links.remember([1; 32], at(10), at(0));
        links.remember([2; 32], at(20), at(0));
        assert!(links.knows(&[1; 32], at(10)) && !links.knows(&[1; 32], at(11)));
        links.remember([3; 32], at(30), at(5));
        assert!(
            !links.knows(&[1; 32], at(5)),
            "the one that expires first made room"
        );
        links.remember([4; 32], at(40), at(25));
        assert!(
            !links.knows(&[2; 32], at(5))
                && links.knows(&[3; 32], at(25))
                && links.knows(&[4; 32], at(25))
        );
        assert_eq!(links.expiry.len(), 2);
        let mut none = Links::new(0);
        none.remember([1; 32], at(10), at(0));
        assert!(!none.knows(&[1; 32], at(0)));
    }
}
