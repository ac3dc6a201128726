//! The credential broker, as a CI job meets it.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::daemon::Daemon;
use tests::free_port;
use tests::ministack::MiniStack;

const SECRET: &[u8] = b"a shared secret of more than 32 bytes";

/// Signed by hand, so that two readings of RFC 7515 meet.
fn token(subject: &str, projects: &[&str], key: &[u8]) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 300;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "sub": subject, "aud": "redoubt", "exp": exp, "projects": projects });
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
    let signature = hmac::sign(&Key::new(HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

struct Broker {
    daemon: Daemon,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Broker {
    /// A daemon with this `[registry]` and these more settings.
    fn start(settings: &[(&str, &str)]) -> Broker {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let (port, secret) = (free_port(), secret.display().to_string());
        let listen = format!("127.0.0.1:{port}");
        let own = [
            ("HOST_PROXY_BROKER__LISTEN", listen.as_str()),
            ("HOST_PROXY_BROKER__JWT_SECRET_FILE", &secret),
            ("HOST_PROXY_BROKER__AUDIENCE", "redoubt"),
        ];
        Broker { daemon: Daemon::start(&[&own[..], settings].concat()), port, _folder: folder }
    }

    /// Status and body of a question.
    fn ask(&self, query: &str, token: Option<&str>) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        write!(
            stream,
            "GET /registry/credentials{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer}\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("cache-control: no-store"), "{head}");
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }
}

#[test]
fn a_job_learns_where_to_push_and_nobody_learns_what_exists() {
    let broker = Broker::start(&[
        ("HOST_PROXY_REGISTRY__TYPE", "docker"),
        ("HOST_PROXY_REGISTRY__REGISTRY_URL", "localhost:5000"),
        ("HOST_PROXY_REGISTRY__NAMESPACE", "rise-apps"),
        ("HOST_PROXY_BROKER__RATE_PER_MINUTE", "7"),
    ]);
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
    assert_eq!(broker.ask("?project=my-app&action=delete", Some(&mine)).0, 400);
    assert_eq!(broker.ask("?project=my-app&action=pull", Some(&mine)).0, 200);
    for wrong in [None, Some(""), Some("x.y.z"), Some(token("ci", &["my-app"], &[7; 32]).as_str())] {
        assert_eq!(broker.ask("?project=my-app", wrong).0, 401, "{wrong:?}");
    }
    // Five questions were asked in this name so far.
    assert_eq!(broker.ask("?project=my-app", Some(&mine)).0, 200);
    assert_eq!(broker.ask("?project=my-app", Some(&mine)).0, 200);
    assert_eq!(broker.ask("?project=my-app", Some(&mine)).0, 429);
    assert_eq!(broker.ask("?project=my-app", Some(&token("other", &["my-app"], SECRET))).0, 200);
    let log = broker.daemon.log();
    assert!(
        log.contains("credentials issued") && log.contains("no such project, or not this caller's"),
        "{log}"
    );
    assert!(!log.contains(&mine), "a token is a secret too");
}

/// Asks MiniStack as root; it does not check root's signature.
fn iam(ministack: &MiniStack, query: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", ministack.port)).unwrap();
    let authorization = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: iam.amazonaws.com\r\nAuthorization: {authorization}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{query}",
        query.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn form(value: &Value) -> String {
    value.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn ecr_credentials_come_from_a_session_for_one_project() {
    let ministack = MiniStack::with_auth(true);
    let trust = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::000000000000:root" }, "Action": "sts:AssumeRole" } ] });
    let rights = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "ecr:*", "Resource": "*" } ] });
    let version = "Version=2010-05-08";
    iam(
        &ministack,
        &format!("Action=CreateRole&{version}&RoleName=push&AssumeRolePolicyDocument={}", form(&trust)),
    );
    iam(
        &ministack,
        &format!(
            "Action=PutRolePolicy&{version}&RoleName=push&PolicyName=p&PolicyDocument={}",
            form(&rights)
        ),
    );
    let url = ministack.url();
    let settings = |role: &'static str| {
        [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("HOST_PROXY_REGISTRY__TYPE", "ecr"),
            ("HOST_PROXY_REGISTRY__REGION", "us-east-1"),
            ("HOST_PROXY_REGISTRY__ACCOUNT_ID", "000000000000"),
            ("HOST_PROXY_REGISTRY__REPO_PREFIX", "rise/"),
            ("HOST_PROXY_REGISTRY__PUSH_ROLE_ARN", role),
            ("HOST_PROXY_REGISTRY__ENDPOINT_URL", url.as_str()),
        ]
    };
    let broker = Broker::start(&settings("arn:aws:iam::000000000000:role/push"));
    let mine = token("ci", &["my-app"], SECRET);
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    assert_eq!(status, 200, "{answer}\n{}", broker.daemon.log());
    let credentials = &answer["credentials"];
    assert_eq!(credentials["registry_url"], "000000000000.dkr.ecr.us-east-1.amazonaws.com");
    assert_eq!(credentials["username"], "AWS");
    let password = credentials["password"].as_str().unwrap();
    assert!(!password.is_empty() && !broker.daemon.log().contains(password));
    let expires_in = credentials["expires_in"].as_u64().unwrap();
    assert!((11 * 3600..=12 * 3600).contains(&expires_in), "{expires_in} s, by ECR's own word");
    assert_eq!(answer["repository"], "my-app");

    let broker = Broker::start(&settings("arn:aws:iam::000000000000:role/nobody"));
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    assert!(matches!(status, 502 | 503), "{answer}");
    assert!(broker.daemon.log().contains("cannot assume the role"), "{}", broker.daemon.log());
}

#[test]
fn a_broker_that_would_be_careless_does_not_start() {
    use std::process::Command;
    let serve = |settings: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(tests::programs::ours("host-proxy"))
            .arg("serve")
            .env("HOST_PROXY_CONFIG_DIR", folder.path())
            .env("HOST_PROXY_STATE_DIR", folder.path().join("state"))
            .env("HOST_PROXY_RUN_DIR", folder.path().join("run"))
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let docker = [("HOST_PROXY_REGISTRY__TYPE", "docker"), ("HOST_PROXY_REGISTRY__REGISTRY_URL", "r")];
    let with = |more: &[(&str, &str)]| serve(&[&docker[..], more].concat());
    assert!(serve(&[("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0")]).contains("there is no [registry]"));
    assert!(with(&[("HOST_PROXY_BROKER__LISTEN", "0.0.0.0:0")]).contains("no loopback address"));
    assert!(with(&[("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0")]).contains("broker.audience is empty"));
    let keyless = with(&[("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0"), ("HOST_PROXY_BROKER__AUDIENCE", "a")]);
    assert!(keyless.contains("name one of broker.jwt_secret_file"), "{keyless}");
}
