//! The broker's credentials in the hands of docker's protocol, skopeo, a kubelet, and the daemon's own deploys.

use crate::deploy::files_with;
use crate::providers::{ecr, ministack_with_role};
use crate::{SPEC, listing_image};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::broker::{Broker, SECRET, token};
use tests::daemon::{Answer, exchange};
use tests::hostile::FakeRegistry;
use tests::programs::{ours, run};
use tests::registry::{PASSWORD, Registry, USER};
use tests::services::{HARBOR_LIFE, HARBOR_USER, Made, harbor};

const ROLE: &str = "arn:aws:iam::000000000000:role/push";
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A home of somebody who has the programs on the PATH, docker's helper among them.
struct Home {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    fn new() -> Home {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(
            ours("enclavectl"),
            programs.join("docker-credential-redoubt"),
        )
        .unwrap();
        Home {
            folder,
            variables: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        command
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DOCKER_CONFIG")
            .env("HOME", self.folder.path())
            .env("PATH", path)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str], stdin: &str) -> Answer {
        exchange(self.command(program).args(arguments), stdin)
    }

    fn registry(&self, arguments: &[&str], stdin: &str) -> Answer {
        self.run(
            ours("enclavectl"),
            &[&["registry"], arguments].concat(),
            stdin,
        )
    }

    fn login(&self, broker: &str, token_file: &Path, more: &[&str]) -> Answer {
        let own = [
            "login",
            "--broker",
            broker,
            "--token-file",
            token_file.to_str().unwrap(),
        ];
        self.registry(&[&own[..], more].concat(), "")
    }

    fn helper(&self, verb: &str, stdin: &str) -> Answer {
        self.run(self.path("bin/docker-credential-redoubt"), &[verb], stdin)
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(".docker/config.json")).unwrap()).unwrap()
    }
}

/// docker-registry, and a broker that has Harbor make credentials for it.
struct Shop {
    registry: Registry,
    broker: Broker,
    _harbor: FakeRegistry,
}

impl Shop {
    async fn open() -> Shop {
        let registry = Registry::start();
        let service = FakeRegistry::start(harbor(Made::default(), (USER, PASSWORD))).await;
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("harbor");
        std::fs::write(&password, HARBOR_USER.1).unwrap();
        let (url, password) = (
            format!("http://{}", service.host()),
            password.display().to_string(),
        );
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let (secret, host) = (secret.display().to_string(), registry.host());
        let settings = [
            ("HOST_PROXY_BROKER__JWT_SECRET_FILE", secret.as_str()),
            ("HOST_PROXY_REGISTRY__TYPE", "harbor"),
            ("HOST_PROXY_REGISTRY__URL", &url),
            ("HOST_PROXY_REGISTRY__REGISTRY_URL", &host),
            ("HOST_PROXY_REGISTRY__USERNAME", HARBOR_USER.0),
            ("HOST_PROXY_REGISTRY__PASSWORD_FILE", &password),
        ];
        Shop {
            broker: Broker::start_in(folder, &settings),
            registry,
            _harbor: service,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pushes_with_credentials_that_are_written_nowhere() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (home, host) = (Home::new(), registry.host());
    std::fs::create_dir(home.path(".docker")).unwrap();
    std::fs::write(
        home.path(".docker/config.json"),
        r#"{"auths":{"other.example":{"auth":"dTpw"}},"detachKeys":"ctrl-e"}"#,
    )
    .unwrap();
    let layout = home.path("layout");
    listing_image().write(&layout);
    let file = broker.token_file(&["my-app"]);
    let push = || {
        let mut skopeo = home.command("skopeo");
        skopeo
            .args([
                "copy",
                "--quiet",
                "--preserve-digests",
                "--dest-tls-verify=false",
                "--authfile",
            ])
            .arg(home.path(".docker/config.json"))
            .arg(format!("oci:{}:v1", layout.display()))
            .arg(format!("docker://{host}/my-app/web:v1"));
        skopeo.output().unwrap()
    };
    assert!(!push().status.success(), "nobody logged in yet");

    let answer = home.login(&broker.url(), &file, &["--project", "my-app"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer
            .stderr
            .contains("docker-credential-redoubt asks the broker for my-app"),
        "{answer:?}"
    );
    assert!(!answer.stderr.contains("warning"), "{answer:?}");
    let config = home.config();
    assert_eq!(config["credHelpers"], json!({ (host.as_str()): "redoubt" }));
    assert_eq!(
        (
            &config["auths"]["other.example"]["auth"],
            &config["detachKeys"]
        ),
        (&json!("dTpw"), &json!("ctrl-e"))
    );
    let pushed = push();
    assert!(
        pushed.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&pushed.stderr),
        broker.daemon.log()
    );
    let tags = run(Command::new("curl")
        .args(["-sSf", "-u", &format!("{USER}:{PASSWORD}")])
        .arg(format!("http://{host}/v2/my-app/web/tags/list")));
    assert!(tags.contains("v1"), "{tags}");
    for secret in [
        PASSWORD.as_bytes(),
        std::fs::read(&file).unwrap().as_slice(),
    ] {
        assert_eq!(files_with(home.folder.path(), secret), Vec::<String>::new());
    }

    let elsewhere = home.login(
        &broker.url(),
        &file,
        &[
            "--project",
            "my-app",
            "--authfile",
            home.path("other.json").to_str().unwrap(),
        ],
    );
    assert_eq!(elsewhere.code, 0, "{elsewhere:?}");
    // And eif-builder, which speaks to helpers too, pulls it again.
    let output = home.path("app.eif");
    let mut builder = home.command(ours("eif-builder"));
    builder
        .args([
            "build",
            &format!("{host}/my-app/web:v1"),
            "--plain-http",
            &host,
            "--json",
            "-o",
        ])
        .arg(&output)
        .env("REDOUBT_LIB", tests::programs::lib());
    assert!(run(&mut builder).contains("PCR0"));

    assert_eq!(home.registry(&["logout", &host], "").code, 0);
    assert_eq!(home.config()["credHelpers"], json!({}));
    assert!(!push().status.success(), "nobody is logged in any more");
    assert_eq!(home.registry(&["logout", &host], "").code, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_speaks_dockers_protocol() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (mut home, host) = (Home::new(), registry.host());
    let file = broker.token_file(&["my-app"]);
    let unknown = home.helper("get", &host);
    assert_eq!(
        (unknown.code, unknown.stdout.trim()),
        (1, NOT_FOUND),
        "before any login"
    );
    assert_eq!(home.helper("list", "").stdout.trim(), "{}");
    assert_eq!(
        home.login(&broker.url(), &file, &["--project", "my-app", "--pull"])
            .code,
        0
    );

    for server in [
        host.clone(),
        format!("https://{host}"),
        format!("https://{host}/v2/\n"),
    ] {
        let got = home.helper("get", &server);
        let found: Value = serde_json::from_str(&got.stdout).unwrap();
        assert_eq!(
            found,
            json!({ "ServerURL": server.trim(), "Username": USER, "Secret": PASSWORD })
        );
    }
    let listed: Value = serde_json::from_str(&home.helper("list", "").stdout).unwrap();
    assert_eq!(listed, json!({ (host.as_str()): USER }));
    let other = home.helper("get", "ghcr.io");
    assert_eq!((other.code, other.stdout.trim()), (1, NOT_FOUND));
    for verb in ["store", "erase"] {
        let refused = home.helper(
            verb,
            &json!({ "ServerURL": host, "Username": "u", "Secret": "hunter2" }).to_string(),
        );
        assert_eq!(refused.code, 1);
        assert!(
            refused.stdout.contains("keeps no credentials") && !refused.stdout.contains("hunter2"),
            "{refused:?}"
        );
    }
    assert_eq!(home.helper("dance", "").code, 1);
    // The token is over: docker is told so, and not that there is nothing.
    std::fs::write(&file, token("ci", &["my-app"], &[7; 32])).unwrap();
    let refused = home.helper("get", &host);
    assert!(
        refused.code == 1 && refused.stdout.contains("the token has not expired"),
        "{refused:?}"
    );
    std::fs::remove_file(&file).unwrap();
    assert!(
        home.helper("get", &host).stdout.contains("No such file"),
        "it is read for each question"
    );

    // A job that writes nothing at all.
    home = Home::new();
    let file = broker.token_file(&["my-app"]);
    home.variables = [
        ("BROKER", broker.url()),
        ("PROJECT", "my-app".to_owned()),
        ("BROKER_TOKEN_FILE", file.display().to_string()),
    ]
    .map(|(name, value)| (format!("REDOUBT_{name}"), value))
    .to_vec();
    assert!(home.helper("get", &host).stdout.contains(PASSWORD));
    assert_eq!(home.helper("get", "ghcr.io").stdout.trim(), NOT_FOUND);
    home.variables.retain(|(name, _)| name != "REDOUBT_PROJECT");
    let half = home.helper("get", &host);
    assert!(
        half.code == 1
            && half
                .stdout
                .contains("only one of REDOUBT_BROKER and REDOUBT_PROJECT"),
        "{half:?}"
    );
    home.variables
        .push(("REDOUBT_PROJECT".to_owned(), "my-app".to_owned()));
    assert!(
        home.registry(&["helper", "get"], &host)
            .stdout
            .contains(PASSWORD),
        "the same by its long name"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_to_the_helper_that_keeps_the_others() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (home, host) = (Home::new(), registry.host());
    let file = broker.token_file(&["my-app"]);
    // A fake helper, which keeps what it gets in a file.
    let shelf = home.path("bin/docker-credential-shelf");
    std::fs::write(
        &shelf,
        format!("#!/bin/sh\ncat > {}/$1\n", home.folder.path().display()),
    )
    .unwrap();
    std::fs::set_permissions(&shelf, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(home.path(".docker")).unwrap();
    std::fs::write(
        home.path(".docker/config.json"),
        r#"{"credsStore":"shelf"}"#,
    )
    .unwrap();

    let answer = home.registry(
        &[
            "login",
            "--broker",
            &broker.url(),
            "--token-file",
            file.to_str().unwrap(),
            "--project",
            "my-app",
        ],
        "",
    );
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer
            .stderr
            .contains("docker-credential-shelf keeps the credentials for my-app, for 83"),
        "{answer:?}"
    );
    let stored: Value =
        serde_json::from_slice(&std::fs::read(home.path("store")).unwrap()).unwrap();
    assert_eq!(
        stored,
        json!({ "ServerURL": host, "Username": USER, "Secret": PASSWORD })
    );
    assert_eq!(
        home.config(),
        json!({ "credsStore": "shelf" }),
        "docker's configuration is right as it is"
    );
    assert_eq!(home.registry(&["logout", &host], "").code, 0);
    assert_eq!(std::fs::read_to_string(home.path("erase")).unwrap(), host);
    // One that refuses.
    std::fs::write(&shelf, "#!/bin/sh\ncat; exit 1\n").unwrap();
    let refused = home.login(&broker.url(), &file, &["--project", "my-app"]);
    assert_eq!(refused.code, 69);
    assert!(
        refused.stderr.contains("did not store the credentials")
            && !refused.stderr.contains(PASSWORD),
        "{refused:?}"
    );
    // Ours, if it is asked for.
    let json = home.run(
        ours("enclavectl"),
        &[
            "--json",
            "registry",
            "login",
            "--broker",
            &broker.url(),
            "--token-file",
            file.to_str().unwrap(),
            "--project",
            "my-app",
            "--own-helper",
        ],
        "",
    );
    let told: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&told["helper"], &told["registry_url"]),
        (&json!("redoubt"), &json!(host))
    );
    assert_eq!(
        home.config()["credHelpers"],
        json!({ (host.as_str()): "redoubt" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_says_what_to_do() {
    let shop = Shop::open().await;
    let broker = &shop.broker;
    let home = Home::new();
    let file = broker.token_file(&["my-app"]);
    let foreign = home.path("foreign");
    std::fs::write(&foreign, token("ci", &["my-app"], &[7; 32])).unwrap();
    let nobody = format!("http://127.0.0.1:{}", tests::free_port());
    let check = |broker: &str, file: &Path, project: &str, code: i32, words: &str| {
        let answer = home.login(broker, file, &["--project", project]);
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(answer.stderr.contains(words), "{words} in {answer:?}");
    };
    let url = broker.url();
    check(
        &url,
        &foreign,
        "my-app",
        77,
        "Check that the token has not expired",
    );
    check(
        &url,
        &file,
        "other",
        77,
        "the token (or a rule of the broker) allows this project",
    );
    check(&url, &file, "my-app:v1", 64, "no registry, no tag");
    check(
        &format!("{url}/elsewhere"),
        &file,
        "my-app",
        64,
        "scheme, host and port",
    );
    check(
        &url.replace("http:", "https:"),
        &file,
        "my-app",
        69,
        "The server does not speak TLS",
    );
    check(
        &url,
        &home.path("missing"),
        "my-app",
        64,
        "Check --token-file",
    );
    check(
        &nobody,
        &file,
        "my-app",
        69,
        "Check the broker's URL, and that it is running",
    );
    check(
        "http://broker.example",
        &file,
        "my-app",
        64,
        "http:// is for loopback only",
    );
    assert!(
        !home.path(".docker").exists() && !home.path(".config").exists(),
        "nothing was written"
    );
    std::fs::create_dir(home.path(".docker")).unwrap();
    std::fs::write(home.path(".docker/config.json"), "{ secret").unwrap();
    check(&url, &file, "my-app", 65, "config.json: malformed (line 1");
    assert_eq!(
        std::fs::read_to_string(home.path(".docker/config.json")).unwrap(),
        "{ secret"
    );

    // A login that docker has is not replaced by what a broker says.
    let host = shop.registry.host();
    let config = json!({ "auths": { (host.as_str()): { "auth": "dTpw" } } });
    std::fs::write(home.path(".docker/config.json"), config.to_string()).unwrap();
    check(&url, &file, "my-app", 77, &format!("--registry {host}"));
    assert_eq!(home.config(), config);
    let named = |registry: &str| {
        home.login(
            &url,
            &file,
            &["--project", "my-app", "--registry", registry],
        )
    };
    assert_eq!((named("other.example").code, named(&host).code), (77, 0));
    assert_eq!(
        home.config()["credHelpers"],
        json!({ (host.as_str()): "redoubt" })
    );

    let docker = Broker::start(&[
        ("HOST_PROXY_REGISTRY__TYPE", "docker"),
        ("HOST_PROXY_REGISTRY__REGISTRY_URL", "r.example"),
    ]);
    let answer = home.login(
        &docker.url(),
        &docker.token_file(&["app"]),
        &["--project", "app"],
    );
    assert!(
        answer.code == 0 && answer.stderr.contains("docker login r.example"),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_gets_credentials_for_one_image() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (home, host) = (Home::new(), registry.host());
    let file = broker.token_file(&["nothing"]);
    let request = |image: &str, token: Option<&str>| {
        json!({
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderRequest",
            "image": image, "serviceAccountToken": token, "serviceAccountAnnotations": {},
        })
    };
    let ask = |request: &Value| {
        let arguments = [
            "kubelet",
            "--broker",
            &broker.url(),
            "--token-file",
            file.to_str().unwrap(),
        ];
        home.registry(&arguments, &request.to_string())
    };
    let pod = token("system:serviceaccount:shop:web", &["my-app"], SECRET);
    let image = format!("{host}/my-app/web");
    let answer = ask(&request(&image, Some(&pod)));
    let response: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(response["kind"], "CredentialProviderResponse");
    assert_eq!(
        response["apiVersion"],
        "credentialprovider.kubelet.k8s.io/v1"
    );
    assert_eq!(response["cacheKeyType"], "Image");
    let seconds: u64 = response["cacheDuration"]
        .as_str()
        .unwrap()
        .strip_suffix('s')
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (HARBOR_LIFE - 400..HARBOR_LIFE - 299).contains(&seconds),
        "{seconds}"
    );
    assert_eq!(
        response["auth"],
        json!({ (image.as_str()): { "username": USER, "password": PASSWORD } })
    );
    // Without a pod's token the node's own counts, which is for something else; and what is not the broker's is nobody's.
    for (image, token) in [
        (image.as_str(), None),
        ("ghcr.io/my-app/web", Some(pod.as_str())),
        (&format!("{host}/other/web"), Some(&pod)),
    ] {
        let response: Value = serde_json::from_str(&ask(&request(image, token)).stdout).unwrap();
        assert_eq!(
            (&response["auth"], &response["cacheDuration"]),
            (&json!({}), &json!("0s")),
            "{image}"
        );
    }
    let mut old = request(&image, Some(&pod));
    old["apiVersion"] = "credentialprovider.kubelet.k8s.io/v1beta1".into();
    for wrong in [old, json!({}), json!("x"), request("NO IMAGE", None)] {
        let answer = ask(&wrong);
        assert!(answer.code == 65 && answer.stdout.is_empty(), "{answer:?}");
    }
    let refused = ask(&request(&image, Some("no.token.atall")));
    assert!(
        refused.code == 77 && refused.stdout.is_empty(),
        "{refused:?}"
    );
}

/// Its first robot's secret is wrong: somebody revoked it. The daemon says so, and has another one at the next deploy.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_were_revoked_are_made_anew_at_the_next_deploy() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    listing_image().write(&layout);
    let reference = registry.push(&layout, "my-app/web:v1");
    let (made, password) = (Made::default(), folder.path().join("harbor"));
    let (revoked, good) = (
        harbor(made.clone(), (USER, "revoked")),
        harbor(made.clone(), (USER, PASSWORD)),
    );
    let service = FakeRegistry::start(move |asked| {
        let is_first = made.lock().unwrap().is_empty();
        if is_first {
            revoked(asked)
        } else {
            good(asked)
        }
    })
    .await;
    std::fs::write(&password, HARBOR_USER.1).unwrap();
    let (url, password, host) = (
        format!("http://{}", service.host()),
        password.display().to_string(),
        registry.host(),
    );
    let daemon = tests::daemon::Daemon::start(&[
        ("HOST_PROXY_REGISTRY__TYPE", "harbor"),
        ("HOST_PROXY_REGISTRY__URL", &url),
        ("HOST_PROXY_REGISTRY__REGISTRY_URL", &host),
        ("HOST_PROXY_REGISTRY__USERNAME", HARBOR_USER.0),
        ("HOST_PROXY_REGISTRY__PASSWORD_FILE", &password),
        ("HOST_PROXY_PULL__PLAIN_HTTP", &format!("['{host}']")),
    ]);
    let spec = folder.path().join("enclave.toml");
    std::fs::write(&spec, SPEC).unwrap();
    let arguments = [
        "create",
        "--name",
        "shop",
        "--image",
        &reference,
        "--spec",
        spec.to_str().unwrap(),
    ];
    let failed = daemon.ctl(&arguments, "");
    assert!(
        failed.code == 1 && failed.stderr.contains("the daemon issues new credentials"),
        "{failed:?}"
    );
    let failure = &daemon.show("shop")["failure"];
    assert_eq!(
        (&failure["code"], &failure["retryable"]),
        (&json!("REGISTRY_UNAUTHORIZED"), &json!(true))
    );
    let again = daemon.ctl(&["redeploy", "shop"], "");
    assert_eq!(again.code, 0, "{again:?}\n{}", daemon.log());
    assert_eq!(daemon.show("shop")["status"], "DEPLOYED");
    assert_eq!(
        files_with(daemon.folder(), PASSWORD.as_bytes()),
        Vec::<String>::new()
    );
}

/// ECR's own registry cannot stand on loopback: docker-registry takes its place, and lets in whoever has the password that ECR's API gave out.
#[test]
fn an_image_of_the_configured_registry_needs_no_stored_credentials() {
    let registry = Registry::start_for("AWS", "ministack-auth-token");
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    listing_image().write(&layout);
    let reference = registry.push(&layout, "rise/my-app:v1");
    let ministack = ministack_with_role();
    let (url, host, plain) = (
        ministack.url(),
        registry.host(),
        format!("['{}']", registry.host()),
    );
    let start = |role: &str| {
        let more = [
            ("HOST_PROXY_REGISTRY__REGISTRY_URL", host.as_str()),
            ("HOST_PROXY_PULL__PLAIN_HTTP", &plain),
        ];
        tests::daemon::Daemon::start(&[&ecr(role, &url)[..], &more].concat())
    };
    let mut daemon = start(ROLE);
    let spec = folder.path().join("enclave.toml");
    std::fs::write(&spec, SPEC).unwrap();
    let create = |daemon: &tests::daemon::Daemon, name: &str, image: &str, more: &[&str]| {
        let own = [
            "create",
            "--name",
            name,
            "--image",
            image,
            "--spec",
            spec.to_str().unwrap(),
        ];
        daemon.ctl(&[&own[..], more].concat(), "")
    };
    let answer = create(&daemon, "shop", &reference, &[]);
    assert_eq!(answer.code, 0, "{answer:?}\n{}", daemon.log());
    let record = daemon.show("shop");
    assert_eq!(
        (&record["status"], &record["source_type"]),
        (&json!("DEPLOYED"), &json!("configured-registry"))
    );
    assert_eq!(record.get("credentials_arn"), None);
    assert!(
        daemon.log().contains("credentials issued for a deploy"),
        "{}",
        daemon.log()
    );
    assert_eq!(
        files_with(daemon.folder(), b"ministack-auth-token"),
        Vec::<String>::new()
    );
    // It comes back with the daemon, with credentials made anew.
    daemon.crash();
    daemon.restart();
    tests::wait_for("the enclave to come back", 90, || {
        daemon.show("shop")["status"] == "DEPLOYED"
    });
    assert_eq!(daemon.ctl(&["terminate", "shop"], "").code, 0);

    // Nobody's rights are borrowed for a name beside the prefix, or against the operator's word.
    let elsewhere = create(
        &daemon,
        "beside",
        &format!("{host}/other/my-app:v1"),
        &["--source-type", "configured-registry"],
    );
    assert!(
        elsewhere.code == 64
            && elsewhere
                .stderr
                .contains("has no credentials for this image"),
        "{elsewhere:?}"
    );
    let public = create(
        &daemon,
        "public",
        &reference,
        &["--source-type", "public-registry"],
    );
    assert!(
        public.code == 1 && public.stderr.contains("credentials"),
        "{public:?}"
    );

    let daemon = start("arn:aws:iam::000000000000:role/nobody");
    let failed = create(&daemon, "shop", &reference, &[]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let failure = &daemon.show("shop")["failure"];
    assert_eq!(failure["stage"], "credentials");
    assert!(
        failure["message"]
            .as_str()
            .unwrap()
            .contains("cannot assume the role"),
        "{failure}"
    );
}
