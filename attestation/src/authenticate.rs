//! Format, chain, signature and times of a document: who made it, and when. What the document must
//! say is the policy's business.

use crate::cache::ChainCache;
use crate::chain::{self, Chain, TrustAnchor, Validity};
use crate::crypto;
use crate::document::{Envelope, Fields};
use crate::error::{Error, Malformed, Part, Untrusted};
use crate::time::Time;
use minicbor::Encoder;
use std::time::Duration;

/// ES384 (RFC 9053, 2.1), the only algorithm of these documents.
const ES384: i64 = -35;

/// Where the time comes from at which certificates must be valid.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClockSource {
    /// The caller.
    Caller(Time),
    /// The document's own timestamp.
    Document,
}

impl ClockSource {
    fn time(self, fields: &Fields<'_>) -> Time {
        match self {
            ClockSource::Caller(time) => time,
            ClockSource::Document => fields.timestamp,
        }
    }
}

/// A document whose signature and chain are valid at some time; [`Authentic::check_times`] compares
/// which.
#[derive(Debug)]
pub(crate) struct Authentic<'b> {
    pub(crate) fields: Fields<'b>,
    pub(crate) chain: Chain,
    /// The time that the clock source gave.
    pub(crate) at: Time,
}

/// Checks format, chain and signature: the document is an enclave's, at some time.
pub(crate) fn authenticate<'b>(
    bytes: &'b [u8],
    anchor: &TrustAnchor,
    clock: ClockSource,
    cache: &impl ChainCache,
) -> Result<Authentic<'b>, Error> {
    let envelope = Envelope::parse(bytes)?;
    if envelope.algorithm != ES384 {
        return Err(Untrusted::Algorithm(envelope.algorithm).into());
    }
    let signature = envelope
        .signature
        .try_into()
        .map_err(|_| Malformed::Envelope("an ES384 signature is r and s of 48 bytes each"))?;
    let fields = Fields::parse(envelope.payload)?;
    let at = clock.time(&fields);
    let chain = chain::verify(anchor, &fields.cabundle, fields.certificate, at, cache)?;
    if !crypto::verify_p384_sha384(&chain.key, &to_be_signed(&envelope), signature) {
        return Err(Untrusted::Signature(Part::Document).into());
    }
    // Not earlier: until the signature is valid, `at` may come from a forged document.
    for (hash, expiry) in &chain.newly_verified {
        cache.insert(*hash, *expiry, at);
    }
    Ok(Authentic { fields, chain, at })
}

impl Authentic<'_> {
    /// Whether every certificate is valid at `at`, and the document is not from later, give or take
    /// `skew`.
    pub(crate) fn check_times(&self, skew: Duration) -> Result<(), Error> {
        let at = self.at;
        for Validity { part, from, until } in &self.chain.validity {
            let (part, from, until) = (*part, *from, *until);
            if at.plus(skew) < from {
                return Err(Error::NotYetValid { part, from, at });
            }
            if until.plus(skew) < at {
                return Err(Error::Expired { part, until, at });
            }
        }
        let from = self.fields.timestamp;
        if at.plus(skew) < from {
            let part = Part::Document;
            return Err(Error::NotYetValid { part, from, at });
        }
        Ok(())
    }
}

/// Sig_structure (RFC 9052, 4.4) with empty external data.
fn to_be_signed(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(envelope.payload.len() + 64));
    encoder
        .array(4)
        .and_then(|e| e.str("Signature1"))
        .and_then(|e| e.bytes(envelope.protected))
        .and_then(|e| e.bytes(&[]))
        .and_then(|e| e.bytes(envelope.payload))
        .expect("writing to a Vec does not fail");
    encoder.into_writer()
}
