//! The public keys of an issuer (JWKS, RFC 7517), from a file or a URL.
//!
//! A file is read again when it changes. A URL is fetched every ten minutes, and at once (but no
//! more than every five seconds) for an unknown key: that is how issuers rotate. When the issuer
//! cannot be reached, or the file is gone, its keys stay valid for an hour; then tokens cannot be
//! checked, since a revoked key would never be noticed.

use super::error::KeyError;
use crate::watched::{Stamp, WatchedFileError, read_bounded, stamp};
use bytes::Bytes;
use http_body_util::Full;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use oci::https::{Https, ServiceUrl};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A key set is read again no sooner than this for an unknown key, or after a failure.
const REFRESH_AFTER_MISS: Duration = Duration::from_secs(5);
const REFRESH: Duration = Duration::from_secs(10 * 60);
/// How long keys are used that cannot be confirmed any more.
const MAX_STALE: Duration = Duration::from_secs(60 * 60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The public keys of an issuer.
pub(crate) struct KeySet {
    source: Source,
    known: Mutex<CachedKeys>,
    /// Held while they are fetched, so that one request is made at a time.
    fetching: tokio::sync::Mutex<()>,
}

enum Source {
    File(PathBuf),
    Url(ServiceUrl, Box<Https>),
}

#[derive(Default)]
struct CachedKeys {
    keys: Vec<Jwk>,
    /// Of the file, when it was read.
    seen: Option<Stamp>,
    /// The last attempt.
    looked: Option<Instant>,
    /// The last success.
    confirmed: Option<Instant>,
}

/// Why there is no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyLookupError {
    /// The issuer has no such key.
    Unknown,
    /// The issuer has been unreachable for too long.
    Unreachable,
}

impl KeySet {
    /// The keys in a file.
    pub(super) fn from_file(path: &Path) -> Result<KeySet, KeyError> {
        let set = KeySet::of(Source::File(path.to_owned()));
        set.read_file(path)?;
        Ok(set)
    }

    /// The keys at a URL. One that does not answer is no error.
    pub(super) async fn from_url(url: &str, https: &Https) -> Result<KeySet, KeyError> {
        let source = Source::Url(ServiceUrl::parse(url)?, Box::new(https.clone()));
        let set = KeySet::of(source);
        set.refresh(false).await;
        Ok(set)
    }

    fn of(source: Source) -> KeySet {
        KeySet {
            source,
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::new(()),
        }
    }

    fn known(&self) -> MutexGuard<'_, CachedKeys> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a key by its name; a set of one key needs none.
    pub(crate) async fn find(self: &Arc<Self>, kid: Option<&str>) -> Result<Jwk, KeyLookupError> {
        if let Source::File(path) = &self.source {
            let looked = self.known().looked;
            if looked.is_none_or(|looked| looked.elapsed() >= REFRESH_AFTER_MISS)
                && let Err(error) = self.read_file(path)
            {
                tracing::warn!(%error, "the key set cannot be read; the previous one stays in effect");
            }
            return self.known().find_confirmed(kid);
        }
        let is_known = self.known().find(kid).is_some();
        if !is_known {
            self.refresh(true).await;
        } else if self.is_due(false) {
            // In the background: a caller whose key is known does not wait for the issuer.
            let set = self.clone();
            tokio::spawn(async move { set.refresh(false).await });
        }
        self.known().find_confirmed(kid)
    }

    fn is_due(&self, for_unknown: bool) -> bool {
        let known = self.known();
        // After a failure, and for an unknown key, soon; otherwise now and then.
        let failed = known.confirmed != known.looked;
        let pause = if for_unknown || failed {
            REFRESH_AFTER_MISS
        } else {
            REFRESH
        };
        known.looked.is_none_or(|looked| looked.elapsed() >= pause)
    }

    async fn refresh(&self, for_unknown: bool) {
        let Source::Url(url, https) = &self.source else {
            return;
        };
        let _one = self.fetching.lock().await;
        if !self.is_due(for_unknown) {
            return;
        }
        let fetched = fetch(url, https).await;
        let now = Some(Instant::now());
        let mut known = self.known();
        known.looked = now;
        match fetched {
            Ok(keys) => (known.keys, known.confirmed) = (keys, now),
            Err(error) => {
                tracing::warn!(%error, "the issuer's keys cannot be fetched; the previous ones stay in effect");
            }
        }
    }

    fn read_file(&self, path: &Path) -> Result<(), KeyError> {
        let mut known = self.known();
        known.looked = Some(Instant::now());
        let seen = stamp(path);
        if seen.is_none() || seen != known.seen {
            known.keys = parse(&read_bounded(path)?)
                .map_err(|problem| WatchedFileError::content(path, problem))?;
            known.seen = seen;
        }
        known.confirmed = Some(Instant::now());
        Ok(())
    }
}

impl CachedKeys {
    fn find_confirmed(&self, kid: Option<&str>) -> Result<Jwk, KeyLookupError> {
        if self
            .confirmed
            .is_some_and(|confirmed| confirmed.elapsed() < MAX_STALE)
        {
            self.find(kid).ok_or(KeyLookupError::Unknown)
        } else {
            Err(KeyLookupError::Unreachable)
        }
    }

    fn find(&self, kid: Option<&str>) -> Option<Jwk> {
        match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys
                .iter()
                .find(|key| key.common.key_id.as_deref() == Some(kid))
                .cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }
}

async fn fetch(url: &ServiceUrl, https: &Https) -> Result<Vec<Jwk>, KeyError> {
    let wrong = |problem: String| KeyError::Fetch {
        url: url.as_str().to_owned(),
        problem,
    };
    let request = hyper::Request::get(url.as_str())
        .body(Full::new(Bytes::new()))
        .map_err(|e| wrong(e.to_string()))?;
    let answer = https
        .send(request, FETCH_TIMEOUT)
        .await
        .map_err(|e| wrong(e.to_string()))?;
    if answer.status.is_success() {
        parse(&answer.body).map_err(wrong)
    } else {
        Err(wrong(format!("the answer is {}", answer.status)))
    }
}

/// Keys of other kinds are ignored (RFC 7517, section 5): an issuer may have some for others.
fn parse(bytes: &[u8]) -> Result<Vec<Jwk>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let Set { keys } =
        serde_json::from_slice(bytes).map_err(|e| format!("not a JSON Web Key Set: {e}"))?;
    let known = keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    // An unusable key must not hide a usable one of the same name.
    Ok(known.filter(|key| algorithm_of(key).is_some()).collect())
}

/// The algorithm that a key is for, by its type; `None` if it is not for signatures, or names
/// another algorithm.
pub(crate) fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return None;
    }
    match jwk.common.key_algorithm {
        Some(named) if named.to_string() != format!("{algorithm:?}") => None,
        _ => Some(algorithm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(kid: &str) -> Jwk {
        serde_json::from_value(json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "AA" }))
            .unwrap()
    }

    /// Of an unreachable issuer, confirmed this long ago.
    fn set(keys: &[Jwk], ago: Duration) -> Arc<KeySet> {
        let https = Https::new(Path::new("")).unwrap();
        let source = Source::Url(
            ServiceUrl::parse("http://127.0.0.1:1/jwks").unwrap(),
            Box::new(https),
        );
        let set = KeySet::of(source);
        let then = Instant::now().checked_sub(ago);
        *set.known() = CachedKeys {
            keys: keys.to_vec(),
            seen: None,
            looked: then,
            confirmed: then,
        };
        Arc::new(set)
    }

    #[tokio::test]
    async fn the_keys_of_an_issuer_that_is_gone_are_used_for_an_hour() {
        let minute = Duration::from_secs(60);
        for (minutes, expected) in [
            (0, Ok(key("a"))),
            (11, Ok(key("a"))),
            (59, Ok(key("a"))),
            (60, Err(KeyLookupError::Unreachable)),
        ] {
            assert_eq!(
                set(&[key("a")], minute * minutes).find(Some("a")).await,
                expected,
                "{minutes}"
            );
        }
        assert_eq!(
            set(&[key("a")], minute).find(Some("b")).await,
            Err(KeyLookupError::Unknown)
        );
    }

    #[tokio::test]
    async fn a_set_is_fetched_again_in_time() {
        let due = |seconds, for_unknown| set(&[], Duration::from_secs(seconds)).is_due(for_unknown);
        assert!(!due(599, false) && due(600, false) && !due(4, true) && due(5, true));
        // After a failure sooner.
        let failed = set(&[], Duration::from_secs(5));
        failed.known().confirmed = None;
        assert!(failed.is_due(false));
    }

    #[test]
    fn keys_of_other_kinds_are_ignored() {
        let text = json!({ "keys": [
            { "kty": "EC", "crv": "secp256k1", "kid": "a", "x": "AA", "y": "AA" },
            { "kty": "oct", "kid": "a", "k": "AA" },
            { "kty": "OKP", "crv": "Ed25519", "kid": "a", "use": "enc", "x": "AA" },
            { "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AA" },
        ] });
        assert_eq!(parse(text.to_string().as_bytes()), Ok(vec![key("a")]));
        assert!(parse(b"[]").is_err() && parse(b"<html>").is_err());
    }
}
