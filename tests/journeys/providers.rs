//! Where the broker's credentials come from: what each service is asked, and what its refusals become.

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tests::broker::{Broker, SECRET, token};
use tests::hostile::{FakeRegistry, answer};
use tests::ministack::{MiniStack, Moto};
use tests::programs::run;
use tests::services::{GITLAB_TOKEN, HARBOR_LIFE, HARBOR_USER, Made, gitlab, harbor};

const ROLE: &str = "arn:aws:iam::000000000000:role/push";

/// Asks MiniStack's IAM as root; it does not check root's signature.
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

/// A role that the account may assume, with the right to do this.
fn role(ministack: &MiniStack, name: &str, action: &str) {
    let form = |value: &Value| {
        value
            .to_string()
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>()
    };
    let trust = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::000000000000:root" }, "Action": "sts:AssumeRole" } ] });
    let rights = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": action, "Resource": "*" } ] });
    let role = format!("Version=2010-05-08&RoleName={name}");
    iam(
        ministack,
        &format!(
            "Action=CreateRole&{role}&AssumeRolePolicyDocument={}",
            form(&trust)
        ),
    );
    iam(
        ministack,
        &format!(
            "Action=PutRolePolicy&{role}&PolicyName=p&PolicyDocument={}",
            form(&rights)
        ),
    );
}

/// MiniStack with a role that may do all of ECR.
pub(crate) fn ministack_with_role() -> MiniStack {
    let ministack = MiniStack::with_auth(true);
    role(&ministack, "push", "ecr:*");
    ministack
}

/// `[registry] type = "ecr"` with these endpoints.
pub(crate) fn ecr<'a>(role: &'a str, url: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("HOST_PROXY_REGISTRY__TYPE", "ecr"),
        ("HOST_PROXY_REGISTRY__REGION", "us-east-1"),
        ("HOST_PROXY_REGISTRY__ACCOUNT_ID", "000000000000"),
        ("HOST_PROXY_REGISTRY__REPO_PREFIX", "rise/"),
        ("HOST_PROXY_REGISTRY__PUSH_ROLE_ARN", role),
        ("HOST_PROXY_REGISTRY__ENDPOINT_URL", url),
    ]
}

#[test]
fn ecr_credentials_come_from_a_session_for_one_project() {
    let ministack = ministack_with_role();
    let url = ministack.url();
    let broker = Broker::start(&ecr(ROLE, &url));
    let mine = token("ci", &["my-app"], SECRET);
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    assert_eq!(status, 200, "{answer}\n{}", broker.daemon.log());
    let credentials = &answer["credentials"];
    assert_eq!(
        credentials["registry_url"],
        "000000000000.dkr.ecr.us-east-1.amazonaws.com"
    );
    assert_eq!(credentials["username"], "AWS");
    let password = credentials["password"].as_str().unwrap();
    assert!(!password.is_empty() && !broker.daemon.log().contains(password));
    let expires_in = credentials["expires_in"].as_u64().unwrap();
    assert!(
        (11 * 3600..=12 * 3600).contains(&expires_in),
        "{expires_in} s, by ECR's own word"
    );
    assert_eq!(answer["repository"], "my-app");
    // The same by the image's name; and nothing for one that is nobody's.
    let by_image = "?image=000000000000.dkr.ecr.us-east-1.amazonaws.com/rise/my-app:v1&action=pull";
    assert_eq!(broker.ask(by_image, Some(&mine)).1["repository"], "my-app");
    for foreign in [
        "ghcr.io/rise/my-app",
        "000000000000.dkr.ecr.us-east-1.amazonaws.com/my-app",
        "%00",
    ] {
        assert_eq!(
            broker.ask(&format!("?image={foreign}"), Some(&mine)).0,
            404,
            "{foreign}"
        );
    }

    let broker = Broker::start(&ecr("arn:aws:iam::000000000000:role/nobody", &url));
    let (status, answer) = broker.ask("?project=my-app", Some(&mine));
    assert!(matches!(status, 502 | 503), "{answer}");
    assert!(
        broker.daemon.log().contains("cannot assume the role"),
        "{}",
        broker.daemon.log()
    );
}

/// Between the daemon and MiniStack: remembers what came back.
fn eavesdrop(ministack: &MiniStack) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (heard, port) = (Arc::new(Mutex::new(String::new())), ministack.port);
    let ear = heard.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to, ear) = (server, client, ear.clone());
            std::thread::spawn(move || {
                let mut piece = [0; 16 * 1024];
                while let Ok(len @ 1..) = from.read(&mut piece) {
                    ear.lock()
                        .unwrap()
                        .push_str(&String::from_utf8_lossy(&piece[..len]));
                    if to.write_all(&piece[..len]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, heard)
}

/// AWS credentials: those of a session, or root's.
#[derive(Clone)]
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
    fn heard(heard: &Mutex<String>) -> Session {
        let heard = heard.lock().unwrap();
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
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--aws-sigv4",
            "aws:amz:us-east-1:ecr",
            "--user",
            &self.user,
        ])
        .args(["-H", "content-type: application/x-amz-json-1.1"])
        .args([
            "-H",
            &format!("x-amz-target: AmazonEC2ContainerRegistry_V20150921.{action}"),
        ])
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
        use base64::Engine as _;
        let layer = b"a layer";
        let upload = self.ecr(
            ministack,
            "InitiateLayerUpload",
            &json!({ "repositoryName": repository }),
        )?;
        let upload = upload["uploadId"].as_str().unwrap();
        let blob = base64::engine::general_purpose::STANDARD.encode(layer);
        let part = json!({
            "repositoryName": repository, "uploadId": upload, "partFirstByte": 0, "partLastByte": layer.len() - 1,
            "layerPartBlob": blob,
        });
        self.ecr(ministack, "UploadLayerPart", &part)?;
        let digest = oci::Digest::of(layer).to_string();
        let whole =
            json!({ "repositoryName": repository, "uploadId": upload, "layerDigests": [digest] });
        self.ecr(ministack, "CompleteLayerUpload", &whole)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": layer.len() },
            "layers": [],
        });
        let image = json!({ "repositoryName": repository, "imageManifest": manifest.to_string(), "imageTag": "v1" });
        self.ecr(ministack, "PutImage", &image).map(drop)
    }
}

#[test]
fn a_session_for_a_reaches_a_and_nothing_else() {
    let ministack = ministack_with_role();
    let root = Session::root();
    for repository in ["rise/a", "rise/b"] {
        root.ecr(
            &ministack,
            "CreateRepository",
            &json!({ "repositoryName": repository }),
        )
        .unwrap();
        root.push(&ministack, repository).unwrap();
    }
    let (url, heard) = eavesdrop(&ministack);
    let broker = Broker::start(&ecr(ROLE, &url));
    let mine = token("ci", &["a"], SECRET);
    let session = |query: &str| {
        let (status, answer) = broker.ask(query, Some(&mine));
        assert_eq!(status, 200, "{answer}\n{}", broker.daemon.log());
        Session::heard(&heard)
    };
    let denied = |result: Result<Value, String>, what: &str| {
        let kind = result.expect_err(what);
        assert!(kind.starts_with("AccessDenied"), "{what}: {kind}");
    };
    let of = |repository: &str| json!({ "repositoryName": repository });
    let image = |repository: &str| json!({ "repositoryName": repository, "imageIds": [{ "imageTag": "v1" }] });

    let push = session("?project=a");
    push.push(&ministack, "rise/a").unwrap();
    push.ecr(&ministack, "BatchGetImage", &image("rise/a"))
        .unwrap();
    denied(
        push.push(&ministack, "rise/b").map(Value::from),
        "push to b",
    );
    denied(
        push.ecr(&ministack, "BatchGetImage", &image("rise/b")),
        "pull from b",
    );
    denied(
        push.ecr(&ministack, "DescribeRepositories", &json!({})),
        "DescribeRepositories",
    );
    denied(
        push.ecr(&ministack, "DeleteRepository", &of("rise/a")),
        "DeleteRepository a",
    );
    denied(
        push.ecr(&ministack, "DeleteRepository", &of("rise/b")),
        "DeleteRepository b",
    );
    denied(
        push.ecr(&ministack, "BatchDeleteImage", &image("rise/a")),
        "BatchDeleteImage",
    );

    let pull = session("?project=a&action=pull");
    let layer = oci::Digest::of(b"a layer").to_string();
    pull.ecr(&ministack, "BatchGetImage", &image("rise/a"))
        .unwrap();
    for action in [
        "BatchCheckLayerAvailability",
        "InitiateLayerUpload",
        "UploadLayerPart",
        "CompleteLayerUpload",
        "PutImage",
    ] {
        let body = json!({
            "repositoryName": "rise/a", "layerDigests": [&layer], "uploadId": "x", "partFirstByte": 0, "partLastByte": 1,
            "layerPartBlob": "AA==", "imageManifest": "{}",
        });
        denied(pull.ecr(&ministack, action, &body), action);
    }
    let log = broker.daemon.log();
    assert!(
        !log.contains(&push.token) && !log.contains(&pull.token),
        "{log}"
    );
}

#[test]
fn a_role_of_the_daemons_own_is_assumed_before() {
    let ministack = ministack_with_role();
    role(&ministack, "backend", "sts:AssumeRole");
    role(&ministack, "powerless", "s3:GetObject");
    let (url, heard) = eavesdrop(&ministack);
    let mine = token("ci", &["team/my-app"], SECRET);
    let ask = |own: &str| {
        let own = format!("arn:aws:iam::000000000000:role/{own}");
        let broker = Broker::start(
            &[
                &ecr(ROLE, &url)[..],
                &[("HOST_PROXY_REGISTRY__ROLE_ARN", own.as_str())],
            ]
            .concat(),
        );
        let (status, answer) = broker.ask("?project=team%2Fmy-app", Some(&mine));
        (status, answer, broker.daemon.log())
    };
    let (status, answer, log) = ask("backend");
    assert_eq!(status, 200, "{answer}\n{log}");
    let heard = heard.lock().unwrap().clone();
    for session in [
        "role/backend/redoubt-team-my-app",
        "role/push/redoubt-team-my-app",
    ] {
        assert!(heard.contains(session), "{session} in {heard}");
    }
    let (status, answer, log) = ask("powerless");
    assert_eq!(status, 502, "{answer}");
    assert!(log.contains("AccessDenied"), "{log}");
}

/// moto's ECR issues tokens that ended in 2015.
#[test]
fn a_token_that_is_over_when_it_comes_is_given_to_nobody() {
    let moto = Moto::start();
    let url = moto.url();
    let broker = Broker::start(&ecr("arn:aws:iam::123456789012:role/push", &url));
    let (status, answer) = broker.ask("?project=my-app", Some(&token("ci", &["my-app"], SECRET)));
    assert_eq!(status, 503, "{answer}");
    assert!(
        broker.daemon.log().contains("issued an expired token"),
        "{}",
        broker.daemon.log()
    );
}

/// As STS words its errors.
fn sts_error(status: u16, code: &str, message: &str) -> tests::hostile::Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ErrorResponse>"
    );
    answer(status, &[("content-type", "text/xml")], body)
}

/// An answer of STS's that cannot be read to its end, and that holds a secret.
const SPOILT: &str = "<AssumeRoleResponse><AssumeRoleResult><Credentials><SecretAccessKey>spoilt-secret</SecretAccessKey>\
                      <Expiration>tomorrow</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

#[tokio::test(flavor = "multi_thread")]
async fn what_sts_refuses_is_told_apart() {
    let refuses = |status: u16, code: &'static str| {
        FakeRegistry::start(move |_| sts_error(status, code, "no <b>words</b>"))
    };
    let mine = token("ci", &["my-app"], SECRET);
    for (server, expected, words) in [
        (refuses(403, "AccessDenied").await, 502, "AccessDenied"),
        (
            refuses(400, "PackedPolicyTooLarge").await,
            502,
            "PackedPolicyTooLarge",
        ),
        (refuses(400, "Throttling").await, 503, "Throttling"),
        (
            refuses(500, "InternalFailure").await,
            503,
            "InternalFailure",
        ),
        (
            FakeRegistry::start(|_| answer(200, &[("content-type", "text/xml")], SPOILT)).await,
            503,
            "cannot assume the role",
        ),
    ] {
        let url = format!("http://{}", server.host());
        let broker = Broker::start(&ecr(ROLE, &url));
        let (status, told) = broker.ask("?project=my-app", Some(&mine));
        let log = broker.daemon.log();
        assert_eq!(status, expected, "{words}: {told}\n{log}");
        assert_eq!(
            told.to_string().contains("received too many requests"),
            words == "Throttling",
            "{told}"
        );
        assert!(
            log.contains(words) && !log.contains("spoilt-secret"),
            "{words} in {log}"
        );
        assert!(
            !told.to_string().contains(words),
            "what AWS said is the operator's: {told}"
        );
    }
    let nobody = format!("http://127.0.0.1:{}", tests::free_port());
    assert_eq!(
        Broker::start(&ecr(ROLE, &nobody))
            .ask("?project=my-app", Some(&mine))
            .0,
        503
    );
    // One that takes the connection and is silent.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    assert_eq!(
        Broker::start(&ecr(ROLE, &url))
            .ask("?project=my-app", Some(&mine))
            .0,
        504
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_at_once_are_one_question() {
    let made = Made::default();
    let server = FakeRegistry::start(harbor(
        made.clone(),
        ("robot$my-app+redoubt-1", "Robot-secret-of-test-1"),
    ))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (url, file) = (
        format!("http://{}", server.host()),
        secret_file(&folder, HARBOR_USER.1),
    );
    let broker = Broker::start(&[
        ("HOST_PROXY_REGISTRY__TYPE", "harbor"),
        ("HOST_PROXY_REGISTRY__URL", &url),
        ("HOST_PROXY_REGISTRY__USERNAME", HARBOR_USER.0),
        ("HOST_PROXY_REGISTRY__PASSWORD_FILE", &file),
        ("HOST_PROXY_BROKER__RATE_PER_MINUTE", "2000"),
    ]);
    let (port, mine) = (broker.port, token("ci", &["my-app"], SECRET));
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let request = format!(
            "GET /registry/credentials?project=my-app HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mine}\r\n\r\n"
        );
        jobs.spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    for answer in jobs.join_all().await {
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("Robot-secret-of-test-1"),
            "{answer}"
        );
    }
    assert_eq!(made.lock().unwrap().len(), 1);
    assert_eq!(
        server
            .asked()
            .iter()
            .filter(|asked| asked.method == "POST")
            .count(),
        1
    );
}

/// A secret in a file of its own.
fn secret_file(folder: &tempfile::TempDir, text: &str) -> String {
    let path = folder.path().join("service-secret");
    std::fs::write(&path, format!("{text}\n")).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_makes_a_deploy_token_for_one_project() {
    let made = Made::default();
    let server = FakeRegistry::start(gitlab(
        made.clone(),
        ("gitlab+deploy-token-1", "gldt-secret-of-test"),
    ))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (url, file) = (
        format!("http://{}/", server.host()),
        secret_file(&folder, GITLAB_TOKEN),
    );
    let broker = Broker::start(&[
        ("HOST_PROXY_REGISTRY__TYPE", "gitlab"),
        ("HOST_PROXY_REGISTRY__URL", &url),
        ("HOST_PROXY_REGISTRY__REGISTRY_URL", "registry.example.com"),
        ("HOST_PROXY_REGISTRY__NAMESPACE", "group/apps"),
        ("HOST_PROXY_REGISTRY__TOKEN_FILE", &file),
    ]);
    let projects = [
        "my-app",
        "web",
        "not-a-maintainer",
        "too-often",
        "upgrading",
        "odd",
        "endless",
        "unknown",
    ];
    let mine = token("ci", &projects, SECRET);
    let ask = |query: &str| broker.ask(query, Some(&mine));
    // One of ours is over, and somebody else's too.
    let over = |id: u8, name: &str| json!({ "id": id, "name": name, "expired": false, "expires_at": "2026-01-02T03:04:05.000Z" });
    made.lock()
        .unwrap()
        .extend([over(100, "redoubt"), over(101, "somebody's")]);

    let (status, told) = ask("?project=my-app");
    assert_eq!(status, 200, "{told}\n{}", broker.daemon.log());
    let granted = &told["credentials"];
    assert_eq!(granted["registry_url"], "registry.example.com");
    assert_eq!(
        (&granted["username"], &granted["password"]),
        (
            &json!("gitlab+deploy-token-1"),
            &json!("gldt-secret-of-test")
        )
    );
    let expires_in = granted["expires_in"].as_u64().unwrap();
    assert!((3500..=3600).contains(&expires_in), "{expires_in}");
    for image in ["my-app:v1", "my-app/web", "my-app/web/nginx"] {
        let told = ask(&format!(
            "?image=registry.example.com/group/apps/{image}&action=pull"
        ))
        .1;
        assert_eq!(told["repository"], "my-app", "{image}");
    }
    assert_eq!(ask("?project=my-app").0, 200);
    {
        let made = made.lock().unwrap();
        let scopes: Vec<&Value> = made
            .iter()
            .filter(|token| token["name"] == "redoubt")
            .map(|token| &token["scopes"])
            .collect();
        assert_eq!(
            scopes,
            [
                &json!(["read_registry", "write_registry"]),
                &json!(["read_registry"])
            ],
            "asked twice, cached once"
        );
        assert!(
            made.iter().any(|token| token["name"] == "somebody's"),
            "only our own are tidied away"
        );
        assert!(!made.iter().any(|token| token["id"] == 100));
    }
    let before = made.lock().unwrap().len();
    for (project, expected, words) in [
        ("unknown", 404, "404 Project Not Found"),
        ("not-a-maintainer", 502, "403 Forbidden"),
        ("too-often", 503, "answered 429"),
        ("upgrading", 503, "answered 502"),
        ("odd", 503, "not what its API promises"),
        ("endless", 503, "never expires; it was deleted"),
    ] {
        let (head, told) = broker.exchange(&format!("?project={project}"), Some(&mine));
        assert!(
            head.starts_with(&format!("HTTP/1.1 {expected}")),
            "{project}: {head}"
        );
        assert_eq!(
            head.contains("retry-after: 23"),
            project == "too-often",
            "{head}"
        );
        assert!(broker.daemon.log().contains(words), "{words}");
        assert!(!told.to_string().contains(words), "{told}");
    }
    assert_eq!(made.lock().unwrap().len(), before, "nothing is left behind");
    // The daemon's own token runs out, and is replaced without a restart.
    for (own, words) in [
        ("expired", "Token is expired"),
        ("read-only", "higher privileges"),
        ("", "empty"),
    ] {
        secret_file(&folder, own);
        assert_eq!(ask("?project=unknown").0, 502);
        assert!(broker.daemon.log().contains(words), "{words}");
    }
    let log = broker.daemon.log();
    assert!(
        !log.contains(GITLAB_TOKEN) && !log.contains("gldt-secret") && !log.contains("<html>"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn harbor_makes_a_robot_for_one_project() {
    let made = Made::default();
    let server = FakeRegistry::start(harbor(
        made.clone(),
        ("robot$my-app+redoubt-1", "Robot-secret-of-test-1"),
    ))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (url, file) = (
        format!("http://{}", server.host()),
        secret_file(&folder, HARBOR_USER.1),
    );
    let broker = Broker::start(&[
        ("HOST_PROXY_REGISTRY__TYPE", "harbor"),
        ("HOST_PROXY_REGISTRY__URL", &url),
        ("HOST_PROXY_REGISTRY__USERNAME", HARBOR_USER.0),
        ("HOST_PROXY_REGISTRY__PASSWORD_FILE", &file),
    ]);
    let mine = token(
        "ci",
        &[
            "my-app",
            "not-mine",
            "down",
            "endless",
            "unknown",
            "my-app/part",
        ],
        SECRET,
    );
    let ask = |query: &str| broker.ask(query, Some(&mine));
    let over = |id: u8, name: &str| json!({ "id": id, "name": name, "expires_at": 1_600_000_000 });
    made.lock().unwrap().extend([
        over(100, "robot$my-app+redoubt-0a"),
        over(101, "robot$my-app+nightly"),
    ]);

    let (status, told) = ask("?project=my-app");
    assert_eq!(status, 200, "{told}\n{}", broker.daemon.log());
    let granted = &told["credentials"];
    assert_eq!(granted["registry_url"], server.host());
    assert_eq!(
        (&granted["username"], &granted["password"]),
        (
            &json!("robot$my-app+redoubt-1"),
            &json!("Robot-secret-of-test-1")
        )
    );
    let expires_in = granted["expires_in"].as_u64().unwrap();
    assert!(
        (HARBOR_LIFE - 60..=HARBOR_LIFE).contains(&expires_in),
        "{expires_in}"
    );
    // From the cache, and less than before.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (head, told) = broker.exchange("?project=my-app", Some(&mine));
    assert!(
        told["credentials"]["expires_in"].as_u64().unwrap() < expires_in,
        "{told}"
    );
    let id = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "))
        .unwrap();
    let log = broker.daemon.log();
    let line = log.lines().find(|line| line.contains(id)).unwrap();
    for part in [
        "credentials issued",
        "subject=\"ci\"",
        "project=\"my-app\"",
        "action=\"push\"",
        "expires_at=\"20",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(
        ask(&format!(
            "?image={}/my-app/web--x/y:v1&action=pull",
            server.host()
        ))
        .1["repository"],
        "my-app"
    );
    {
        let made = made.lock().unwrap();
        let granted: Vec<String> = made
            .iter()
            .filter_map(|robot| Some(robot.get("permissions")?[0]["access"].to_string()))
            .collect();
        let pull = json!({ "resource": "repository", "action": "pull" });
        let push = json!({ "resource": "repository", "action": "push" });
        assert_eq!(
            granted,
            [json!([pull, push]).to_string(), json!([pull]).to_string()]
        );
        let names: Vec<&Value> = made.iter().map(|robot| &robot["id"]).collect();
        assert!(
            names.contains(&&json!(101)) && !names.contains(&&json!(100)),
            "{names:?}"
        );
    }
    // Revoked by hand: a new one is made once somebody says so.
    assert_eq!(ask("?project=my-app").0, 200);
    let robots = || {
        made.lock()
            .unwrap()
            .iter()
            .filter(|robot| robot.get("permissions").is_some())
            .count()
    };
    assert_eq!(robots(), 2);
    assert_eq!(broker.daemon.ctl(&["registry", "forget"], "").code, 0);
    assert_eq!(ask("?project=my-app").0, 200);
    assert_eq!(robots(), 3);
    let before = made.lock().unwrap().len();
    for (project, expected, words) in [
        ("unknown", 404, "project unknown not found"),
        ("my-app/part", 404, "a project is lower-case"),
        ("not-mine", 502, "forbidden"),
        ("down", 503, "internal server error"),
        ("endless", 503, "never expires"),
    ] {
        let (status, told) = ask(&format!("?project={project}"));
        assert_eq!(status, expected, "{project}: {told}");
        assert!(broker.daemon.log().contains(words), "{words}");
        assert!(!told.to_string().contains(words), "{told}");
    }
    assert_eq!(made.lock().unwrap().len(), before, "nothing is left behind");
    secret_file(&folder, "changed");
    assert_eq!(ask("?project=unknown").0, 502);
    let log = broker.daemon.log();
    assert!(log.contains("unauthorized"), "{log}");
    assert!(
        !log.contains(HARBOR_USER.1) && !log.contains("Robot-secret"),
        "{log}"
    );
}
