//! The credential broker, as a CI job meets it.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tests::broker::{Broker, SECRET, claims, signed, token, unsigned};
use tests::hostile::{FakeRegistry, answer};
use tests::pki::{Server, pem, pem_of, server};
use tests::programs::{ours, run};
use tests::wait_for;

const DOCKER: [(&str, &str); 2] = [
    ("HOST_PROXY_REGISTRY__TYPE", "docker"),
    ("HOST_PROXY_REGISTRY__REGISTRY_URL", "localhost:5000"),
];

#[test]
fn a_job_learns_where_to_push_and_nobody_learns_what_exists() {
    let more = [
        ("HOST_PROXY_REGISTRY__NAMESPACE", "rise-apps"),
        ("HOST_PROXY_BROKER__RATE_PER_MINUTE", "7"),
    ];
    let broker = Broker::start(&[&DOCKER[..], &more].concat());
    let mine = token("ci", &["my-app"], SECRET);
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    let expected = json!({
        "credentials": { "registry_url": "localhost:5000", "username": "", "password": "", "expires_in": null },
        "repository": "my-app",
    });
    assert_eq!((status, answer), (200, expected));
    // Unknown and forbidden look the same.
    let (status, unknown) = broker.ask("?project=no-such-app", Some(&mine));
    let (_, hostile) = broker.ask("?project=my-*", Some(&token("ci", &["my-*"], SECRET)));
    assert_eq!((status, &unknown), (404, &hostile));
    assert_eq!(
        broker.ask("?project=my-app&action=delete", Some(&mine)).0,
        400
    );
    assert_eq!(
        broker.ask("?project=my-app&action=pull", Some(&mine)).0,
        200
    );
    for wrong in [
        None,
        Some(""),
        Some("x.y.z"),
        Some(token("ci", &["my-app"], &[7; 32]).as_str()),
    ] {
        assert_eq!(broker.ask("?project=my-app", wrong).0, 401, "{wrong:?}");
    }
    // Five questions were asked in this name so far.
    assert_eq!(broker.ask("?project=my-app", Some(&mine)).0, 200);
    assert_eq!(broker.ask("?project=my-app", Some(&mine)).0, 200);
    let (head, _) = broker.exchange("?project=my-app", Some(&mine));
    assert!(
        head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 60"),
        "{head}"
    );
    assert_eq!(
        broker
            .ask(
                "?project=my-app",
                Some(&token("other", &["my-app"], SECRET))
            )
            .0,
        200
    );
    let log = broker.daemon.log();
    assert!(
        log.contains("registry URL returned")
            && log.contains("no such project, or not this caller's"),
        "{log}"
    );
    assert!(!log.contains(&mine), "a token is a secret too");
    // What a stranger writes into a token cannot make a line of its own.
    let forged = unsigned(
        &json!({ "alg": "x\n2026-01-01 INFO audit: credentials issued to=stranger" }),
        &claims("x", &[]),
    );
    assert_eq!(
        broker
            .ask("?project=my-app", Some(&signed(&forged, b"x")))
            .0,
        401
    );
    let log = broker.daemon.log();
    let line = log.lines().find(|line| line.contains("to=stranger"));
    assert!(
        line.is_none_or(|line| line.contains("a token was refused")),
        "{log}"
    );
    let id = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "))
        .unwrap();
    assert!(
        log.lines()
            .any(|line| line.contains(id) && line.contains("too many requests")),
        "{id} in {log}"
    );
}

#[test]
fn what_was_asked_is_counted() {
    let broker = Broker::start(&DOCKER);
    let mine = token("ci", &["my-app"], SECRET);
    assert_eq!(broker.ask("?project=my-app", Some(&mine)).0, 200);
    assert_eq!(broker.ask("?project=my-app", None).0, 401);
    let socket = broker.daemon.folder().join("run/api.sock");
    let metrics = run(Command::new("curl")
        .args(["-sSf", "--unix-socket"])
        .arg(socket)
        .arg("http://host-proxy/metrics"));
    for line in [
        "redoubt_broker_answers_total{status=\"200\"} 1",
        "redoubt_broker_answers_total{status=\"401\"} 1",
        "redoubt_broker_upstream_total{action=\"push\",outcome=\"issued\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn rules_and_secrets_that_change_hold_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (rules, secret) = (
        folder.path().join("rules.toml"),
        folder.path().join("secret"),
    );
    let write = |project: &str| {
        std::fs::write(
            &rules,
            format!("[[rule]]\nsubject = 'repo:org/app:*'\nprojects = ['{project}']"),
        )
        .unwrap();
    };
    write("first");
    std::fs::write(&secret, SECRET).unwrap();
    let files = [
        (
            "HOST_PROXY_BROKER__JWT_SECRET_FILE",
            secret.to_str().unwrap(),
        ),
        ("HOST_PROXY_BROKER__RULES_FILE", rules.to_str().unwrap()),
        ("HOST_PROXY_BROKER__RATE_PER_MINUTE", "100000"),
    ];
    let broker = Broker::start_in(folder, &[&DOCKER[..], &files].concat());
    let job = token("repo:org/app:main", &[], SECRET);
    let ask = |project: &str| broker.ask(&format!("?project={project}"), Some(&job)).0;
    assert_eq!((ask("first"), ask("second")), (200, 404));
    // So does the secret: what was signed with the one before is nothing any more.
    let fresh = [b'z'; 40];
    let after = token("repo:org/app:main", &[], &fresh);
    assert_eq!(broker.ask("?project=first", Some(&after)).0, 401);
    std::fs::write(&secret, fresh).unwrap();
    wait_for("the new secret", 30, || {
        broker.ask("?project=first", Some(&after)).0 == 200
    });
    assert_eq!(ask("first"), 401);
    std::fs::write(&secret, SECRET).unwrap();
    wait_for("the secret before", 30, || ask("first") == 200);
    write("second");
    wait_for("the new rules", 30, || ask("second") == 200);
    assert_eq!(ask("first"), 404);
    // A mistake leaves them as they are.
    write("not a name");
    wait_for("the mistake", 30, || {
        assert_eq!(ask("second"), 200);
        broker
            .daemon
            .log()
            .contains("the previous rules stay in effect")
    });
    assert_eq!(
        broker
            .ask(
                "?project=second",
                Some(&token("repo:org/other:main", &[], SECRET))
            )
            .0,
        404
    );
}

/// Of each kind that an issuer may sign with.
struct Issuer {
    rsa: RsaKeyPair,
    ecdsa: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Issuer {
        let random = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
        Issuer {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ecdsa: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(),
        }
    }

    /// RFC 7517 and 8037; one key is of a kind that Redoubt does not know.
    fn keys(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let rsa = self.rsa.public_key();
        let point = self.ecdsa.public_key().as_ref();
        json!({ "keys": [
            { "kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AA", "y": "AA" },
            { "kty": "RSA", "kid": "RS256", "use": "sig", "alg": "RS256",
              "n": text(rsa.modulus().big_endian_without_leading_zero()),
              "e": text(rsa.exponent().big_endian_without_leading_zero()) },
            { "kty": "EC", "crv": "P-256", "kid": "ES256", "x": text(&point[1..33]), "y": text(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "x": text(self.ed25519.public_key().as_ref()) },
        ] })
    }

    fn token(&self, algorithm: &str) -> String {
        let text = unsigned(
            &json!({ "alg": algorithm, "kid": algorithm }),
            &claims("repo:org/app:main", &["my-app"]),
        );
        let random = SystemRandom::new();
        let signature = match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            "ES256" => self
                .ecdsa
                .sign(&random, text.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            _ => self.ed25519.sign(text.as_bytes()).as_ref().to_vec(),
        };
        signed(&text, &signature)
    }
}

const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

#[test]
fn tokens_of_every_kind_are_checked_with_a_file_of_keys() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, issuer.keys().to_string()).unwrap();
    let file = [("HOST_PROXY_BROKER__JWKS_FILE", path.to_str().unwrap())];
    let broker = Broker::start_in(folder, &[&DOCKER[..], &file].concat());
    for algorithm in ALGORITHMS {
        assert_eq!(
            broker
                .ask("?project=my-app", Some(&issuer.token(algorithm)))
                .0,
            200,
            "{algorithm}"
        );
        assert_eq!(
            broker
                .ask("?project=my-app", Some(&stranger.token(algorithm)))
                .0,
            401,
            "{algorithm}"
        );
    }
    // A public key is no secret: who signs with it as if it were one is not believed, in whatever form he takes it.
    let modulus = issuer.keys()["keys"][1]["n"].as_str().unwrap().to_owned();
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(issuer.rsa.public_key()).unwrap();
    for (key, form) in [
        (modulus.as_bytes(), "n"),
        (&URL_SAFE_NO_PAD.decode(&modulus).unwrap(), "the modulus"),
        (der.as_ref(), "DER"),
        (pem_of("PUBLIC KEY", der.as_ref()).as_bytes(), "PEM"),
    ] {
        let text = unsigned(
            &json!({ "alg": "HS256", "kid": "RS256" }),
            &claims("stranger", &["my-app"]),
        );
        let forged = signed(
            &text,
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref(),
        );
        assert_eq!(
            broker.ask("?project=my-app", Some(&forged)).0,
            401,
            "{form}"
        );
    }
    // The issuer changes its keys.
    std::fs::write(&path, stranger.keys().to_string()).unwrap();
    wait_for("the new keys", 30, || {
        broker
            .ask("?project=my-app", Some(&stranger.token("ES256")))
            .0
            == 200
    });
    assert_eq!(
        broker
            .ask("?project=my-app", Some(&issuer.token("ES256")))
            .0,
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_address_is_asked_for_keys_and_again_when_they_change() {
    let (first, second) = (Issuer::new(), Issuer::new());
    let published = Arc::new(Mutex::new((503, json!({ "message": "starting" }))));
    let shown = published.clone();
    let server = FakeRegistry::start(move |_| {
        let (status, body) = shown.lock().unwrap().clone();
        answer(
            status,
            &[("content-type", "application/json")],
            body.to_string(),
        )
    })
    .await;
    let url = format!("http://{}/.well-known/jwks", server.host());
    let settings = [
        &DOCKER[..],
        &[("HOST_PROXY_BROKER__JWKS_URL", url.as_str())],
    ]
    .concat();
    let broker = Broker::start_in(tempfile::tempdir().unwrap(), &settings);
    let ask = |issuer: &Issuer| {
        broker
            .ask("?project=my-app", Some(&issuer.token("ES256")))
            .0
    };
    // A daemon that starts before its issuer can check nothing yet, and says so.
    assert_eq!(ask(&first), 503);
    *published.lock().unwrap() = (200, first.keys());
    wait_for("the first keys", 30, || ask(&first) == 200);
    *published.lock().unwrap() = (200, second.keys());
    wait_for("the rotation", 30, || {
        // The names of the keys are the same: only one that is not known makes the broker look at once.
        let text = unsigned(&json!({ "alg": "ES256", "kid": "new" }), &claims("x", &[]));
        assert_eq!(
            broker
                .ask("?project=my-app", Some(&signed(&text, &[0; 64])))
                .0,
            401
        );
        ask(&second) == 200
    });
    assert_eq!(
        ask(&first),
        401,
        "what the issuer took back is not believed"
    );
    // Strangers cannot make the broker ask all the time.
    let asked = server.asked().len();
    for _ in 0..50 {
        let text = unsigned(&json!({ "alg": "ES256", "kid": "none" }), &claims("x", &[]));
        assert_eq!(
            broker
                .ask("?project=my-app", Some(&signed(&text, &[0; 64])))
                .0,
            401
        );
    }
    assert!(
        server.asked().len() <= asked + 1,
        "{} questions",
        server.asked().len() - asked
    );
    assert_eq!(ask(&second), 200);
}

/// Asks over TLS with curl, and gives its exit code.
fn curl(port: u16, authority: &Path) -> Option<i32> {
    let url = format!("https://broker.example:{port}/healthz");
    Command::new("curl")
        .args([
            "-sSf",
            "--resolve",
            &format!("broker.example:{port}:127.0.0.1"),
            "--cacert",
        ])
        .arg(authority)
        .arg(url)
        .output()
        .unwrap()
        .status
        .code()
}

#[test]
fn a_new_certificate_serves_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |Server {
                     authority,
                     certificate,
                     key,
                 }: &Server,
                 n: u8| {
        std::fs::write(path(&format!("ca{n}")), pem(authority)).unwrap();
        std::fs::write(path("cert"), pem(certificate)).unwrap();
        std::fs::write(path("key"), pem_of("PRIVATE KEY", key)).unwrap();
    };
    let (first, second) = (server("broker.example"), server("broker.example"));
    write(&first, 1);
    let (cert, key) = (
        path("cert").display().to_string(),
        path("key").display().to_string(),
    );
    let tls = [
        ("HOST_PROXY_BROKER__TLS_CERT", cert.as_str()),
        ("HOST_PROXY_BROKER__TLS_KEY", &key),
    ];
    let broker = Broker::start(&[&DOCKER[..], &tls].concat());
    assert_eq!(curl(broker.port, &path("ca1")), Some(0));
    // Half of it is written: the one before serves.
    std::fs::write(path("cert"), pem(&second.certificate)).unwrap();
    wait_for("the broker to notice", 30, || {
        assert_eq!(curl(broker.port, &path("ca1")), Some(0));
        broker
            .daemon
            .log()
            .contains("the previous one stays in effect")
    });
    assert_eq!(curl(broker.port, &path("ca1")), Some(0));
    write(&second, 2);
    wait_for("the new certificate", 30, || {
        curl(broker.port, &path("ca2")) == Some(0)
    });
    assert_ne!(
        curl(broker.port, &path("ca1")),
        Some(0),
        "the first authority did not sign this one"
    );
}

#[test]
fn a_broker_that_would_be_careless_does_not_start() {
    let run = |verb: &str, settings: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(ours("host-proxy"))
            .arg(verb)
            .env("HOST_PROXY_CONFIG_DIR", folder.path())
            .env("HOST_PROXY_STATE_DIR", folder.path().join("state"))
            .env("HOST_PROXY_RUN_DIR", folder.path().join("run"))
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let both = |settings: &[(&str, &str)]| {
        let (checked, served) = (run("check-config", settings), run("serve", settings));
        // The check has a note beside it: there is no file in that folder.
        let wrong = checked.split_once("error:").unwrap().1;
        assert!(served.contains(wrong.trim()), "{checked}\n{served}");
        served
    };
    let with = |more: &[(&str, &str)]| both(&[&DOCKER[..], more].concat());
    assert!(
        both(&[("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0")]).contains("there is no [registry]")
    );
    assert!(
        with(&[("HOST_PROXY_BROKER__LISTEN", "0.0.0.0:0")]).contains("is not a loopback address")
    );
    assert!(
        with(&[("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0")]).contains("broker.audience is empty")
    );
    let half = [
        ("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0"),
        ("HOST_PROXY_BROKER__TLS_KEY", "/key"),
    ];
    assert!(with(&half).contains("belong together"));
    let keyless = with(&[
        ("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0"),
        ("HOST_PROXY_BROKER__AUDIENCE", "a"),
    ]);
    assert!(
        keyless.contains("name one of broker.jwt_secret_file"),
        "{keyless}"
    );
    let plain = with(&[
        ("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0"),
        ("HOST_PROXY_BROKER__AUDIENCE", "a"),
        ("HOST_PROXY_BROKER__JWKS_URL", "http://issuer.example/jwks"),
    ]);
    assert!(plain.contains("http:// is for loopback only"), "{plain}");
    let name = [("HOST_PROXY_BROKER__LISTEN", "localhost:9443")];
    assert!(
        with(&name).contains("(broker.listen is set in HOST_PROXY_BROKER__LISTEN)"),
        "{}",
        with(&name)
    );
    let never = [
        ("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0"),
        ("HOST_PROXY_BROKER__RATE_PER_MINUTE", "0"),
    ];
    assert!(with(&never).contains("every request would be refused"));
    let gitlab = |key: &'static str, value: &'static str| {
        let mut settings = vec![
            ("HOST_PROXY_REGISTRY__TYPE", "gitlab"),
            ("HOST_PROXY_REGISTRY__URL", "https://gitlab.example"),
            ("HOST_PROXY_REGISTRY__REGISTRY_URL", "registry.example"),
            ("HOST_PROXY_REGISTRY__TOKEN_FILE", "/no/such/file"),
        ];
        settings.retain(|(known, _)| *known != key);
        settings.push((key, value));
        both(&settings)
    };
    assert!(gitlab("", "").contains("/no/such/file"));
    assert!(gitlab("HOST_PROXY_REGISTRY__NAMESPACE", "My-Org").contains("namespace is lower-case"));
    assert!(
        gitlab("HOST_PROXY_REGISTRY__REGISTRY_URL", "https://r.example")
            .contains("host or host:port")
    );
    assert!(gitlab("HOST_PROXY_REGISTRY__LIFETIME_SECONDS", "300").contains("900 to 2592000"));
    assert!(
        gitlab("HOST_PROXY_REGISTRY__URL", "http://u:secret@gitlab.example").contains("loopback")
    );
    assert!(
        !gitlab("HOST_PROXY_REGISTRY__URL", "http://u:secret@gitlab.example").contains("secret")
    );
}
