//! The registry client against registries that misbehave.

use oci::pull::{DEFAULT_MAX_UNPACKED, PullProgress, PullRequest, VerifiedImage, pull};
use oci::{ContentError, Credentials, Digest, Endpoint, Platform, PullError, Reference, Secret};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tests::hostile::{Asked, FakeRegistry, HttpAnswer, answer};
use tests::image::Layer;

struct Quiet;

impl PullProgress for Quiet {
    fn resolved(&self, _: Digest, _: &[u64]) {}
    fn received(&self, _: u64) {}
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of one plain layer, as bytes.
#[derive(Clone)]
struct Parts {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn parts() -> Parts {
    let layer = Layer::default()
        .file("hello", 0o644, 0, vec![b'x'; 100_000])
        .finish();
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] } });
    let config = serde_json::to_vec(&config).unwrap();
    let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": blob("application/vnd.oci.image.config.v1+json", &config),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    Parts {
        layer,
        config,
        manifest: serde_json::to_vec(&manifest).unwrap(),
    }
}

impl Parts {
    fn serve(&self, asked: &Asked) -> HttpAnswer {
        let Parts {
            layer,
            config,
            manifest,
        } = self;
        match asked.path.as_str() {
            path if path.contains("/manifests/") => {
                answer(200, &[("content-type", MANIFEST)], manifest.clone())
            }
            path if path.ends_with(&Digest::of(config).to_string()) => {
                answer(200, &[], config.clone())
            }
            path if path.ends_with(&Digest::of(layer).to_string()) => {
                answer(200, &[], layer.clone())
            }
            _ => answer(404, &[], ""),
        }
    }

    fn is_layer(&self, asked: &Asked) -> bool {
        asked.path.ends_with(&Digest::of(&self.layer).to_string())
    }
}

async fn fetch(registry: &FakeRegistry, also_plain: &[String]) -> Result<VerifiedImage, PullError> {
    let plain_http = std::iter::once(registry.host())
        .chain(also_plain.iter().cloned())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let request = PullRequest {
        reference: Reference::parse(&format!("{}/org/app:v1", registry.host())).unwrap(),
        platform: Platform::linux_amd64(),
        credentials: Some(Credentials::Password {
            username: "alice".into(),
            password: Secret::new("open-sesame"),
        }),
        endpoint: Endpoint {
            plain_http,
            ca_cert: None,
        },
        work_dir: folder.path().to_owned(),
        max_unpacked: DEFAULT_MAX_UNPACKED,
    };
    let result = pull(request, Arc::new(Quiet)).await;
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left in the work folder"
    );
    result
}

const BASIC: &str = "Basic YWxpY2U6b3Blbi1zZXNhbWU=";

#[tokio::test]
async fn logs_in_only_when_asked_and_gets_every_byte() {
    let image = parts();
    let registry = FakeRegistry::start(move |asked| match asked.authorization.as_deref() {
        Some(BASIC) => image.serve(asked),
        _ => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    })
    .await;
    let pulled = fetch(&registry, &[]).await.unwrap();
    assert_eq!(pulled.layers().len(), 1);
    assert_eq!(
        registry.asked()[0].authorization,
        None,
        "credentials are not sent unasked"
    );
}

#[tokio::test]
async fn exchanges_the_password_for_a_token_at_the_registrys_own_realm() {
    let image = parts();
    let port = Arc::new(AtomicU64::new(0));
    let own = port.clone();
    let registry = FakeRegistry::start(move |asked| {
        let realm = format!(
            "Bearer realm=\"http://127.0.0.1:{}/token\",service=\"r\"",
            own.load(Ordering::Relaxed)
        );
        match (
            asked.path.starts_with("/token"),
            asked.authorization.as_deref(),
        ) {
            (true, Some(BASIC)) => answer(200, &[], r#"{"token":"t0ken","expires_in":300}"#),
            (true, _) => answer(401, &[], ""),
            (false, Some("Bearer t0ken")) => image.serve(asked),
            (false, _) => answer(401, &[("www-authenticate", realm.as_str())], ""),
        }
    })
    .await;
    port.store(u64::from(registry.port), Ordering::Relaxed);
    fetch(&registry, &[]).await.unwrap();
    let asked = registry.asked();
    let tokens: Vec<_> = asked
        .iter()
        .filter(|asked| asked.path.starts_with("/token"))
        .collect();
    assert_eq!(tokens.len(), 1, "one token for the whole image: {asked:?}");
    assert_eq!(
        tokens[0].path,
        "/token?scope=repository%3Aorg%2Fapp%3Apull&service=r"
    );
    assert!(
        asked
            .iter()
            .filter(|asked| !asked.path.starts_with("/token"))
            .all(|asked| asked.authorization.as_deref() != Some(BASIC))
    );
}

#[tokio::test]
async fn a_realm_elsewhere_gets_nothing() {
    let thief = FakeRegistry::start(|_| answer(200, &[], r#"{"token":"x"}"#)).await;
    for realm in [
        format!("http://{}/token", thief.host()),
        "http://169.254.169.254/latest".to_owned(),
        "https://attacker.example/token".to_owned(),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let registry = FakeRegistry::start(move |_| {
            answer(401, &[("www-authenticate", challenge.as_str())], "")
        })
        .await;
        // Even where the operator allows plain HTTP to both: the realm must be the registry's own.
        let error = fetch(&registry, &[thief.host()]).await.unwrap_err();
        assert!(matches!(error, PullError::Realm { .. }), "{error}");
    }
    assert_eq!(thief.asked(), []);
}

#[tokio::test]
async fn a_wrong_password_never_becomes_an_anonymous_pull() {
    let registry = FakeRegistry::start(|asked| match asked.authorization {
        Some(_) => answer(
            401,
            &[("www-authenticate", "Basic realm=\"r\"")],
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"bad credentials open-sesame YWxpY2U6b3Blbi1zZXNhbWU="}]}"#,
        ),
        None => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    })
    .await;
    match fetch(&registry, &[]).await.unwrap_err() {
        PullError::Unauthorized { reason, .. } => {
            assert_eq!(
                reason, "UNAUTHORIZED: bad credentials … …",
                "what a server repeats is not passed on"
            )
        }
        other => panic!("{other}"),
    }
    assert_eq!(registry.asked().len(), 2);
}

#[tokio::test]
async fn a_token_that_expires_on_the_way_is_renewed_once() {
    let image = parts();
    let expired = AtomicBool::new(false);
    let registry = FakeRegistry::start(move |asked| match asked.authorization.as_deref() {
        // ECR says 403 where others say 401.
        Some(BASIC) if image.is_layer(asked) && !expired.swap(true, Ordering::Relaxed) => {
            answer(403, &[("www-authenticate", "Basic realm=\"ecr\"")], r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#)
        }
        Some(BASIC) => image.serve(asked),
        _ => answer(401, &[("www-authenticate", "Basic realm=\"ecr\"")], ""),
    })
    .await;
    // With Basic there is nothing to renew: the same password again is no news, and the error says what to do.
    let error = fetch(&registry, &[]).await.unwrap_err();
    assert!(
        matches!(&error, PullError::Unauthorized { reason, .. } if reason.contains("expired")),
        "{error}"
    );
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let image = parts();
    let len = image.layer.len();
    let registry = FakeRegistry::start(move |asked| {
        if !image.is_layer(asked) {
            return image.serve(asked);
        }
        // 30,000 bytes at a time, whatever was asked for.
        let start: usize = asked.range.as_deref().map_or(0, |range| {
            range
                .strip_prefix("bytes=")
                .unwrap()
                .trim_end_matches('-')
                .parse()
                .unwrap()
        });
        let end = (start + 30_000).min(len);
        let range = format!("bytes {start}-{}/{len}", end - 1);
        let status = if start == 0 { 200 } else { 206 };
        answer(
            status,
            &[("content-range", range.as_str())],
            image.layer[start..end].to_vec(),
        )
    })
    .await;
    fetch(&registry, &[]).await.unwrap();
    let ranges: Vec<_> = registry
        .asked()
        .into_iter()
        .filter_map(|asked| asked.range)
        .collect();
    assert_eq!(ranges, ["bytes=30000-", "bytes=60000-", "bytes=90000-"]);
}

#[tokio::test]
async fn a_partial_answer_from_the_wrong_place_is_refused() {
    let image = parts();
    let registry = FakeRegistry::start(move |asked| match (image.is_layer(asked), &asked.range) {
        (true, None) => answer(200, &[], image.layer[..1000].to_vec()),
        (true, Some(_)) => answer(206, &[("content-range", "bytes 5-9/10")], "xxxxx"),
        (false, _) => image.serve(asked),
    })
    .await;
    let error = fetch(&registry, &[]).await.unwrap_err();
    assert!(
        matches!(
            &error,
            PullError::Invalid {
                problem: ContentError::Range { asked: 1000, .. },
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn altered_bytes_are_refused_wherever_they_are() {
    type Change = fn(&Parts, &Asked, HttpAnswer) -> HttpAnswer;
    let swap: Change = |parts, asked, original| match parts.is_layer(asked) {
        true => {
            let mut layer = parts.layer.clone();
            layer[50_000] ^= 1;
            answer(200, &[], layer)
        }
        false => original,
    };
    let endless: Change = |parts, asked, original| match parts.is_layer(asked) {
        true => answer(200, &[], [parts.layer.clone(), vec![0; 1_000_000]].concat()),
        false => original,
    };
    let config: Change =
        |parts, asked, original| match asked.path.ends_with(&Digest::of(&parts.config).to_string())
        {
            true => answer(
                200,
                &[],
                String::from_utf8(parts.config.clone())
                    .unwrap()
                    .replace("amd64", "amd65"),
            ),
            false => original,
        };
    for (name, change, wanted) in [
        ("swapped", swap, "digest"),
        ("endless", endless, "longer than"),
        ("config", config, "digest"),
    ] {
        let image = parts();
        let registry =
            FakeRegistry::start(move |asked| change(&image, asked, image.serve(asked))).await;
        let error = fetch(&registry, &[]).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_blob_redirect_drops_credentials_and_does_not_lead_inwards() {
    let image = parts();
    let store = {
        let image = image.clone();
        FakeRegistry::start(move |_| answer(200, &[], image.layer.clone())).await
    };
    let location = format!("http://{}/blob?signature=1", store.host());
    let registry = FakeRegistry::start(move |asked| match asked.authorization.as_deref() {
        Some(BASIC) if image.is_layer(asked) => answer(307, &[("location", location.as_str())], ""),
        Some(BASIC) => image.serve(asked),
        _ => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    })
    .await;
    // Not named by the operator: plain HTTP and an address of this machine are both refused.
    let error = fetch(&registry, &[]).await.unwrap_err();
    assert!(matches!(error, PullError::Redirect { .. }), "{error}");
    assert_eq!(store.asked(), []);
    fetch(&registry, &[store.host()]).await.unwrap();
    assert_eq!(
        store
            .asked()
            .iter()
            .map(|asked| asked.authorization.clone())
            .collect::<Vec<_>>(),
        [None]
    );
}

#[tokio::test]
async fn a_manifest_without_end_or_of_two_kinds_is_refused() {
    let endless = FakeRegistry::start(|_| {
        answer(
            200,
            &[("content-type", MANIFEST)],
            vec![b' '; 5 * 1024 * 1024],
        )
    })
    .await;
    let error = fetch(&endless, &[]).await.unwrap_err();
    assert!(
        matches!(
            error,
            PullError::TooLong {
                limit: 4_194_304,
                ..
            }
        ),
        "{error}"
    );
    let html = FakeRegistry::start(|_| {
        answer(
            200,
            &[("content-type", "text/html")],
            "<html>log in here</html>",
        )
    })
    .await;
    assert!(matches!(
        fetch(&html, &[]).await.unwrap_err(),
        PullError::Invalid { .. }
    ));
}

#[tokio::test]
async fn waits_when_it_is_told_to_and_tries_again() {
    let image = parts();
    let busy = AtomicBool::new(true);
    let registry = FakeRegistry::start(move |asked| match busy.swap(false, Ordering::Relaxed) {
        true => answer(429, &[("retry-after", "0")], "slow down"),
        false => image.serve(asked),
    })
    .await;
    fetch(&registry, &[]).await.unwrap();
}
