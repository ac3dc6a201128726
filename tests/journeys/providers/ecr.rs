//! Credentials of ECR.

use tests::broker::{Broker, SECRET, token};
use tests::ministack::{MiniStack, Moto, PUSH_ROLE, ecr_settings};

const HOST: &str = "000000000000.dkr.ecr.us-east-1.amazonaws.com";

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn ecr_credentials_come_from_a_session_for_one_project() {
    let ministack = MiniStack::with_push_role();
    let url = ministack.url();
    let broker = Broker::start(&ecr_settings(PUSH_ROLE, &url));
    let mine = token("ci", &["my-app"], SECRET);
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    assert_eq!(status, 200, "{answer}\n{}", broker.daemon.log());
    let credentials = &answer["credentials"];
    assert_eq!(credentials["registry_url"], HOST);
    assert_eq!(credentials["username"], "AWS");
    let password = credentials["password"].as_str().unwrap();
    assert!(!password.is_empty() && !broker.daemon.log().contains(password));
    let expires_in = credentials["expires_in"].as_u64().unwrap();
    assert!(
        (11 * 3600..=12 * 3600).contains(&expires_in),
        "{expires_in} s, by ECR's own word"
    );
    assert_eq!(answer["repository"], "my-app");
    images_are_of_their_project(&broker, &mine);
}

/// The same by the image's name; and nothing for one that is nobody's.
fn images_are_of_their_project(broker: &Broker, mine: &str) {
    let by_image = format!("?image={HOST}/rise/my-app:v1&action=pull");
    assert_eq!(broker.ask(&by_image, Some(mine)).1["repository"], "my-app");
    let beside = format!("{HOST}/my-app");
    for foreign in ["ghcr.io/rise/my-app", &beside, "%00"] {
        let (status, _) = broker.ask(&format!("?image={foreign}"), Some(mine));
        assert_eq!(status, 404, "{foreign}");
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_role_that_does_not_exist_cannot_be_assumed() {
    let ministack = MiniStack::with_push_role();
    let url = ministack.url();
    let role = "arn:aws:iam::000000000000:role/nobody";
    let broker = Broker::start(&ecr_settings(role, &url));
    let mine = token("ci", &["my-app"], SECRET);
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    assert!(matches!(status, 502 | 503), "{answer}");
    let log = broker.daemon.log();
    assert!(log.contains("cannot assume the role"), "{log}");
}

/// moto's ECR issues tokens that ended in 2015.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_token_that_is_over_when_it_comes_is_given_to_nobody() {
    let moto = Moto::start();
    let url = moto.url();
    let role = "arn:aws:iam::123456789012:role/push";
    let broker = Broker::start(&ecr_settings(role, &url));
    let mine = token("ci", &["my-app"], SECRET);
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    assert_eq!(status, 503, "{answer}");
    let log = broker.daemon.log();
    assert!(log.contains("issued an expired token"), "{log}");
}
