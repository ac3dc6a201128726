//! What STS refuses, and what becomes of it.

use std::net::TcpListener;
use tests::broker::{Broker, SECRET, token};
use tests::hostile::{FakeRegistry, HttpAnswer, answer};
use tests::ministack::{PUSH_ROLE, ecr_settings};

const XML: (&str, &str) = ("content-type", "text/xml");

/// As STS words its errors.
fn sts_error(status: u16, code: &str, message: &str) -> HttpAnswer {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ErrorResponse>"
    );
    answer(status, &[XML], body)
}

/// An answer of STS's that cannot be read to its end, and that holds a secret.
const SPOILT: &str = "<AssumeRoleResponse><AssumeRoleResult><Credentials><SecretAccessKey>spoilt-secret</SecretAccessKey>\
                      <Expiration>tomorrow</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

/// Asks a broker whose STS answers like this; its status must be `expected`, and its log hold
/// `words`.
async fn check(sts: impl Fn() -> HttpAnswer + Send + Sync + 'static, expected: u16, words: &str) {
    let server = FakeRegistry::start(move |_| sts()).await;
    let url = format!("http://{}", server.host());
    let broker = Broker::start(&ecr_settings(PUSH_ROLE, &url));
    let mine = token("ci", &["my-app"], SECRET);
    let (status, told) = broker.ask("?project=my-app", Some(&mine));
    let (told, log) = (told.to_string(), broker.daemon.log());
    assert_eq!(status, expected, "{words}: {told}\n{log}");
    let is_throttled = words == "Throttling";
    assert_eq!(
        told.contains("received too many requests"),
        is_throttled,
        "{told}"
    );
    assert!(
        log.contains(words) && !log.contains("spoilt-secret"),
        "{words} in {log}"
    );
    assert!(
        !told.contains(words),
        "what AWS said is the operator's: {told}"
    );
}

/// A test for each refusal: its status and code, and the broker's status.
macro_rules! sts_refusals {
    ($($name:ident: $status:literal $code:literal => $expected:literal,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        #[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
        async fn $name() {
            check(|| sts_error($status, $code, "no <b>words</b>"), $expected, $code).await;
        }
    )*};
}

sts_refusals! {
    a_role_that_may_not_be_assumed_is_the_operators_matter: 403 "AccessDenied" => 502,
    a_policy_that_is_too_large_is_the_operators_matter: 400 "PackedPolicyTooLarge" => 502,
    a_throttled_sts_may_be_asked_again: 400 "Throttling" => 503,
    a_failing_sts_may_be_asked_again: 500 "InternalFailure" => 503,
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn an_answer_of_sts_that_cannot_be_read_is_not_quoted() {
    check(
        || answer(200, &[XML], SPOILT),
        503,
        "cannot assume the role",
    )
    .await;
}

fn status_with_sts_at(url: &str) -> u16 {
    let broker = Broker::start(&ecr_settings(PUSH_ROLE, url));
    let mine = token("ci", &["my-app"], SECRET);
    broker.ask("?project=my-app", Some(&mine)).0
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_sts_that_is_not_there_may_be_asked_again() {
    let nobody = format!("http://127.0.0.1:{}", tests::free_port());
    assert_eq!(status_with_sts_at(&nobody), 503);
}

/// It takes the connection.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_silent_sts_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    assert_eq!(status_with_sts_at(&url), 504);
}
