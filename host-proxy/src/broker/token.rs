//! Who asks: JSON Web Tokens (RFC 7519), by a shared secret or by the public keys of an issuer, and which projects they may ask for.
//!
//! The kind of key decides the algorithms, never the token: HS256 for the secret, RS256, ES256 or EdDSA for what the key set says.

use super::BrokerConfig;
use super::project::Project;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

/// The longest token that is looked at, in bytes; header lines end at 16 KiB anyway.
const MAX_TOKEN: usize = 8 * 1024;
/// How far the issuer's clock may be off, in seconds.
const LEEWAY: u64 = 60;
/// A key set or a rule file is some KiB. In bytes.
const MAX_FILE: u64 = 1 << 20;
/// An unknown key makes the file be read again, but not more often than this.
const REREAD: Duration = Duration::from_secs(5);
/// RFC 7518, 3.2: as long as the hash.
const MIN_SECRET: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("name one of broker.jwt_secret_file and broker.jwks_file")]
    NoKeys,
    #[error("broker.audience is empty: tokens for other services would be taken")]
    NoAudience,
}

/// Why a token is not taken. For the log; the caller hears 401 and no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("it is longer than {MAX_TOKEN} bytes")]
    TooLong,
    #[error("it is signed with a key that is not known")]
    UnknownKey,
    #[error("its algorithm is not that of its key")]
    Algorithm,
    #[error("{0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
}

/// Who asks, and for what he may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) subject: String,
    projects: Vec<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Names of projects, whole.
    #[serde(default)]
    projects: Vec<String>,
}

/// `[[rule]]` of the rule file: what a subject may ask for beside its token's own `projects`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Whole, or a beginning that ends in `*`.
    subject: String,
    projects: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    rule: Vec<Rule>,
}

impl Caller {
    pub(super) fn may(&self, project: &Project) -> bool {
        self.projects.iter().any(|name| name == project.as_str())
    }
}

enum Keys {
    Secret(DecodingKey),
    Set(KeySet),
}

/// A file of public keys (RFC 7517), read again when it changes or when a token names a key that is not in it.
struct KeySet {
    path: PathBuf,
    read: Mutex<(JwkSet, Option<SystemTime>, Instant)>,
}

pub(super) struct Tokens {
    keys: Keys,
    audience: String,
    issuer: String,
    rules: Rules,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    pub(super) fn new(config: &BrokerConfig) -> Result<Tokens, KeyError> {
        let BrokerConfig { jwt_secret_file, jwks_file, audience, issuer, rules_file, .. } = config;
        let named = |path: &Path| !path.as_os_str().is_empty();
        if audience.is_empty() {
            return Err(KeyError::NoAudience);
        }
        let keys = match (named(jwt_secret_file), named(jwks_file)) {
            (true, false) => Keys::Secret(secret(jwt_secret_file)?),
            (false, true) => Keys::Set(KeySet::read(jwks_file)?),
            _ => return Err(KeyError::NoKeys),
        };
        let rules = match named(rules_file) {
            false => Rules::default(),
            true => {
                let text = String::from_utf8_lossy(&bounded(rules_file)?).into_owned();
                toml::from_str(&text).map_err(|e| file(rules_file, e))?
            }
        };
        Ok(Tokens { keys, audience: audience.clone(), issuer: issuer.clone(), rules })
    }

    pub(super) fn caller(&self, token: &str) -> Result<Caller, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let claims = match &self.keys {
            Keys::Secret(key) => self.claims(token, key, Algorithm::HS256)?,
            Keys::Set(set) => {
                let kid = decode_header(token)?.kid;
                let jwk = set.find(kid.as_deref()).ok_or(TokenError::UnknownKey)?;
                let algorithm = algorithm_of(&jwk).ok_or(TokenError::Algorithm)?;
                self.claims(token, &DecodingKey::from_jwk(&jwk)?, algorithm)?
            }
        };
        let Claims { sub: subject, mut projects } = claims;
        let matching = self.rules.rule.iter().filter(|rule| rule.covers(&subject));
        projects.extend(matching.flat_map(|rule| rule.projects.clone()));
        Ok(Caller { subject, projects })
    }

    fn claims(&self, token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        let mut required = vec!["exp", "aud", "sub"];
        if !self.issuer.is_empty() {
            validation.set_issuer(&[&self.issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Ok(decode(token, key, &validation)?.claims)
    }
}

impl Rule {
    fn covers(&self, subject: &str) -> bool {
        match self.subject.strip_suffix('*') {
            Some(beginning) => subject.starts_with(beginning),
            None => self.subject == subject,
        }
    }
}

fn file(path: &Path, problem: impl std::fmt::Display) -> KeyError {
    KeyError::File { path: path.to_owned(), problem: problem.to_string().trim_end().to_owned() }
}

fn bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let len = fs::metadata(path).map_err(|e| file(path, e))?.len();
    match len <= MAX_FILE {
        true => fs::read(path).map(Zeroizing::new).map_err(|e| file(path, e)),
        false => Err(file(path, format!("longer than {MAX_FILE} bytes"))),
    }
}

fn secret(path: &Path) -> Result<DecodingKey, KeyError> {
    let bytes = bounded(path)?;
    let secret = bytes.trim_ascii();
    match secret.len() >= MIN_SECRET {
        true => Ok(DecodingKey::from_secret(secret)),
        false => Err(file(path, format!("a secret for HS256 has {MIN_SECRET} bytes or more"))),
    }
}

/// The algorithm that a key is for, by its type; and by its own word, if it has one.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    match jwk.common.key_algorithm {
        Some(named) if named.to_string() != format!("{algorithm:?}") => None,
        _ => Some(algorithm),
    }
}

impl KeySet {
    fn read(path: &Path) -> Result<KeySet, KeyError> {
        let (set, modified) = load(path)?;
        Ok(KeySet { path: path.to_owned(), read: Mutex::new((set, modified, Instant::now())) })
    }

    /// By its name; a set of one key needs none.
    fn find(&self, kid: Option<&str>) -> Option<Jwk> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.2.elapsed() >= REREAD {
            read.2 = Instant::now();
            let changed = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok() != read.1;
            if changed {
                match load(&self.path) {
                    Ok((set, modified)) => (read.0, read.1) = (set, modified),
                    Err(error) => tracing::warn!(%error, "the key set cannot be read; the old one is used"),
                }
            }
        }
        match (kid, read.0.keys.as_slice()) {
            (Some(kid), _) => read.0.find(kid).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }
}

fn load(path: &Path) -> Result<(JwkSet, Option<SystemTime>), KeyError> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let set = serde_json::from_slice(&bounded(path)?).map_err(|e| file(path, e))?;
    Ok((set, modified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn now() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    fn claims() -> Value {
        json!({ "sub": "repo:org/app:main", "aud": "redoubt", "iss": "ci", "exp": now() + 600, "projects": ["app"] })
    }

    struct Setup {
        _folder: tempfile::TempDir,
        tokens: Tokens,
    }

    fn setup(secret: bool, keys: &Value) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("secret"), [SECRET, b"\n"].concat()).unwrap();
        fs::write(path("keys"), keys.to_string()).unwrap();
        fs::write(path("rules"), "[[rule]]\nsubject = 'repo:org/*'\nprojects = ['shared']\n").unwrap();
        let config = BrokerConfig {
            jwt_secret_file: if secret { path("secret") } else { PathBuf::new() },
            jwks_file: if secret { PathBuf::new() } else { path("keys") },
            audience: "redoubt".to_owned(),
            issuer: "ci".to_owned(),
            rules_file: path("rules"),
            ..BrokerConfig::default()
        };
        Setup { tokens: Tokens::new(&config).unwrap(), _folder: folder }
    }

    fn hs256(claims: &Value) -> String {
        encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
    }

    fn refused(tokens: &Tokens, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        tokens.caller(&hs256(&claims)).unwrap_err().to_string()
    }

    #[test]
    fn a_token_names_its_projects_and_rules_add_to_them() {
        let Setup { tokens, .. } = &setup(true, &json!({}));
        let caller = tokens.caller(&hs256(&claims())).unwrap();
        let may = |name: &str| caller.may(&Project::parse(name).unwrap());
        assert!(may("app") && may("shared"));
        assert!(!may("app2") && !may("ap") && !may("org/app"));
        let mut other = claims();
        other["sub"] = "repo:elsewhere/app".into();
        other["projects"] = json!(["*"]);
        let caller = tokens.caller(&hs256(&other)).unwrap();
        assert!(
            !caller.may(&Project::parse("shared").unwrap()) && !caller.may(&Project::parse("app").unwrap())
        );
    }

    #[test]
    fn expiry_audience_issuer_and_subject_are_checked() {
        let Setup { tokens, .. } = &setup(true, &json!({}));
        assert_eq!(refused(tokens, |c| c["exp"] = (now() - 61).into()), "ExpiredSignature");
        assert_eq!(refused(tokens, |c| c["nbf"] = (now() + 90).into()), "ImmatureSignature");
        assert_eq!(refused(tokens, |c| c["aud"] = "other".into()), "InvalidAudience");
        assert_eq!(refused(tokens, |c| c["iss"] = "other".into()), "InvalidIssuer");
        for claim in ["exp", "aud", "iss", "sub"] {
            let why = refused(tokens, |c| drop(c.as_object_mut().unwrap().remove(claim)));
            assert!(why.contains(claim), "{claim}: {why}");
        }
    }

    fn with_header(header: &Value, claims: &Value, signature: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", part(header), part(claims))
    }

    #[test]
    fn the_key_decides_the_algorithm() {
        let Setup { tokens, .. } = &setup(true, &json!({}));
        for header in
            [json!({ "alg": "none" }), json!({ "alg": "None" }), json!({ "alg": "HS256", "crit": ["x"] })]
        {
            assert!(tokens.caller(&with_header(&header, &claims(), "")).is_err(), "{header}");
        }
        let hs512 =
            encode(&Header::new(Algorithm::HS512), &claims(), &EncodingKey::from_secret(SECRET)).unwrap();
        assert_eq!(tokens.caller(&hs512).unwrap_err().to_string(), "InvalidAlgorithm");
        let long = format!("{}{}", hs256(&claims()), "a".repeat(MAX_TOKEN));
        assert!(matches!(tokens.caller(&long), Err(TokenError::TooLong)));
        for garbage in ["", ".", "..", "a.b.c", &"x".repeat(MAX_TOKEN)] {
            assert!(tokens.caller(garbage).is_err(), "{garbage:.9}");
        }
        let mut flipped = hs256(&claims()).into_bytes();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        assert!(tokens.caller(&String::from_utf8_lossy(&flipped)).is_err());
    }

    /// The public key of an issuer is no secret: who signs with it as if it were one must not be believed.
    #[test]
    fn public_keys_are_found_by_name_and_used_for_their_own_algorithm() {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
        let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let key = |kid: &str| json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x });
        let Setup { tokens, _folder: folder } = &setup(false, &json!({ "keys": [key("one"), key("two")] }));
        let sign = |kid: Option<&str>| {
            let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
            encode(&header, &claims(), &EncodingKey::from_ed_der(pkcs8.as_ref())).unwrap()
        };
        assert!(tokens.caller(&sign(Some("one"))).is_ok());
        for kid in [None, Some("three"), Some("../../etc/passwd"), Some("")] {
            assert!(matches!(tokens.caller(&sign(kid)), Err(TokenError::UnknownKey)), "{kid:?}");
        }
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
        let confused = encode(&header, &claims(), &EncodingKey::from_secret(x.as_bytes())).unwrap();
        assert!(tokens.caller(&confused).is_err());
        assert!(folder.path().join("keys").is_file());
    }

    #[test]
    fn says_what_is_wrong_with_its_configuration() {
        let message = |config: BrokerConfig| Tokens::new(&config).unwrap_err().to_string();
        let config = BrokerConfig { audience: "a".to_owned(), ..BrokerConfig::default() };
        assert!(message(config.clone()).contains("name one of"));
        assert!(
            message(BrokerConfig { audience: String::new(), ..config.clone() }).contains("audience is empty")
        );
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("short");
        fs::write(&short, "x".repeat(31)).unwrap();
        assert!(message(BrokerConfig { jwt_secret_file: short, ..config }).contains("32 bytes or more"));
    }
}
