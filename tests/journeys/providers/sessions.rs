//! What the AWS sessions behind ECR's credentials may do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::process::Command;
use tests::broker::{Broker, SECRET, token};
use tests::ministack::{MiniStack, PUSH_ROLE, ecr_settings};
use tests::programs::run;
use tests::tcp::Recorder;

const LAYER: &[u8] = b"a layer";

/// AWS credentials: those of a session, or root's.
struct Session {
    user: String,
    token: String,
}

impl Session {
    fn root() -> Session {
        Session {
            user: "test:test".to_owned(),
            token: String::new(),
        }
    }

    /// The last one that STS gave out.
    fn heard(recorder: &Recorder) -> Session {
        let heard = String::from_utf8_lossy(&recorder.replies()).into_owned();
        let element = |name: &str| {
            let (_, rest) = heard.rsplit_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        Session {
            user: format!("{}:{}", element("AccessKeyId"), element("SecretAccessKey")),
            token: element("SessionToken"),
        }
    }

    /// What ECR answers to a request that curl signs: the error's kind, or the answer.
    fn ecr(&self, ministack: &MiniStack, action: &str, body: &Value) -> Result<Value, String> {
        let target = format!("x-amz-target: AmazonEC2ContainerRegistry_V20150921.{action}");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--aws-sigv4", "aws:amz:us-east-1:ecr"])
            .args(["--user", &self.user])
            .args(["-H", "content-type: application/x-amz-json-1.1"])
            .args(["-H", &target])
            .args(["-d", &body.to_string(), &ministack.url()]);
        if !self.token.is_empty() {
            curl.args(["-H", &format!("x-amz-security-token: {}", self.token)]);
        }
        let answer: Value = serde_json::from_str(&run(&mut curl)).unwrap();
        match answer.get("__type").and_then(Value::as_str) {
            Some(kind) => Err(kind.rsplit('#').next().unwrap().to_owned()),
            None => Ok(answer),
        }
    }

    /// Uploads a layer and a manifest through ECR's API, as far as it may.
    fn push(&self, ministack: &MiniStack, repository: &str) -> Result<(), String> {
        let upload = self.ecr(ministack, "InitiateLayerUpload", &of(repository))?;
        let upload = upload["uploadId"].as_str().unwrap();
        let part = json!({
            "repositoryName": repository, "uploadId": upload, "partFirstByte": 0, "partLastByte": LAYER.len() - 1,
            "layerPartBlob": STANDARD.encode(LAYER),
        });
        self.ecr(ministack, "UploadLayerPart", &part)?;
        let digest = layer_digest();
        let whole =
            json!({ "repositoryName": repository, "uploadId": upload, "layerDigests": [digest] });
        self.ecr(ministack, "CompleteLayerUpload", &whole)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": LAYER.len() },
            "layers": [],
        });
        let image = json!({ "repositoryName": repository, "imageManifest": manifest.to_string(), "imageTag": "v1" });
        self.ecr(ministack, "PutImage", &image).map(drop)
    }
}

fn layer_digest() -> String {
    oci::Digest::of(LAYER).to_string()
}

fn of(repository: &str) -> Value {
    json!({ "repositoryName": repository })
}

fn image(repository: &str) -> Value {
    json!({ "repositoryName": repository, "imageIds": [{ "imageTag": "v1" }] })
}

#[track_caller]
fn assert_denied(result: Result<Value, String>, what: &str) {
    let kind = result.expect_err(what);
    assert!(kind.starts_with("AccessDenied"), "{what}: {kind}");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_session_for_a_reaches_a_and_nothing_else() {
    let ministack = MiniStack::with_push_role();
    let root = Session::root();
    for repository in ["rise/a", "rise/b"] {
        root.ecr(&ministack, "CreateRepository", &of(repository))
            .unwrap();
        root.push(&ministack, repository).unwrap();
    }
    let recorder = Recorder::before(ministack.port);
    let url = recorder.url();
    let broker = Broker::start(&ecr_settings(PUSH_ROLE, &url));
    let mine = token("ci", &["a"], SECRET);
    let session = |query: &str| {
        let (status, answer) = broker.ask(query, Some(&mine));
        assert_eq!(status, 200, "{answer}\n{}", broker.daemon.log());
        Session::heard(&recorder)
    };
    let push = session("?project=a");
    pushes_to_a_only(&push, &ministack);
    let pull = session("?project=a&action=pull");
    pulls_from_a_only(&pull, &ministack);
    let log = broker.daemon.log();
    assert!(
        !log.contains(&push.token) && !log.contains(&pull.token),
        "{log}"
    );
}

fn pushes_to_a_only(session: &Session, ministack: &MiniStack) {
    let ask = |action: &str, body: Value| session.ecr(ministack, action, &body);
    session.push(ministack, "rise/a").unwrap();
    ask("BatchGetImage", image("rise/a")).unwrap();
    let pushed = session.push(ministack, "rise/b").map(Value::from);
    assert_denied(pushed, "push to b");
    assert_denied(ask("BatchGetImage", image("rise/b")), "pull from b");
    for (action, body) in [
        ("DescribeRepositories", json!({})),
        ("DeleteRepository", of("rise/a")),
        ("DeleteRepository", of("rise/b")),
        ("BatchDeleteImage", image("rise/a")),
    ] {
        let what = format!("{action} {body}");
        assert_denied(ask(action, body), &what);
    }
}

fn pulls_from_a_only(session: &Session, ministack: &MiniStack) {
    session
        .ecr(ministack, "BatchGetImage", &image("rise/a"))
        .unwrap();
    let body = json!({
        "repositoryName": "rise/a", "layerDigests": [layer_digest()], "uploadId": "x",
        "partFirstByte": 0, "partLastByte": 1, "layerPartBlob": "AA==", "imageManifest": "{}",
    });
    for action in [
        "BatchCheckLayerAvailability",
        "InitiateLayerUpload",
        "UploadLayerPart",
        "CompleteLayerUpload",
        "PutImage",
    ] {
        assert_denied(session.ecr(ministack, action, &body), action);
    }
}

/// Status, answer and log for a project, with a role of the daemon's own before the push role.
fn ask_with_own_role(url: &str, own: &str) -> (u16, Value, String) {
    let own = format!("arn:aws:iam::000000000000:role/{own}");
    let own = [("HOST_PROXY_REGISTRY__ROLE_ARN", own.as_str())];
    let broker = Broker::start(&[&ecr_settings(PUSH_ROLE, url)[..], &own].concat());
    let mine = token("ci", &["team/my-app"], SECRET);
    let (status, answer) = broker.ask("?project=team%2Fmy-app", Some(&mine));
    (status, answer, broker.daemon.log())
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_role_of_the_daemons_own_is_assumed_before() {
    let ministack = MiniStack::with_push_role();
    ministack.make_role("backend", "sts:AssumeRole");
    ministack.make_role("powerless", "s3:GetObject");
    let recorder = Recorder::before(ministack.port);
    let (status, answer, log) = ask_with_own_role(&recorder.url(), "backend");
    assert_eq!(status, 200, "{answer}\n{log}");
    let heard = String::from_utf8_lossy(&recorder.replies()).into_owned();
    for session in [
        "role/backend/redoubt-team-my-app",
        "role/push/redoubt-team-my-app",
    ] {
        assert!(heard.contains(session), "{session} in {heard}");
    }
    let (status, answer, log) = ask_with_own_role(&recorder.url(), "powerless");
    assert_eq!(status, 502, "{answer}");
    assert!(log.contains("AccessDenied"), "{log}");
}
