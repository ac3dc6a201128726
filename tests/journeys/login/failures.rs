//! A login that fails says what to do.

use super::{Home, Shop};
use serde_json::json;
use std::path::{Path, PathBuf};
use tests::broker::{Broker, token};

/// A home, a broker, and a token that is good for `my-app`.
struct Desk {
    shop: Shop,
    home: Home,
    url: String,
    file: PathBuf,
}

/// A login, and how it must fail.
struct Case<'a> {
    broker: &'a str,
    file: &'a Path,
    project: &'a str,
    code: i32,
    words: &'a str,
}

impl Desk {
    async fn new() -> Desk {
        let shop = Shop::open().await;
        Desk {
            url: shop.broker.url(),
            file: shop.broker.token_file(&["my-app"]),
            home: Home::new(),
            shop,
        }
    }

    /// The good login, before something is changed in it.
    fn case<'a>(&'a self, code: i32, words: &'a str) -> Case<'a> {
        Case {
            broker: &self.url,
            file: &self.file,
            project: "my-app",
            code,
            words,
        }
    }

    #[track_caller]
    fn assert_fails(&self, cases: &[Case<'_>]) {
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                let answer = self
                    .home
                    .login(case.broker, case.file, &["--project", case.project]);
                let is_right = answer.code == case.code && answer.stderr.contains(case.words);
                let expected = (case.code, case.words);
                (!is_right).then(|| format!("{answer:?}, expected {expected:?}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_login_that_is_refused_says_what_to_do_and_writes_nothing() {
    let desk = Desk::new().await;
    let (foreign, missing) = (desk.home.path("foreign"), desk.home.path("missing"));
    std::fs::write(&foreign, token("ci", &["my-app"], &[7; 32])).unwrap();
    let not_allowed = "the token (or a rule of the broker) allows this project";
    desk.assert_fails(&[
        Case {
            file: &foreign,
            ..desk.case(77, "Check that the token has not expired")
        },
        Case {
            project: "other",
            ..desk.case(77, not_allowed)
        },
        Case {
            project: "my-app:v1",
            ..desk.case(64, "no registry, no tag")
        },
        Case {
            file: &missing,
            ..desk.case(64, "Check --token-file")
        },
    ]);
    let is_clean = !desk.home.path(".docker").exists() && !desk.home.path(".config").exists();
    assert!(is_clean, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_broker_that_cannot_be_asked_is_explained_and_nothing_is_written() {
    let desk = Desk::new().await;
    let elsewhere = format!("{}/elsewhere", desk.url);
    let tls = desk.url.replace("http:", "https:");
    let nobody = format!("http://127.0.0.1:{}", tests::free_port());
    let at = |broker, code, words| Case {
        broker,
        ..desk.case(code, words)
    };
    desk.assert_fails(&[
        at(&elsewhere, 64, "scheme, host and port"),
        at(&tls, 69, "The server does not speak TLS"),
        at(
            &nobody,
            69,
            "Check the broker's URL, and that it is running",
        ),
        at("http://broker.example", 64, "http:// is for loopback only"),
    ]);
    let is_clean = !desk.home.path(".docker").exists() && !desk.home.path(".config").exists();
    assert!(is_clean, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_configuration_that_cannot_be_read_stays_as_it_is() {
    let desk = Desk::new().await;
    desk.home.configure("{ secret");
    desk.assert_fails(&[desk.case(65, "config.json: malformed (line 1")]);
    let config = std::fs::read_to_string(desk.home.path(".docker/config.json"));
    assert_eq!(config.unwrap(), "{ secret");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_login_that_docker_has_is_not_replaced_by_what_a_broker_says() {
    let desk = Desk::new().await;
    let host = desk.shop.registry.host();
    let config = json!({ "auths": { (host.as_str()): { "auth": "dTpw" } } });
    desk.home.configure(&config.to_string());
    desk.assert_fails(&[desk.case(77, &format!("--registry {host}"))]);
    assert_eq!(desk.home.config(), config);
    let named = |registry: &str| {
        let more = ["--project", "my-app", "--registry", registry];
        desk.home.login(&desk.url, &desk.file, &more).code
    };
    assert_eq!((named("other.example"), named(&host)), (77, 0));
    let helpers = json!({ (host.as_str()): "redoubt" });
    assert_eq!(desk.home.config()["credHelpers"], helpers);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_broker_without_credentials_names_dockers_own_login() {
    let home = Home::new();
    let docker = Broker::start(&[
        ("HOST_PROXY_REGISTRY__TYPE", "docker"),
        ("HOST_PROXY_REGISTRY__REGISTRY_URL", "r.example"),
    ]);
    let file = docker.token_file(&["app"]);
    let answer = home.login(&docker.url(), &file, &["--project", "app"]);
    let is_told = answer.code == 0 && answer.stderr.contains("docker login r.example");
    assert!(is_told, "{answer:?}");
}
