//! The one way from bytes to fields that a relying party can use.

use crate::authenticate::{ClockSource, authenticate};
use crate::cache::{BoundedCache, ChainCache, NoCache};
use crate::chain::TrustAnchor;
use crate::check::Check;
use crate::conditions::ValidityTime;
use crate::error::Error;
use crate::origin::Origin;
use crate::pcr::Pcrs;
use crate::policy::Policy;
use crate::time::Time;
use std::sync::Mutex;

/// A document that AWS signed for an enclave, and that satisfies the policy it was checked against.
/// Only [`verify`] and [`Verifier::verify`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// `<parent instance id>-enc<number>`.
    pub module_id: String,
    /// When the document was made, by the hypervisor's clock.
    pub timestamp: Time,
    /// Every locked register.
    pub pcrs: Pcrs,
    /// Whether the enclave runs in debug mode: the parent instance can read its memory and console.
    pub debug: bool,
    /// The public key that the enclave's code supplied; at most 1024 bytes, of any format.
    pub public_key: Option<Vec<u8>>,
    /// The user data that the enclave's code supplied; at most 1024 bytes. In documents of Redoubt's
    /// agent it begins with a tag: see [`Verified::origin`] and [`Verified::own_user_data`].
    pub user_data: Option<Vec<u8>>,
    /// The nonce that the enclave's code supplied; at most 1024 bytes.
    pub nonce: Option<Vec<u8>>,
    /// When the first certificate of the chain expires: keep nothing derived from the document for
    /// longer.
    pub valid_until: Time,
    /// Each condition of the policy, and what the document has there. All passed.
    pub checks: Vec<Check>,
}

impl Verified {
    /// For whom Redoubt's agent had the document made; `None` if its user data carries no tag. Means
    /// something only if the policy fixes the code and that code is a Redoubt image.
    pub fn origin(&self) -> Option<Origin> {
        let (origin, _) = Origin::of(self.user_data.as_deref()?)?;
        Some(origin)
    }

    /// The user data without the tag: what the requester supplied. All of it if there is no tag.
    pub fn own_user_data(&self) -> Option<&[u8]> {
        let user_data = self.user_data.as_deref()?;
        Some(Origin::of(user_data).map_or(user_data, |(_, own)| own))
    }
}

/// Verifies that `bytes` are an attestation document which chains to `anchor`, was valid at the
/// time that `policy` selects, and satisfies `policy`. `now` is the caller's clock.
///
/// Takes five P-384 signature checks and does no I/O. A server that verifies many documents should
/// use a [`Verifier`].
///
/// ```
/// use attestation::{Conditions, Error, Policy, Time, TrustAnchor, Untrusted, verify};
/// use std::time::SystemTime;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let policy = Policy::new(Conditions {
///     pcrs: [(0, ["3d".repeat(48).parse()?].into())].into(),
///     nonce: Some(b"a fresh random nonce".to_vec()),
///     ..Conditions::default()
/// })?;
/// let now = Time::from(SystemTime::now());
///
/// let error = verify(b"not CBOR", &TrustAnchor::aws(), now, &policy).unwrap_err();
/// assert_eq!(error.to_string(), "malformed: COSE_Sign1: byte 0: expected an array");
///
/// // COSE_Sign1 with algorithm -1, which QEMU's emulated NSM writes into its unsigned documents.
/// let unsigned = [0x84, 0x43, 0xa1, 0x01, 0x20, 0xa0, 0x40, 0x40];
/// let result = verify(&unsigned, &TrustAnchor::aws(), now, &policy);
/// assert_eq!(result, Err(Error::Untrusted(Untrusted::Algorithm(-1))));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Checks format, chain and signature first, then times, then the policy; the first that fails is
/// the error: [`Error::Malformed`], [`Error::Untrusted`], [`Error::NotYetValid`] or
/// [`Error::Expired`], [`Error::Rejected`].
pub fn verify(
    bytes: &[u8],
    anchor: &TrustAnchor,
    now: Time,
    policy: &Policy,
) -> Result<Verified, Error> {
    verify_with(bytes, anchor, now, policy, &NoCache)
}

/// [`verify`] for servers: remembers which CA certificates it has verified, until they expire.
///
/// All enclaves of one parent instance share theirs for a day, so that two of a document's five
/// signatures are left to check. Documents are never remembered, and every rule but the remembered
/// signatures is checked each time. Threads can share a verifier; they hold its lock for a look-up,
/// not for a signature check.
///
/// ```
/// use attestation::{Conditions, Error, Malformed, Policy, Time, TrustAnchor, Verifier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let verifier = Verifier::new(TrustAnchor::aws());
/// let policy = Policy::new(Conditions {
///     instance_id: Some("i-0123456789abcdef0".to_owned()),
///     ..Conditions::default()
/// })?;
/// let now: Time = "2026-01-03T20:41:07Z".parse()?;
///
/// let too_long = vec![0; attestation::document::MAX_LEN + 1];
/// let result = verifier.verify(&too_long, now, &policy);
/// assert_eq!(result, Err(Error::Malformed(Malformed::TooLong(16385))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Verifier {
    anchor: TrustAnchor,
    cache: Mutex<BoundedCache>,
}

impl Verifier {
    /// How many CA certificates [`Verifier::new`] remembers. Each takes less than 128 bytes of
    /// memory.
    pub const DEFAULT_CAPACITY: usize = 1024;

    /// A verifier that remembers up to [`Verifier::DEFAULT_CAPACITY`] CA certificates below
    /// `anchor`.
    pub fn new(anchor: TrustAnchor) -> Verifier {
        Verifier::with_capacity(anchor, Verifier::DEFAULT_CAPACITY)
    }

    /// `certificates` is the number of CA certificates to remember; 0 remembers none. A parent
    /// instance has three, two of which it shares with the others of its zone.
    pub fn with_capacity(anchor: TrustAnchor, certificates: usize) -> Verifier {
        Verifier {
            anchor,
            cache: Mutex::new(BoundedCache::new(certificates)),
        }
    }

    /// Decides exactly as [`verify`] does, below this verifier's trust anchor.
    ///
    /// # Errors
    ///
    /// Those of [`verify`], in the same order.
    pub fn verify(&self, bytes: &[u8], now: Time, policy: &Policy) -> Result<Verified, Error> {
        verify_with(bytes, &self.anchor, now, policy, &self.cache)
    }
}

fn verify_with(
    bytes: &[u8],
    anchor: &TrustAnchor,
    now: Time,
    policy: &Policy,
    cache: &impl ChainCache,
) -> Result<Verified, Error> {
    let clock = match policy.validity_time() {
        ValidityTime::Now => ClockSource::Caller(now),
        ValidityTime::Document => ClockSource::Document,
    };
    let authentic = authenticate(bytes, anchor, clock, cache)?;
    authentic.check_times(policy.clock_skew())?;
    let fields = authentic.fields;
    let checks = policy.check(&fields, now);
    if checks.iter().any(|check| !check.passed) {
        return Err(Error::Rejected(checks));
    }
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let expiries = authentic
        .chain
        .validity
        .iter()
        .map(|validity| validity.until);
    Ok(Verified {
        module_id: fields.module_id.to_owned(),
        timestamp: fields.timestamp,
        debug: fields.pcrs.debug(),
        pcrs: fields.pcrs,
        public_key: owned(fields.public_key),
        user_data: owned(fields.user_data),
        nonce: owned(fields.nonce),
        valid_until: expiries.min().unwrap_or(authentic.at),
        checks,
    })
}
