//! Tokens of all kinds, good and bad.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn ask(tokens: &Tokens, token: &str) -> Result<Caller, TokenError> {
    run(tokens.caller(token))
}

fn open(config: &BrokerConfig) -> Result<Tokens, KeyError> {
    run(Tokens::new(config, &Https::new(Path::new("")).unwrap()))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn claims() -> Value {
    json!({ "sub": "repo:org/app:main", "aud": "redoubt", "iss": "ci", "exp": now() + 600, "projects": ["app"] })
}

struct Setup {
    _directory: tempfile::TempDir,
    tokens: Tokens,
}

fn setup(secret: bool, keys: &Value) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("secret"), [SECRET, b"\n"].concat()).unwrap();
    fs::write(path("keys"), keys.to_string()).unwrap();
    fs::write(
        path("rules"),
        "[[rule]]\nsubject = 'repo:org/*'\nprojects = ['shared']\n",
    )
    .unwrap();
    let config = BrokerConfig {
        jwt_secret_file: if secret {
            path("secret")
        } else {
            PathBuf::new()
        },
        jwks_file: if secret { PathBuf::new() } else { path("keys") },
        audience: "redoubt".to_owned(),
        issuer: "ci".to_owned(),
        rules_file: path("rules"),
        ..BrokerConfig::default()
    };
    Setup {
        tokens: open(&config).unwrap(),
        _directory: directory,
    }
}

fn hs256(claims: &Value) -> String {
    encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(SECRET),
    )
    .unwrap()
}

fn refused(tokens: &Tokens, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims();
    change(&mut claims);
    ask(tokens, &hs256(&claims)).unwrap_err().to_string()
}

#[test]
fn a_token_names_its_projects_and_rules_add_to_them() {
    let Setup { tokens, .. } = &setup(true, &json!({}));
    let caller = ask(tokens, &hs256(&claims())).unwrap();
    let may = |name: &str| caller.is_allowed(&Project::parse(name).unwrap());
    assert!(may("app") && may("shared"));
    assert!(!may("app2") && !may("ap") && !may("org/app"));
    let mut other = claims();
    other["sub"] = "repo:elsewhere/app".into();
    other["projects"] = json!(["*"]);
    let caller = ask(tokens, &hs256(&other)).unwrap();
    assert!(
        !caller.is_allowed(&Project::parse("shared").unwrap())
            && !caller.is_allowed(&Project::parse("app").unwrap())
    );
}

#[test]
fn expiry_audience_issuer_and_subject_are_checked() {
    let Setup { tokens, .. } = &setup(true, &json!({}));
    assert_eq!(
        refused(tokens, |c| c["exp"] = (now() - 61).into()),
        "ExpiredSignature"
    );
    assert_eq!(
        refused(tokens, |c| c["nbf"] = (now() + 90).into()),
        "ImmatureSignature"
    );
    assert_eq!(
        refused(tokens, |c| c["aud"] = "other".into()),
        "InvalidAudience: it is not for \"redoubt\""
    );
    assert_eq!(
        refused(tokens, |c| c["iss"] = "other".into()),
        "InvalidIssuer: it is not from \"ci\""
    );
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
    let critical = Header {
        crit: Some(vec!["x".to_owned()]),
        ..Header::new(Algorithm::HS256)
    };
    let critical = encode(&critical, &claims(), &EncodingKey::from_secret(SECRET)).unwrap();
    assert!(matches!(ask(tokens, &critical), Err(TokenError::Critical)));
    for header in [json!({ "alg": "none" }), json!({ "alg": "None" })] {
        assert!(
            ask(tokens, &with_header(&header, &claims(), "")).is_err(),
            "{header}"
        );
    }
    let hs512 = encode(
        &Header::new(Algorithm::HS512),
        &claims(),
        &EncodingKey::from_secret(SECRET),
    )
    .unwrap();
    assert_eq!(
        ask(tokens, &hs512).unwrap_err().to_string(),
        "InvalidAlgorithm"
    );
    let long = format!("{}{}", hs256(&claims()), "a".repeat(MAX_TOKEN));
    assert!(matches!(ask(tokens, &long), Err(TokenError::TooLong)));
    for garbage in ["", ".", "..", "a.b.c", &"x".repeat(MAX_TOKEN)] {
        assert!(ask(tokens, garbage).is_err(), "{garbage:.9}");
    }
    let mut flipped = hs256(&claims()).into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(ask(tokens, &String::from_utf8_lossy(&flipped)).is_err());
}

/// The public key of an issuer is no secret: who signs with it as if it were one must not be
/// believed.
#[test]
fn public_keys_are_found_by_name_and_used_for_their_own_algorithm() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let key =
        |kid: &str| json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x });
    let Setup {
        tokens,
        _directory: directory,
    } = &setup(false, &json!({ "keys": [key("one"), key("two")] }));
    let sign = |kid: Option<&str>| {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(Algorithm::EdDSA)
        };
        encode(
            &header,
            &claims(),
            &EncodingKey::from_ed_der(pkcs8.as_ref()),
        )
        .unwrap()
    };
    assert!(ask(tokens, &sign(Some("one"))).is_ok());
    for kid in [None, Some("three"), Some("../../etc/passwd"), Some("")] {
        assert!(
            matches!(ask(tokens, &sign(kid)), Err(TokenError::UnknownKey)),
            "{kid:?}"
        );
    }
    let header = Header {
        kid: Some("one".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let confused = encode(&header, &claims(), &EncodingKey::from_secret(x.as_bytes())).unwrap();
    assert!(ask(tokens, &confused).is_err());
    assert!(directory.path().join("keys").is_file());
}

#[test]
fn says_what_is_wrong_with_its_configuration() {
    let message = |config: BrokerConfig| open(&config).unwrap_err().to_string();
    let config = BrokerConfig {
        audience: "a".to_owned(),
        ..BrokerConfig::default()
    };
    assert!(message(config.clone()).contains("name one of"));
    assert!(
        message(BrokerConfig {
            audience: String::new(),
            ..config.clone()
        })
        .contains("audience is empty")
    );
    let directory = tempfile::tempdir().unwrap();
    let short = directory.path().join("short");
    fs::write(&short, "x".repeat(31)).unwrap();
    assert!(
        message(BrokerConfig {
            jwt_secret_file: short,
            ..config
        })
        .contains("32 bytes or more")
    );
}
