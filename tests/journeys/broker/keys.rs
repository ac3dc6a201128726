//! Keys of tokens: in a file, or at the issuer's URL.

use super::DOCKER;
use super::issuer::{ALGORITHMS, Issuer};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::pem_of;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tests::broker::{Broker, claims, signed, unsigned};
use tests::hostile::{FakeRegistry, answer};
use tests::wait_for;

fn status(broker: &Broker, token: &str) -> u16 {
    broker.ask("?project=my-app", Some(token)).0
}

/// With a file of the issuer's keys.
fn broker_with_keys_of(issuer: &Issuer) -> (Broker, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, issuer.keys().to_string()).unwrap();
    let file = [("HOST_PROXY_BROKER__JWKS_FILE", path.to_str().unwrap())];
    let broker = Broker::start_in(folder, &[&DOCKER[..], &file].concat());
    (broker, path)
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn tokens_of_every_kind_are_checked_with_a_file_of_keys() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let (broker, path) = broker_with_keys_of(&issuer);
    for algorithm in ALGORITHMS {
        let found = [&issuer, &stranger].map(|who| status(&broker, &who.token(algorithm)));
        assert_eq!(found, [200, 401], "{algorithm}");
    }
    // The issuer changes its keys.
    std::fs::write(&path, stranger.keys().to_string()).unwrap();
    wait_for("the new keys", 30, || {
        status(&broker, &stranger.token("ES256")) == 200
    });
    assert_eq!(status(&broker, &issuer.token("ES256")), 401);
}

/// Who signs with it as if it were one is not believed, in whatever form they take it.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_public_key_is_no_secret() {
    let issuer = Issuer::new();
    let (broker, _) = broker_with_keys_of(&issuer);
    let modulus = issuer.keys()["keys"][1]["n"].as_str().unwrap().to_owned();
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(issuer.rsa.public_key()).unwrap();
    for (key, form) in [
        (modulus.as_bytes(), "n"),
        (&URL_SAFE_NO_PAD.decode(&modulus).unwrap(), "the modulus"),
        (der.as_ref(), "DER"),
        (pem_of("PUBLIC KEY", der.as_ref()).as_bytes(), "PEM"),
    ] {
        let header = json!({ "alg": "HS256", "kid": "RS256" });
        let text = unsigned(&header, &claims("stranger", &["my-app"]));
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let forged = signed(&text, hmac::sign(&key, text.as_bytes()).as_ref());
        assert_eq!(status(&broker, &forged), 401, "{form}");
    }
}

/// A status and a body.
type Published = Arc<Mutex<(u16, Value)>>;

/// An issuer's URL, which answers what is published.
async fn issuers_server(published: &Published) -> FakeRegistry {
    let shown = published.clone();
    FakeRegistry::start(move |_| {
        let (status, body) = shown.lock().unwrap().clone();
        let json = ("content-type", "application/json");
        answer(status, &[json], body.to_string())
    })
    .await
}

/// Of nobody, with a key that is not known.
fn unknown_key(kid: &str) -> String {
    let text = unsigned(&json!({ "alg": "ES256", "kid": kid }), &claims("x", &[]));
    signed(&text, &[0; 64])
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn an_issuers_address_is_asked_for_keys_and_again_when_they_change() {
    let (first, second) = (Issuer::new(), Issuer::new());
    let published = Published::new(Mutex::new((503, json!({ "message": "starting" }))));
    let server = issuers_server(&published).await;
    let url = format!("http://{}/.well-known/jwks", server.host());
    let keys = [("HOST_PROXY_BROKER__JWKS_URL", url.as_str())];
    let settings = [&DOCKER[..], &keys].concat();
    let broker = Broker::start_in(TempDir::new().unwrap(), &settings);
    let ask = |issuer: &Issuer| status(&broker, &issuer.token("ES256"));
    // A daemon that starts before its issuer can check nothing yet, and says so.
    assert_eq!(ask(&first), 503);
    *published.lock().unwrap() = (200, first.keys());
    wait_for("the first keys", 30, || ask(&first) == 200);
    *published.lock().unwrap() = (200, second.keys());
    wait_for("the rotation", 30, || {
        // The names of the keys are the same: only one that is not known makes the broker look at
        // once.
        assert_eq!(status(&broker, &unknown_key("new")), 401);
        ask(&second) == 200
    });
    assert_eq!(
        ask(&first),
        401,
        "what the issuer took back is not believed"
    );
    strangers_cannot_make_it_ask(&broker, &server);
    assert_eq!(ask(&second), 200);
}

/// All the time.
fn strangers_cannot_make_it_ask(broker: &Broker, server: &FakeRegistry) {
    let before = server.asked().len();
    for _ in 0..50 {
        assert_eq!(status(broker, &unknown_key("none")), 401);
    }
    let asked = server.asked().len() - before;
    assert!(asked <= 1, "{asked} questions");
}
