//! docker's protocol (docker-credential-helpers, README).

use super::{Home, Shop};
use serde_json::{Value, json};
use tests::broker::token;
use tests::registry::{PASSWORD, USER};

const NOT_FOUND: &str = "credentials not found in native keychain";

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn the_helper_speaks_dockers_protocol() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (home, host) = (Home::new(), registry.host());
    let file = broker.token_file(&["my-app"]);
    let unknown = home.helper("get", &host);
    let found = (unknown.code, unknown.stdout.trim());
    assert_eq!(found, (1, NOT_FOUND), "before any login");
    assert_eq!(home.helper("list", "").stdout.trim(), "{}");
    let login = home.login(&broker.url(), &file, &["--project", "my-app", "--pull"]);
    assert_eq!(login.code, 0);

    gets_and_lists(&home, &host);
    stores_nothing(&home, &host);
    assert_eq!(home.helper("dance", "").code, 1);
    // The token is over: docker is told so, and not that there is nothing.
    std::fs::write(&file, token("ci", &["my-app"], &[7; 32])).unwrap();
    let refused = home.helper("get", &host);
    let is_told = refused.code == 1 && refused.stdout.contains("the token has not expired");
    assert!(is_told, "{refused:?}");
    std::fs::remove_file(&file).unwrap();
    let missing = home.helper("get", &host);
    assert!(
        missing.stdout.contains("No such file"),
        "it is read for each question"
    );
}

fn gets_and_lists(home: &Home, host: &str) {
    for server in [
        host.to_owned(),
        format!("https://{host}"),
        format!("https://{host}/v2/\n"),
    ] {
        let got = home.helper("get", &server);
        let found: Value = serde_json::from_str(&got.stdout).unwrap();
        let server = server.trim();
        let expected = json!({ "ServerURL": server, "Username": USER, "Secret": PASSWORD });
        assert_eq!(found, expected);
    }
    let listed: Value = serde_json::from_str(&home.helper("list", "").stdout).unwrap();
    assert_eq!(listed, json!({ (host): USER }));
    let other = home.helper("get", "ghcr.io");
    assert_eq!((other.code, other.stdout.trim()), (1, NOT_FOUND));
}

fn stores_nothing(home: &Home, host: &str) {
    let credentials = json!({ "ServerURL": host, "Username": "u", "Secret": "hunter2" });
    for verb in ["store", "erase"] {
        let refused = home.helper(verb, &credentials.to_string());
        assert_eq!(refused.code, 1);
        let is_plain =
            refused.stdout.contains("keeps no credentials") && !refused.stdout.contains("hunter2");
        assert!(is_plain, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_job_needs_variables_only() {
    let Shop {
        registry, broker, ..
    } = &Shop::open().await;
    let (mut home, host) = (Home::new(), registry.host());
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
    let words = "only one of REDOUBT_BROKER and REDOUBT_PROJECT";
    assert!(half.code == 1 && half.stdout.contains(words), "{half:?}");
    let project = ("REDOUBT_PROJECT".to_owned(), "my-app".to_owned());
    home.variables.push(project);
    let long = home.registry(&["helper", "get"], &host);
    assert!(long.stdout.contains(PASSWORD), "the same by its long name");
}
