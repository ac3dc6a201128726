//! Registry credentials over an enclave's life, in Secrets Manager (MiniStack stands in for it).

use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::files::files_with;
use tests::ministack::MiniStack;
use tests::registry::{PASSWORD, Registry};
use tests::scene::Scene;
use tests::wait_for;
use tests::workloads::{SPEC, listing_image};

/// Has the daemon keep credentials in Secrets Manager at this URL.
fn in_secrets_manager(url: &str) -> [(&str, &str); 5] {
    [
        ("HOST_PROXY_SECRETS", "aws"),
        ("HOST_PROXY_AWS__ENDPOINT_URL", url),
        ("HOST_PROXY_AWS__REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_secret_is_made_with_the_enclave_and_deleted_with_it() {
    let stack = MiniStack::start();
    let scene = Scene::new(&listing_image(), "org/app:v1");
    let mut daemon = scene.start(&in_secrets_manager(&stack.url()));
    let created = daemon.create("app", &scene.reference, SPEC);
    assert_eq!(created.code, 0, "{created:?}");
    let record = daemon.show("app");
    let arn = record["credentials_arn"].as_str().unwrap();
    secret_belongs_to_the_enclave(&stack, arn, record["id"].as_str().unwrap());
    redeploys_use_what_it_holds_now(&stack, arn, &daemon);

    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
    let gone = stack.secrets_manager("GetSecretValue", &query(arn));
    assert!(gone.contains("ResourceNotFoundException"), "{gone}");
    assert_eq!(daemon.stop(), Some(0));
    let files = files_with(daemon.folder(), PASSWORD.as_bytes());
    assert_eq!(files, Vec::<String>::new());
}

fn query(arn: &str) -> Value {
    json!({ "SecretId": arn })
}

fn secret_belongs_to_the_enclave(stack: &MiniStack, arn: &str, id: &str) {
    let is_named = arn.starts_with("arn:aws:secretsmanager:us-east-1:")
        && arn.contains(&format!("redoubt/{id}"));
    assert!(is_named, "{arn}");
    let held = stack.secrets_manager("GetSecretValue", &query(arn));
    assert!(held.contains(PASSWORD), "{held}");
    let described = stack.secrets_manager("DescribeSecret", &query(arn));
    let is_tagged = described.contains("redoubt:enclave") && described.contains(id);
    assert!(is_tagged, "{described}");
}

/// It stays for them.
fn redeploys_use_what_it_holds_now(stack: &MiniStack, arn: &str, daemon: &Daemon) {
    assert_eq!(daemon.ctl(&["redeploy", "app"], "").code, 0);
    let stale = "{\"username\":\"alice\",\"password\":\"stale\"}";
    let swapped = json!({ "SecretId": arn, "SecretString": stale });
    let _ = stack.secrets_manager("PutSecretValue", &swapped);
    let refused = daemon.ctl(&["redeploy", "app"], "");
    assert_eq!(refused.code, 1);
    let events = daemon.ctl(&["--json", "events", "app"], "").stdout;
    let last = events.lines().last().unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["failure"]["code"], "REGISTRY_UNAUTHORIZED", "{events}");
    assert_eq!(daemon.show("app")["status"], "DEPLOYED");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn without_its_secret_store_nothing_is_deployed_and_nothing_is_forgotten() {
    let registry = Registry::start();
    let nobody = format!("http://127.0.0.1:{}", tests::free_port());
    let daemon = Daemon::start_for(&registry, &in_secrets_manager(&nobody));
    let answer = daemon.create("app", &format!("{}/org/app:v1", registry.host()), SPEC);
    assert_eq!(answer.code, 77, "{answer:?}");
    let message = "the credentials could not be stored";
    assert!(answer.stderr.contains(message), "{}", answer.stderr);
    assert!(!answer.stderr.contains(PASSWORD) && !daemon.log().contains(PASSWORD));
    // Nobody knows whether the secret was made: it is deleted, and until that worked the record
    // says so.
    wait_for("the clean-up to begin", 20, || {
        daemon.show("app")["status"] == "DESTROYING"
    });
}
