//! A helper that docker has already gets the credentials, unless ours is asked for.

use super::{Home, Shop};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tests::broker::Broker;
use tests::programs::ours;
use tests::registry::{PASSWORD, USER};

/// A fake helper, which keeps what it gets in a file.
fn install_shelf(home: &Home) {
    let script = format!("#!/bin/sh\ncat > {}/$1\n", home.folder.path().display());
    let shelf = home.path("bin/docker-credential-shelf");
    std::fs::write(&shelf, script).unwrap();
    std::fs::set_permissions(&shelf, Permissions::from_mode(0o755)).unwrap();
    home.configure(r#"{"credsStore":"shelf"}"#);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn credentials_go_to_the_helper_that_keeps_the_others() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (home, host) = (Home::new(), registry.host());
    let file = broker.token_file(&["my-app"]);
    install_shelf(&home);
    the_shelf_keeps_them(&home, broker, &file, &host);
    a_helper_that_refuses_is_named(&home, broker, &file);
    ours_is_used_if_it_is_asked_for(&home, broker, &file, &host);
}

fn the_shelf_keeps_them(home: &Home, broker: &Broker, file: &Path, host: &str) {
    let answer = home.login(&broker.url(), file, &["--project", "my-app"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let said = "docker-credential-shelf keeps the credentials for my-app, for 83";
    assert!(answer.stderr.contains(said), "{answer:?}");
    let stored = std::fs::read(home.path("store")).unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    let expected = json!({ "ServerURL": host, "Username": USER, "Secret": PASSWORD });
    assert_eq!(stored, expected);
    let config = json!({ "credsStore": "shelf" });
    assert_eq!(
        home.config(),
        config,
        "docker's configuration is right as it is"
    );
    assert_eq!(home.registry(&["logout", host], "").code, 0);
    assert_eq!(std::fs::read_to_string(home.path("erase")).unwrap(), host);
}

fn a_helper_that_refuses_is_named(home: &Home, broker: &Broker, file: &Path) {
    let shelf = home.path("bin/docker-credential-shelf");
    std::fs::write(&shelf, "#!/bin/sh\ncat; exit 1\n").unwrap();
    let refused = home.login(&broker.url(), file, &["--project", "my-app"]);
    assert_eq!(refused.code, 69);
    let is_plain = refused.stderr.contains("did not store the credentials")
        && !refused.stderr.contains(PASSWORD);
    assert!(is_plain, "{refused:?}");
}

fn ours_is_used_if_it_is_asked_for(home: &Home, broker: &Broker, file: &Path, host: &str) {
    let login = ["--json", "registry", "login", "--broker", &broker.url()];
    let token = ["--token-file", file.to_str().unwrap()];
    let more = ["--project", "my-app", "--own-helper"];
    let arguments = [&login[..], &token, &more].concat();
    let json = home.run(ours("enclavectl"), &arguments, "");
    let told: Value = serde_json::from_str(&json.stdout).unwrap();
    let found = (&told["helper"], &told["registry_url"]);
    assert_eq!(found, (&json!("redoubt"), &json!(host)));
    assert_eq!(home.config()["credHelpers"], json!({ (host): "redoubt" }));
}
