//! Who gets the credentials, and who does not.

use super::{BASIC, fetch, parts};
use oci::PullError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tests::hostile::{FakeRegistry, answer};

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
    // With Basic there is nothing to renew: the same password again is no news, and the error says
    // what to do.
    let error = fetch(&registry, &[]).await.unwrap_err();
    assert!(
        matches!(&error, PullError::Unauthorized { reason, .. } if reason.contains("expired")),
        "{error}"
    );
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
