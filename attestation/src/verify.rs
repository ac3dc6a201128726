//! The one way from bytes to fields that can be relied on.

use crate::chain::{self, Chain, Link, Links, Memory, TrustAnchor, Validity};
use crate::crypto;
use crate::document::{Envelope, Fields, Malformed};
use crate::policy::{Check, Clock, Policy};
use crate::{Pcrs, Time};
use minicbor::Encoder;
use std::sync::Mutex;
use std::time::Duration;

/// ES384 (RFC 9053, 2.1), the only algorithm of these documents.
const ES384: i64 = -35;

/// A document that AWS signed for an enclave, and that satisfies the policy it was held against. Only this crate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// `<parent instance id>-enc<number>`.
    pub module_id: String,
    /// When the document was made, by the clock of the hypervisor.
    pub timestamp: Time,
    /// Every locked register.
    pub pcrs: Pcrs,
    /// Whether the enclave runs in debug mode: its memory and console are open to the parent instance.
    pub debug: bool,
    /// What the enclave's code put in; at most 1024 bytes each.
    pub public_key: Option<Vec<u8>>,
    pub user_data: Option<Vec<u8>>,
    pub nonce: Option<Vec<u8>>,
    /// When the first certificate of the chain expires: nothing derived from the document should be kept for longer.
    pub valid_until: Time,
    /// Each condition of the policy, and what the document has there.
    pub checks: Vec<Check>,
}

/// Why a document is not trusted, by whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// These bytes are no attestation document.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// It is one, and nothing shows that it comes from a Nitro Enclave.
    #[error("not trusted: {0}")]
    Untrusted(#[from] Untrusted),
    #[error("{part} is not valid before {from}, and it is {at}")]
    NotYetValid { part: Part, from: Time, at: Time },
    #[error("{part} was valid until {until}, and it is {at}")]
    Expired { part: Part, until: Time, at: Time },
    /// It is genuine, and not what the policy asks for. All checks are here, with at least one that failed.
    #[error("rejected by the policy: {}", Check::failures(.0))]
    Rejected(Vec<Check>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("cabundle[0] is not the root certificate that is trusted")]
    Root,
    #[error(
        "the document is signed with COSE algorithm {0}, and enclaves sign with ES384 (-35){hint}",
        hint = if *.0 == -1 { "; QEMU's NSM writes -1 and signs nothing" } else { "" }
    )]
    Algorithm(i64),
    #[error("the signature of {0} does not verify")]
    Signature(Part),
    #[error("{0} was not issued by the certificate before it")]
    Issuer(Part),
    #[error("{0} may not sign certificates: it is no CA")]
    NotCa(Part),
    #[error("{0} may not have so many CAs below it (pathLenConstraint)")]
    PathLen(Part),
    #[error("{0} has no key usage that allows what it is used for")]
    KeyUsage(Part),
    #[error("the enclave's certificate is a CA")]
    LeafIsCa,
    #[error("{part} has a critical extension that is not understood (OID {oid}, encoded)")]
    CriticalExtension { part: Part, oid: String },
    #[error("{0} has a key that is not on P-384")]
    Key(Part),
    #[error("{0} is signed with something else than ecdsa-with-SHA384")]
    SignatureAlgorithm(Part),
}

/// A part of a document that can be at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Document,
    /// The enclave's own certificate.
    Leaf,
    /// The certificate at this place of the cabundle; 0 is the root.
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

/// Whether `bytes` are an attestation document that chains to `anchor`, was valid at the time that `policy` names, and
/// satisfies `policy`. `now` is the caller's clock.
///
/// Format, chain and signature are looked at first, then times, then the policy; the first that fails is the error.
pub fn verify(
    bytes: &[u8],
    anchor: &TrustAnchor,
    now: Time,
    policy: &Policy,
) -> Result<Verified, Error> {
    verify_with(bytes, anchor, now, policy, &())
}

/// [`verify`] for servers: remembers which CA certificates it has verified, until they expire. All enclaves of one parent
/// instance share theirs for a day, so that two of a document's five signatures are left to check. Documents are
/// never remembered, and every rule but the remembered signatures is checked each time.
#[derive(Debug)]
pub struct Verifier {
    anchor: TrustAnchor,
    links: Mutex<Links>,
}

impl Verifier {
    /// Links that are remembered unless told otherwise; with its bookkeeping, one takes less than 128 bytes.
    pub const DEFAULT_CAPACITY: usize = 1024;

    pub fn new(anchor: TrustAnchor) -> Verifier {
        Verifier::with_capacity(anchor, Verifier::DEFAULT_CAPACITY)
    }

    /// `links` is the number of CA certificates to remember: three a parent instance, two of which it shares with its zone.
    pub fn with_capacity(anchor: TrustAnchor, links: usize) -> Verifier {
        Verifier {
            anchor,
            links: Mutex::new(Links::new(links)),
        }
    }

    pub fn verify(&self, bytes: &[u8], now: Time, policy: &Policy) -> Result<Verified, Error> {
        verify_with(bytes, &self.anchor, now, policy, &self.links)
    }
}

/// A lock that a panic poisoned costs a signature check, not the answer.
impl Memory for Mutex<Links> {
    fn knows(&self, link: &Link, at: Time) -> bool {
        self.lock().is_ok_and(|links| links.knows(link, at))
    }

    fn remember(&self, link: Link, expiry: Time, at: Time) {
        if let Ok(mut links) = self.lock() {
            links.remember(link, expiry, at);
        }
    }
}

fn verify_with(
    bytes: &[u8],
    anchor: &TrustAnchor,
    now: Time,
    policy: &Policy,
    memory: &impl Memory,
) -> Result<Verified, Error> {
    let at = |fields: &Fields<'_>| match policy.clock() {
        Clock::Now => now,
        Clock::Document => fields.timestamp,
    };
    let (fields, chain) = authenticate(bytes, anchor, at, memory)?;
    let at = at(&fields);
    check_times(&fields, &chain, at, policy.clock_skew())?;
    let checks = policy.check(&fields, now);
    if checks.iter().any(|check| !check.holds) {
        return Err(Error::Rejected(checks));
    }
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    Ok(Verified {
        module_id: fields.module_id.to_owned(),
        timestamp: fields.timestamp,
        debug: fields.pcrs.debug(),
        pcrs: fields.pcrs,
        public_key: owned(fields.public_key),
        user_data: owned(fields.user_data),
        nonce: owned(fields.nonce),
        valid_until: chain
            .validity
            .iter()
            .map(|validity| validity.until)
            .min()
            .unwrap_or(at),
        checks,
    })
}

/// Format, chain and signature: the document is an enclave's, at some time. `at` is when remembered links must be valid.
pub(crate) fn authenticate<'b>(
    bytes: &'b [u8],
    anchor: &TrustAnchor,
    at: impl FnOnce(&Fields<'b>) -> Time,
    memory: &impl Memory,
) -> Result<(Fields<'b>, Chain), Error> {
    let envelope = Envelope::parse(bytes)?;
    if envelope.algorithm != ES384 {
        return Err(Untrusted::Algorithm(envelope.algorithm).into());
    }
    let signature = envelope
        .signature
        .try_into()
        .map_err(|_| Malformed::Envelope("an ES384 signature is r and s of 48 bytes each"))?;
    let fields = Fields::parse(envelope.payload)?;
    let at = at(&fields);
    let chain = chain::verify(anchor, &fields.cabundle, fields.certificate, at, memory)?;
    if !crypto::verify_p384_sha384(&chain.key, &to_be_signed(&envelope), signature) {
        return Err(Untrusted::Signature(Part::Document).into());
    }
    // Not before: until now the time may have been the document's own, and anybody's.
    for (link, expiry) in &chain.fresh {
        memory.remember(*link, *expiry, at);
    }
    Ok((fields, chain))
}

pub(crate) fn check_times(
    fields: &Fields<'_>,
    chain: &Chain,
    at: Time,
    skew: Duration,
) -> Result<(), Error> {
    for Validity { part, from, until } in &chain.validity {
        let (part, from, until) = (*part, *from, *until);
        if at.plus(skew) < from {
            return Err(Error::NotYetValid { part, from, at });
        }
        if until.plus(skew) < at {
            return Err(Error::Expired { part, until, at });
        }
    }
    match at.plus(skew) < fields.timestamp {
        true => Err(Error::NotYetValid {
            part: Part::Document,
            from: fields.timestamp,
            at,
        }),
        false => Ok(()),
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
        .expect("a Vec takes what is written to it");
    encoder.into_writer()
}
