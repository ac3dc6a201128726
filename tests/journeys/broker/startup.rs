//! A broker that would be careless does not start.

use super::DOCKER;
use std::process::Command;
use tests::programs::ours;

const LISTEN: (&str, &str) = ("HOST_PROXY_BROKER__LISTEN", "127.0.0.1:0");
const AUDIENCE: (&str, &str) = ("HOST_PROXY_BROKER__AUDIENCE", "a");

/// What a daemon with these settings says before it ends.
fn refused(verb: &str, settings: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(ours("host-proxy"))
        .arg(verb)
        .env("HOST_PROXY_CONFIG_DIR", folder.path())
        .env("HOST_PROXY_STATE_DIR", folder.path().join("state"))
        .env("HOST_PROXY_RUN_DIR", folder.path().join("run"))
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    String::from_utf8(output.stderr).unwrap()
}

/// The check of the configuration and the daemon itself refuse the settings alike, with this text.
#[track_caller]
fn assert_refused(settings: &[(&str, &str)], text: &str) {
    let [checked, served] = ["check-config", "serve"].map(|verb| refused(verb, settings));
    // The check has a note beside it: there is no file in that folder.
    let (_, wrong) = checked.split_once("error:").unwrap();
    assert!(served.contains(wrong.trim()), "{checked}\n{served}");
    assert!(served.contains(text), "{text} in {served}");
}

#[track_caller]
fn assert_broker_refused(more: &[(&str, &str)], text: &str) {
    assert_refused(&[&DOCKER[..], more].concat(), text);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_broker_needs_a_registry() {
    assert_refused(&[LISTEN], "there is no [registry]");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_broker_needs_a_way_to_know_its_callers() {
    assert_broker_refused(&[LISTEN], "broker.audience is empty");
    let keyless = "name one of broker.jwt_secret_file";
    assert_broker_refused(&[LISTEN, AUDIENCE], keyless);
    let plain = ("HOST_PROXY_BROKER__JWKS_URL", "http://issuer.example/jwks");
    let text = "http:// is for loopback only";
    assert_broker_refused(&[LISTEN, AUDIENCE, plain], text);
    let never = ("HOST_PROXY_BROKER__RATE_PER_MINUTE", "0");
    assert_broker_refused(&[LISTEN, never], "every request would be refused");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_broker_does_not_send_credentials_in_the_clear() {
    let everywhere = ("HOST_PROXY_BROKER__LISTEN", "0.0.0.0:0");
    assert_broker_refused(&[everywhere], "is not a loopback address");
    let half = ("HOST_PROXY_BROKER__TLS_KEY", "/key");
    assert_broker_refused(&[LISTEN, half], "belong together");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_wrong_setting_is_named_with_its_place() {
    let name = ("HOST_PROXY_BROKER__LISTEN", "localhost:9443");
    let text = "(broker.listen is set in HOST_PROXY_BROKER__LISTEN)";
    assert_broker_refused(&[name], text);
}

/// GitLab with one setting replaced, or one more.
fn gitlab<'a>(changed: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("HOST_PROXY_REGISTRY__TYPE", "gitlab"),
        ("HOST_PROXY_REGISTRY__URL", "https://gitlab.example"),
        ("HOST_PROXY_REGISTRY__REGISTRY_URL", "registry.example"),
        ("HOST_PROXY_REGISTRY__TOKEN_FILE", "/no/such/file"),
    ];
    settings.retain(|(known, _)| *known != changed.0);
    settings.push(changed);
    settings
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_wrong_setting_of_a_registry_is_explained() {
    assert_refused(&gitlab(("", "")), "/no/such/file");
    for (key, value, text) in [
        ("NAMESPACE", "My-Org", "namespace is lower-case"),
        ("REGISTRY_URL", "https://r.example", "host or host:port"),
        ("LIFETIME_SECONDS", "300", "900 to 2592000"),
        ("URL", "http://u:secret@gitlab.example", "loopback"),
    ] {
        let key = format!("HOST_PROXY_REGISTRY__{key}");
        assert_refused(&gitlab((&key, value)), text);
    }
    let url = ("HOST_PROXY_REGISTRY__URL", "http://u:secret@gitlab.example");
    for verb in ["check-config", "serve"] {
        assert!(!refused(verb, &gitlab(url)).contains("secret"));
    }
}
