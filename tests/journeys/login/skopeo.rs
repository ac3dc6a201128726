//! skopeo, which asks docker's helpers.

use super::{Home, Shop};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};
use tests::broker::Broker;
use tests::files::files_with;
use tests::programs::{lib, ours, run};
use tests::registry::{PASSWORD, USER};
use tests::workloads::listing_image;

const OTHER_LOGIN: &str = r#"{"auths":{"other.example":{"auth":"dTpw"}},"detachKeys":"ctrl-e"}"#;

/// Pushes the layout in the home as `my-app/web:v1`.
fn push(home: &Home, host: &str) -> Output {
    let flags = ["--quiet", "--preserve-digests", "--dest-tls-verify=false"];
    home.command("skopeo")
        .arg("copy")
        .args(flags)
        .arg("--authfile")
        .arg(home.path(".docker/config.json"))
        .arg(format!("oci:{}:v1", home.path("layout").display()))
        .arg(format!("docker://{host}/my-app/web:v1"))
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn skopeo_pushes_with_credentials_that_are_written_nowhere() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (home, host) = (Home::new(), registry.host());
    home.configure(OTHER_LOGIN);
    listing_image().write(&home.path("layout"));
    let file = broker.token_file(&["my-app"]);
    assert!(!push(&home, &host).status.success(), "nobody logged in yet");

    logs_in_beside_other_logins(&home, broker, &file, &host);
    let pushed = push(&home, &host);
    let (stderr, log) = (String::from_utf8_lossy(&pushed.stderr), broker.daemon.log());
    assert!(pushed.status.success(), "{stderr}\n{log}");
    let mut curl = Command::new("curl");
    curl.args(["-sSf", "-u", &format!("{USER}:{PASSWORD}")])
        .arg(format!("http://{host}/v2/my-app/web/tags/list"));
    let tags = run(&mut curl);
    assert!(tags.contains("v1"), "{tags}");
    let token = std::fs::read(&file).unwrap();
    for secret in [PASSWORD.as_bytes(), &token] {
        let files = files_with(home.folder.path(), secret);
        assert_eq!(files, Vec::<String>::new());
    }
    logs_in_with_another_file(&home, broker, &file);
    eif_builder_pulls_it(&home, &host);
    logs_out(&home, &host);
}

fn logs_in_beside_other_logins(home: &Home, broker: &Broker, file: &Path, host: &str) {
    let answer = home.login(&broker.url(), file, &["--project", "my-app"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let said = "docker-credential-redoubt asks the broker for my-app";
    assert!(answer.stderr.contains(said), "{answer:?}");
    assert!(!answer.stderr.contains("warning"), "{answer:?}");
    let config = home.config();
    assert_eq!(config["credHelpers"], json!({ (host): "redoubt" }));
    let others = (
        &config["auths"]["other.example"]["auth"],
        &config["detachKeys"],
    );
    assert_eq!(others, (&json!("dTpw"), &json!("ctrl-e")));
}

fn logs_in_with_another_file(home: &Home, broker: &Broker, file: &Path) {
    let other = home.path("other.json");
    let more = ["--project", "my-app", "--authfile", other.to_str().unwrap()];
    let elsewhere = home.login(&broker.url(), file, &more);
    assert_eq!(elsewhere.code, 0, "{elsewhere:?}");
}

/// It speaks to helpers too.
fn eif_builder_pulls_it(home: &Home, host: &str) {
    let reference = format!("{host}/my-app/web:v1");
    let mut builder = home.command(ours("eif-builder"));
    builder
        .args(["build", &reference, "--plain-http", host, "--json", "-o"])
        .arg(home.path("app.eif"))
        .env("REDOUBT_LIB", lib());
    assert!(run(&mut builder).contains("PCR0"));
}

fn logs_out(home: &Home, host: &str) {
    assert_eq!(home.registry(&["logout", host], "").code, 0);
    assert_eq!(home.config()["credHelpers"], json!({}));
    assert!(
        !push(home, host).status.success(),
        "nobody is logged in any more"
    );
    assert_eq!(home.registry(&["logout", host], "").code, 64);
}
