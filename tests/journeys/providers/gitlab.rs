//! GitLab's deploy tokens.

use serde_json::{Value, json};
use tests::broker::{Broker, SECRET, token};
use tests::services::{GITLAB_TOKEN, GitLab};

const USERNAME: &str = "gitlab+deploy-token-1";
const PASSWORD: &str = "gldt-secret-of-test";
const PROJECTS: [&str; 8] = [
    "my-app",
    "web",
    "not-a-maintainer",
    "too-often",
    "upgrading",
    "odd",
    "endless",
    "unknown",
];

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn gitlab_makes_a_deploy_token_for_one_project() {
    let gitlab = GitLab::start((USERNAME, PASSWORD)).await;
    let broker = Broker::start(&gitlab.settings());
    let mine = token("ci", &PROJECTS, SECRET);
    // One of ours is over, and somebody else's too.
    let over = |id: u8, name: &str| json!({ "id": id, "name": name, "expired": false, "expires_at": "2026-01-02T03:04:05.000Z" });
    let held = [over(100, "redoubt"), over(101, "somebody's")];
    gitlab.made.lock().unwrap().extend(held);

    grants_the_token(&broker, &mine);
    tokens_are_few_and_tidied_away(&gitlab.made.lock().unwrap());
    let before = gitlab.made.lock().unwrap().len();
    refusals_become_what_they_are(&broker, &mine);
    let after = gitlab.made.lock().unwrap().len();
    assert_eq!(after, before, "nothing is left behind");
    own_token_is_replaced_without_a_restart(&gitlab, &broker, &mine);
    let log = broker.daemon.log();
    for hidden in [GITLAB_TOKEN, "gldt-secret", "<html>"] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
}

/// For pushing to the project, for pulling its images, and for pushing again.
fn grants_the_token(broker: &Broker, mine: &str) {
    let (status, told) = broker.ask("?project=my-app", Some(mine));
    assert_eq!(status, 200, "{told}\n{}", broker.daemon.log());
    let granted = &told["credentials"];
    assert_eq!(granted["registry_url"], "registry.example.com");
    let login = (&granted["username"], &granted["password"]);
    assert_eq!(login, (&json!(USERNAME), &json!(PASSWORD)));
    let expires_in = granted["expires_in"].as_u64().unwrap();
    assert!((3500..=3600).contains(&expires_in), "{expires_in}");
    for image in ["my-app:v1", "my-app/web", "my-app/web/nginx"] {
        let query = format!("?image=registry.example.com/group/apps/{image}&action=pull");
        let (_, told) = broker.ask(&query, Some(mine));
        assert_eq!(told["repository"], "my-app", "{image}");
    }
    assert_eq!(broker.ask("?project=my-app", Some(mine)).0, 200);
}

fn tokens_are_few_and_tidied_away(made: &[Value]) {
    let ours = made.iter().filter(|token| token["name"] == "redoubt");
    let scopes: Vec<&Value> = ours.map(|token| &token["scopes"]).collect();
    let expected = [
        &json!(["read_registry", "write_registry"]),
        &json!(["read_registry"]),
    ];
    assert_eq!(scopes, expected, "asked twice, cached once");
    let is_kept = made.iter().any(|token| token["name"] == "somebody's");
    assert!(is_kept, "only our own are tidied away");
    assert!(!made.iter().any(|token| token["id"] == 100));
}

fn refusals_become_what_they_are(broker: &Broker, mine: &str) {
    for (project, expected, words) in [
        ("unknown", 404, "404 Project Not Found"),
        ("not-a-maintainer", 502, "403 Forbidden"),
        ("too-often", 503, "answered 429"),
        ("upgrading", 503, "answered 502"),
        ("odd", 503, "not what its API promises"),
        ("endless", 503, "never expires; it was deleted"),
    ] {
        let (head, told) = broker.exchange(&format!("?project={project}"), Some(mine));
        let status = format!("HTTP/1.1 {expected}");
        assert!(head.starts_with(&status), "{project}: {head}");
        let is_told_to_wait = head.contains("retry-after: 23");
        assert_eq!(is_told_to_wait, project == "too-often", "{head}");
        assert!(broker.daemon.log().contains(words), "{words}");
        assert!(!told.to_string().contains(words), "{told}");
    }
}

/// The daemon's own, which runs out.
fn own_token_is_replaced_without_a_restart(gitlab: &GitLab, broker: &Broker, mine: &str) {
    for (own, words) in [
        ("expired", "Token is expired"),
        ("read-only", "higher privileges"),
        ("", "empty"),
    ] {
        gitlab.set_token(own);
        assert_eq!(broker.ask("?project=unknown", Some(mine)).0, 502);
        assert!(broker.daemon.log().contains(words), "{words}");
    }
}
