//! Registry credentials over an enclave's life, in Secrets Manager (MiniStack stands in for it).

use crate::deploy::{create, files_with, start};
use crate::{SPEC, listing_image};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use tests::ministack::MiniStack;
use tests::registry::{PASSWORD, Registry};
use tests::wait_for;

/// A request of Secrets Manager's JSON protocol, written by hand: not by the client under test.
fn ask(stack: &MiniStack, operation: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", stack.port)).unwrap();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: secretsmanager.us-east-1.amazonaws.com\r\nX-Amz-Target: secretsmanager.{operation}\r\n\
         Content-Type: application/x-amz-json-1.1\r\nAuthorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_secret_is_made_with_the_enclave_and_deleted_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, stack) = (Registry::start(), MiniStack::start());
    listing_image().write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/app:v1");
    let url = stack.url();
    let mut daemon = start(
        &registry,
        &[
            ("HOST_PROXY_SECRETS", "aws"),
            ("HOST_PROXY_AWS__ENDPOINT_URL", &url),
            ("HOST_PROXY_AWS__REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ],
    );
    let created = create(&daemon, "app", &reference, SPEC);
    assert_eq!(created.code, 0, "{created:?}");
    let record = daemon.show("app");
    let id = record["id"].as_str().unwrap();
    let arn = record["credentials_arn"].as_str().unwrap();
    assert!(
        arn.starts_with("arn:aws:secretsmanager:us-east-1:")
            && arn.contains(&format!("redoubt/{id}")),
        "{arn}"
    );
    let query = serde_json::json!({ "SecretId": arn }).to_string();
    let held = ask(&stack, "GetSecretValue", &query);
    assert!(held.contains(PASSWORD), "{held}");
    let described = ask(&stack, "DescribeSecret", &query);
    assert!(
        described.contains("redoubt:enclave") && described.contains(id),
        "{described}"
    );

    // It stays for redeploys, and what it holds now is what is used.
    assert_eq!(daemon.ctl(&["redeploy", "app"], "").code, 0);
    let swapped = serde_json::json!({ "SecretId": arn, "SecretString": "{\"username\":\"alice\",\"password\":\"stale\"}" });
    ask(&stack, "PutSecretValue", &swapped.to_string());
    let refused = daemon.ctl(&["redeploy", "app"], "");
    assert_eq!(refused.code, 1);
    assert_eq!(
        daemon.show("app")["failure"]["code"],
        "REGISTRY_UNAUTHORIZED"
    );

    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
    let gone = ask(&stack, "GetSecretValue", &query);
    assert!(gone.contains("ResourceNotFoundException"), "{gone}");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(
        files_with(daemon.folder(), PASSWORD.as_bytes()),
        Vec::<String>::new()
    );
}

#[test]
fn without_its_secret_store_nothing_is_deployed_and_nothing_is_forgotten() {
    let registry = Registry::start();
    let nobody = format!("http://127.0.0.1:{}", tests::free_port());
    let daemon = start(
        &registry,
        &[
            ("HOST_PROXY_SECRETS", "aws"),
            ("HOST_PROXY_AWS__ENDPOINT_URL", &nobody),
            ("HOST_PROXY_AWS__REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ],
    );
    let answer = create(
        &daemon,
        "app",
        &format!("{}/org/app:v1", registry.host()),
        SPEC,
    );
    assert_eq!(answer.code, 77, "{answer:?}");
    assert!(
        answer
            .stderr
            .contains("the credentials could not be stored"),
        "{}",
        answer.stderr
    );
    assert!(!answer.stderr.contains(PASSWORD) && !daemon.log().contains(PASSWORD));
    // Nobody knows whether the secret was made: it is deleted, and until that worked the record says so.
    wait_for("the clean-up to begin", 20, || {
        daemon.show("app")["status"] == "DESTROYING"
    });
}
