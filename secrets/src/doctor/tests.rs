//! The checks against services that answer what the test says.

use super::*;
use api::FixPlan;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// A server on loopback, and its address. It gets the head of a request and what came with it, and
/// answers a status line and a body behind it.
pub(super) fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let (mut request, mut bytes) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = stream.read(&mut bytes).unwrap();
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&bytes[..read]);
            }
            if request.is_empty() {
                continue;
            }
            let answer = answer(&String::from_utf8_lossy(&request));
            let (status, body) = answer.split_once('\n').unwrap();
            let len = body.len();
            let text = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}"
            );
            // A client may hang up at any time.
            stream.write_all(text.as_bytes()).ok();
        }
    });
    address
}

const IDENTITY_XML: &str = "200 OK\n<GetCallerIdentityResponse><GetCallerIdentityResult>\
    <Arn>arn:aws:sts::111122223333:assumed-role/parent/i-0</Arn><UserId>x</UserId><Account>111122223333</Account>\
    </GetCallerIdentityResult></GetCallerIdentityResponse>";

const DENIED_XML: &str = "403 Forbidden\n<ErrorResponse><Error><Code>AccessDenied</Code>\
    <Message>because</Message></Error></ErrorResponse>";

const ASSUMED_XML: &str = "200 OK\n<AssumeRoleResponse><AssumeRoleResult><Credentials>\
    <AccessKeyId>a</AccessKeyId><SecretAccessKey>b</SecretAccessKey><SessionToken>c</SessionToken>\
    <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

/// The finding for a role that STS answers about like this.
async fn role(answer: &'static str) -> Finding {
    let address = serve(move |_| answer.to_owned());
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(format!("http://{address}"))
        .load()
        .await;
    let arn = "arn:aws:iam::1:role/r";
    role::of_role(&role::assume(&shared, arn).await, arn)
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_wrong() {
    let passed = "✓ role for enclaves: arn:aws:iam::1:role/r may be assumed";
    assert_eq!(role(ASSUMED_XML).await.to_string(), passed);
    let denied = role(DENIED_XML).await;
    let expected = "arn:aws:iam::1:role/r cannot be assumed: AccessDenied: because";
    assert!(denied.is_failed() && denied.detail == expected, "{denied}");
}

/// The findings where Secrets Manager and KMS answer these codes.
async fn findings(secrets_manager: &'static str, kms: &'static str) -> Vec<Finding> {
    let address = serve(move |head| {
        let head = head.to_ascii_lowercase();
        let code = if head.contains("secretsmanager.getsecretvalue") {
            secrets_manager
        } else if head.contains("trentservice.generatedatakey") {
            kms
        } else {
            return IDENTITY_XML.to_owned();
        };
        format!("400 Bad Request\n{{\"__type\":\"{code}\",\"message\":\"because\"}}")
    });
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(format!("http://{address}"))
        .load()
        .await;
    let config = AwsConfig {
        kms_key: "alias/redoubt".to_owned(),
        secret_prefix: "it's".to_owned(),
        ..AwsConfig::default()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let kms = KmsConfig::default();
    examine(&shared, &config, &kms, true, deadline).await
}

#[tokio::test]
async fn refusals_for_another_reason_show_the_right() {
    let found = findings("ResourceNotFoundException", "DryRunOperationException").await;
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "✓ AWS identity: arn:aws:sts::111122223333:assumed-role/parent/i-0",
            "✓ Secrets Manager: answers, and it's/* may be read",
            "- Secrets Manager, writing: not checked: testing secretsmanager:CreateSecret, TagResource and \
             DeleteSecret would change something",
            "✓ KMS key: alias/redoubt may be used for data keys",
        ]
    );
}

#[tokio::test]
async fn a_missing_right_comes_with_the_policy_that_gives_it() {
    let found = findings("AccessDeniedException", "AccessDeniedException").await;
    let [_, store, _, key] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        store.detail,
        "secrets below it's/ may not be read: AccessDeniedException: because"
    );
    assert!(store.fix[1].starts_with("aws iam put-role-policy --role-name 'parent' "));
    assert!(
        key.is_failed() && key.detail.contains("may not be used"),
        "{key}"
    );
    // The shell gets the policy as one word of valid JSON.
    let script = FixPlan::new(&found).to_string();
    let script = format!("aws() {{ printf '%s' \"$8\"; }}\n{script}");
    let shell = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    let policy: serde_json::Value = serde_json::from_slice(&shell.stdout).unwrap();
    assert_eq!(
        policy["Statement"][0]["Resource"],
        "arn:aws:secretsmanager:us-east-1:111122223333:secret:it's/*"
    );
}

#[tokio::test]
async fn a_key_that_is_not_there_is_wrong_and_other_errors_decide_nothing() {
    let found = findings("InternalServiceError", "NotFoundException").await;
    let [_, store, _, key] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(
        store
            .to_string()
            .starts_with("- Secrets Manager: not checked: "),
        "{store}"
    );
    assert!(
        key.is_failed() && key.detail.contains("cannot be used"),
        "{key}"
    );
}

/// The identity, and the store: of three findings.
async fn first_two(shared: &SdkConfig, deadline: Instant) -> [Finding; 2] {
    let (aws, kms) = (AwsConfig::default(), KmsConfig::default());
    let found = examine(shared, &aws, &kms, true, deadline).await;
    let [identity, store, _]: [Finding; 3] = found.try_into().unwrap();
    [identity, store]
}

#[tokio::test]
async fn a_service_that_is_silent_is_unreachable_and_says_nothing_of_the_identity() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(format!("http://{}", silent.local_addr().unwrap()))
        .load()
        .await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let [identity, store] = &first_two(&shared, deadline).await;
    assert!(
        identity.to_string().contains("not checked: no answer"),
        "{identity}"
    );
    assert!(
        store.is_failed() && store.detail.starts_with("it cannot be reached"),
        "{store}"
    );
}

#[tokio::test]
async fn without_credentials_the_identity_is_missing() {
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .no_credentials()
        .endpoint_url("http://127.0.0.1:1")
        .load()
        .await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let [identity, store] = &first_two(&shared, deadline).await;
    let expected = "there are no AWS credentials to ask with, or no region";
    assert!(
        identity.is_failed() && identity.detail == expected,
        "{identity}"
    );
    assert!(
        store
            .to_string()
            .starts_with("- Secrets Manager: not checked: there are no"),
        "{store}"
    );
}

#[test]
fn only_an_assumed_role_gets_a_policy() {
    let prefix = |arn| policy_fix(arn, "us-east-1", "redoubt");
    assert!(prefix("arn:aws:iam::1:user/me").is_none());
    assert!(prefix("nothing").is_none());
    let fix = prefix("arn:aws-cn:sts::1:assumed-role/r/i-0").unwrap();
    assert!(fix[1].contains("arn:aws-cn:secretsmanager:us-east-1:1:secret:redoubt/*"));
}
