//! What a job learns, what it does not, and what the operator sees of it.

use super::DOCKER;
use serde_json::json;
use std::process::Command;
use tests::broker::{Broker, SECRET, claims, signed, token, unsigned};
use tests::programs::run;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_job_learns_where_to_push_and_nobody_learns_what_exists() {
    let more = [("HOST_PROXY_REGISTRY__NAMESPACE", "rise-apps")];
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
    let stars = token("ci", &["my-*"], SECRET);
    let (_, hostile) = broker.ask("?project=my-*", Some(&stars));
    assert_eq!((status, &unknown), (404, &hostile));
    let action = |name: &str| broker.ask(&format!("?project=my-app&action={name}"), Some(&mine));
    assert_eq!((action("delete").0, action("pull").0), (400, 200));
    let stranger = token("ci", &["my-app"], &[7; 32]);
    for wrong in [None, Some(""), Some("x.y.z"), Some(stranger.as_str())] {
        assert_eq!(broker.ask("?project=my-app", wrong).0, 401, "{wrong:?}");
    }
    let log = broker.daemon.log();
    for part in [
        "registry URL returned",
        "no such project, or not this caller's",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert!(!log.contains(&mine), "a token is a secret too");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_subject_that_asks_too_often_is_told_to_wait() {
    let rate = [("HOST_PROXY_BROKER__RATE_PER_MINUTE", "7")];
    let broker = Broker::start(&[&DOCKER[..], &rate].concat());
    let mine = token("ci", &["my-app"], SECRET);
    // Whatever the answers are.
    for (query, status) in [
        ("?project=my-app", 200),
        ("?project=no-such-app", 404),
        ("?project=my-*", 404),
        ("?project=my-app&action=delete", 400),
        ("?project=my-app&action=pull", 200),
        ("?project=my-app", 200),
        ("?project=my-app", 200),
    ] {
        assert_eq!(broker.ask(query, Some(&mine)).0, status, "{query}");
    }
    let (head, _) = broker.exchange("?project=my-app", Some(&mine));
    let is_told = head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 60");
    assert!(is_told, "{head}");
    let other = token("other", &["my-app"], SECRET);
    assert_eq!(broker.ask("?project=my-app", Some(&other)).0, 200);
    let mut lines = head.lines();
    let id = lines.find_map(|line| line.strip_prefix("x-request-id: "));
    let (id, log) = (id.unwrap(), broker.daemon.log());
    let mut lines = log.lines();
    let is_logged = lines.any(|line| line.contains(id) && line.contains("too many requests"));
    assert!(is_logged, "{id} in {log}");
}

/// Of its own.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn what_a_stranger_writes_into_a_token_cannot_make_a_line() {
    let broker = Broker::start(&DOCKER);
    let forged = unsigned(
        &json!({ "alg": "x\n2026-01-01 INFO audit: credentials issued to=stranger" }),
        &claims("x", &[]),
    );
    let forged = signed(&forged, b"x");
    assert_eq!(broker.ask("?project=my-app", Some(&forged)).0, 401);
    let log = broker.daemon.log();
    let line = log.lines().find(|line| line.contains("to=stranger"));
    let is_one = line.is_none_or(|line| line.contains("a token was refused"));
    assert!(is_one, "{log}");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
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
