//! The keys that tokens are signed with: a shared secret, or the public keys of an issuer (JWKS, RFC 7517) from a file or an address.
//!
//! A file is read again when it changes. An address is asked every ten minutes, and at once (but not more than every five seconds) for a
//! key that is not known: that is how issuers rotate. An issuer that cannot be reached, or a file that is gone, is believed for an hour;
//! then tokens cannot be checked, since a key that it has taken back would never be noticed.

use super::BrokerConfig;
use super::token::algorithm_of;
use super::watch::{Stamp, Watch, stamp};
use bytes::Bytes;
use http_body_util::Full;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use oci::https::{Https, HttpsError, ServiceUrl};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A key set or a rule file is some KiB. In bytes.
const MAX_FILE: u64 = 1 << 20;
/// A key set is not read again more often than this.
const REREAD: Duration = Duration::from_secs(5);
const REFRESH: Duration = Duration::from_secs(10 * 60);
const BELIEVED: Duration = Duration::from_secs(60 * 60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// RFC 7518, 3.2: as long as the hash.
const MIN_SECRET: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error(transparent)]
    Address(#[from] HttpsError),
    #[error("{url}: {problem}")]
    Fetch { url: String, problem: String },
    #[error("name one of broker.jwt_secret_file, broker.jwks_file and broker.jwks_url")]
    NoKeys,
    #[error("broker.audience is empty: tokens for other services would be taken")]
    NoAudience,
}

pub(super) enum Keys {
    Secret(SecretFile),
    Set(Arc<KeySet>),
}

impl Keys {
    /// An address that does not answer is no error here: the daemon must be able to start before its issuer.
    pub(super) async fn open(config: &BrokerConfig, https: &Https) -> Result<Keys, KeyError> {
        let BrokerConfig {
            jwt_secret_file,
            jwks_file,
            jwks_url,
            ..
        } = config;
        let named = |path: &Path| !path.as_os_str().is_empty();
        match (named(jwt_secret_file), named(jwks_file), jwks_url.as_str()) {
            (true, false, "") => Ok(Keys::Secret(SecretFile::open(jwt_secret_file)?)),
            (false, true, "") => {
                let set = KeySet::of(Source::File(jwks_file.clone()));
                set.read_file(jwks_file)?;
                Ok(Keys::Set(Arc::new(set)))
            }
            (false, false, url) if !url.is_empty() => {
                let set = KeySet::of(Source::Url(
                    ServiceUrl::parse(url)?,
                    Box::new(https.clone()),
                ));
                set.refresh(false).await;
                Ok(Keys::Set(Arc::new(set)))
            }
            _ => Err(KeyError::NoKeys),
        }
    }
}

/// Read again when it changes; one that cannot be used leaves the secret as it was.
pub(super) struct SecretFile {
    path: PathBuf,
    current: Mutex<(Watch, DecodingKey)>,
}

impl SecretFile {
    fn open(path: &Path) -> Result<SecretFile, KeyError> {
        let current = (Watch::new(vec![path.to_owned()]), secret(path)?);
        Ok(SecretFile {
            path: path.to_owned(),
            current: Mutex::new(current),
        })
    }

    pub(super) fn key(&self) -> DecodingKey {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.0.reread(|| secret(&self.path)) {
            Some(Ok(key)) => current.1 = key,
            Some(Err(error)) => {
                tracing::warn!(%error, "the secret cannot be read; the one before holds")
            }
            None => {}
        }
        current.1.clone()
    }
}

pub(super) struct KeySet {
    source: Source,
    known: Mutex<Known>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
}

enum Source {
    File(PathBuf),
    Url(ServiceUrl, Box<Https>),
}

#[derive(Default)]
struct Known {
    keys: Vec<Jwk>,
    /// Of the file.
    seen: Option<Stamp>,
    looked: Option<Instant>,
    /// When it was last seen to be what the issuer says.
    confirmed: Option<Instant>,
}

/// Why there is no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Unknown,
    /// The issuer could not be asked for too long.
    Unreachable,
}

impl KeySet {
    fn of(source: Source) -> KeySet {
        KeySet {
            source,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By its name; a set of one key needs none.
    pub(super) async fn find(self: &Arc<Self>, kid: Option<&str>) -> Result<Jwk, Missing> {
        if let Source::File(path) = &self.source {
            if self
                .known()
                .looked
                .is_none_or(|looked| looked.elapsed() >= REREAD)
                && let Err(error) = self.read_file(path)
            {
                tracing::warn!(%error, "the key set cannot be read; the old one is used");
            }
            return self.known().find_confirmed(kid);
        }
        let found = self.known().find(kid).is_some();
        match found {
            false => self.refresh(true).await,
            true if self.is_due(false) => {
                // Nobody waits for an issuer whose key is known.
                let set = self.clone();
                tokio::spawn(async move { set.refresh(false).await });
            }
            true => {}
        }
        self.known().find_confirmed(kid)
    }

    fn is_due(&self, for_unknown: bool) -> bool {
        let known = self.known();
        // After a failure, and for a key that is not known, soon; otherwise every now and then.
        let failed = known.confirmed != known.looked;
        let pause = if for_unknown || failed {
            REREAD
        } else {
            REFRESH
        };
        known.looked.is_none_or(|looked| looked.elapsed() >= pause)
    }

    async fn refresh(&self, for_unknown: bool) {
        let Source::Url(url, https) = &self.source else {
            return;
        };
        let _one = self.asking.lock().await;
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
                tracing::warn!(%error, "the issuer's keys cannot be fetched; those that are known are used")
            }
        }
    }

    fn read_file(&self, path: &Path) -> Result<(), KeyError> {
        let mut known = self.known();
        known.looked = Some(Instant::now());
        let seen = stamp(path);
        if seen.is_none() || seen != known.seen {
            known.keys = parse(&bounded(path)?).map_err(|problem| file(path, problem))?;
            known.seen = seen;
        }
        known.confirmed = Some(Instant::now());
        Ok(())
    }
}

impl Known {
    fn find_confirmed(&self, kid: Option<&str>) -> Result<Jwk, Missing> {
        match self
            .confirmed
            .is_some_and(|confirmed| confirmed.elapsed() < BELIEVED)
        {
            true => self.find(kid).ok_or(Missing::Unknown),
            false => Err(Missing::Unreachable),
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
    match answer.status.is_success() {
        true => parse(&answer.body).map_err(wrong),
        false => Err(wrong(format!("the answer is {}", answer.status))),
    }
}

/// Keys of kinds that are not known here are passed over (RFC 7517, 5): an issuer may have some for others.
fn parse(bytes: &[u8]) -> Result<Vec<Jwk>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let Set { keys } =
        serde_json::from_slice(bytes).map_err(|e| format!("it is no key set: {e}"))?;
    let known = keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    // Those that are no use here must not stand before one of the same name that is.
    Ok(known.filter(|key| algorithm_of(key).is_some()).collect())
}

pub(super) fn file(path: &Path, problem: impl std::fmt::Display) -> KeyError {
    KeyError::File {
        path: path.to_owned(),
        problem: problem.to_string().trim_end().to_owned(),
    }
}

pub(super) fn bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let len = fs::metadata(path).map_err(|e| file(path, e))?.len();
    match len <= MAX_FILE {
        true => fs::read(path)
            .map(Zeroizing::new)
            .map_err(|e| file(path, e)),
        false => Err(file(path, format!("longer than {MAX_FILE} bytes"))),
    }
}

fn secret(path: &Path) -> Result<DecodingKey, KeyError> {
    let bytes = bounded(path)?;
    let secret = bytes.trim_ascii();
    match secret.len() >= MIN_SECRET {
        true => Ok(DecodingKey::from_secret(secret)),
        false => Err(file(
            path,
            format!("a secret for HS256 has {MIN_SECRET} bytes or more"),
        )),
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

    /// Of an issuer that nobody can reach, and that said this so long ago.
    fn set(keys: &[Jwk], ago: Duration) -> Arc<KeySet> {
        let https = Https::new(Path::new("")).unwrap();
        let source = Source::Url(
            ServiceUrl::parse("http://127.0.0.1:1/jwks").unwrap(),
            Box::new(https),
        );
        let set = KeySet::of(source);
        let then = Instant::now().checked_sub(ago);
        *set.known() = Known {
            keys: keys.to_vec(),
            seen: None,
            looked: then,
            confirmed: then,
        };
        Arc::new(set)
    }

    #[tokio::test]
    async fn an_issuer_that_is_gone_is_believed_for_an_hour() {
        let minute = Duration::from_secs(60);
        for (minutes, expected) in [
            (0, Ok(key("a"))),
            (11, Ok(key("a"))),
            (59, Ok(key("a"))),
            (60, Err(Missing::Unreachable)),
        ] {
            assert_eq!(
                set(&[key("a")], minute * minutes).find(Some("a")).await,
                expected,
                "{minutes}"
            );
        }
        assert_eq!(
            set(&[key("a")], minute).find(Some("b")).await,
            Err(Missing::Unknown)
        );
    }

    #[tokio::test]
    async fn a_set_is_asked_for_again_in_time() {
        let due = |seconds, for_unknown| set(&[], Duration::from_secs(seconds)).is_due(for_unknown);
        assert!(!due(599, false) && due(600, false) && !due(4, true) && due(5, true));
        // After a failure sooner.
        let failed = set(&[], Duration::from_secs(5));
        failed.known().confirmed = None;
        assert!(failed.is_due(false));
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over() {
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
