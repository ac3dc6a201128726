//! The daemon's own deploys use the credentials that it issues.

use serde_json::json;
use std::path::PathBuf;
use tests::daemon::{CommandOutput, Daemon};
use tests::files::files_with;
use tests::ministack::{MiniStack, PUSH_ROLE, ecr_settings};
use tests::registry::{PASSWORD, Registry, USER};
use tests::scene::Scene;
use tests::services::{Harbor, Made, harbor};
use tests::wait_for;
use tests::workloads::{SPEC, listing_image};

/// `create` without credentials.
fn create(daemon: &Daemon, name: &str, image: &str, more: &[&str]) -> CommandOutput {
    let spec: PathBuf = daemon.folder().join("enclave.toml");
    std::fs::write(&spec, SPEC).unwrap();
    let spec = spec.to_str().unwrap();
    let own = ["create", "--name", name, "--image", image, "--spec", spec];
    daemon.ctl(&[&own[..], more].concat(), "")
}

/// Its first robot's secret is wrong: somebody revoked it.
async fn harbor_with_a_revoked_robot() -> Harbor {
    let made = Made::default();
    let revoked = harbor(made.clone(), (USER, "revoked"));
    let good = harbor(made.clone(), (USER, PASSWORD));
    let held = made.clone();
    let answer = move |asked: &_| {
        let is_first = held.lock().unwrap().is_empty();
        if is_first {
            revoked(asked)
        } else {
            good(asked)
        }
    };
    Harbor::answering(made, answer).await
}

/// The daemon says so, and has another one at the next deploy.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn credentials_that_were_revoked_are_made_anew_at_the_next_deploy() {
    let scene = Scene::new(&listing_image(), "my-app/web:v1");
    let harbor = harbor_with_a_revoked_robot().await;
    let host = scene.registry.host();
    let own = [("HOST_PROXY_REGISTRY__REGISTRY_URL", host.as_str())];
    let daemon = scene.start(&[&harbor.settings()[..], &own].concat());
    let failed = create(&daemon, "shop", &scene.reference, &[]);
    let words = "the daemon issues new credentials";
    assert!(
        failed.code == 1 && failed.stderr.contains(words),
        "{failed:?}"
    );
    let failure = &daemon.show("shop")["failure"];
    let found = (&failure["code"], &failure["retryable"]);
    assert_eq!(found, (&json!("REGISTRY_UNAUTHORIZED"), &json!(true)));
    let again = daemon.ctl(&["redeploy", "shop"], "");
    assert_eq!(again.code, 0, "{again:?}\n{}", daemon.log());
    assert_eq!(daemon.show("shop")["status"], "DEPLOYED");
    let files = files_with(daemon.folder(), PASSWORD.as_bytes());
    assert_eq!(files, Vec::<String>::new());
}

/// ECR's own registry cannot stand on loopback: docker-registry takes its place, and lets in
/// whoever has the password that ECR's API gave out.
struct Ecr {
    ministack: MiniStack,
    scene: Scene,
}

impl Ecr {
    fn start() -> Ecr {
        let registry = Registry::start_for("AWS", "ministack-auth-token");
        Ecr {
            scene: Scene::at(registry, &listing_image(), "rise/my-app:v1"),
            ministack: MiniStack::with_push_role(),
        }
    }

    fn daemon(&self, role: &str) -> Daemon {
        let (url, host) = (self.ministack.url(), self.scene.registry.host());
        let own = [("HOST_PROXY_REGISTRY__REGISTRY_URL", host.as_str())];
        self.scene
            .start(&[&ecr_settings(role, &url)[..], &own].concat())
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_image_of_the_configured_registry_needs_no_stored_credentials() {
    let ecr = Ecr::start();
    let mut daemon = ecr.daemon(PUSH_ROLE);
    let answer = create(&daemon, "shop", &ecr.scene.reference, &[]);
    assert_eq!(answer.code, 0, "{answer:?}\n{}", daemon.log());
    let record = daemon.show("shop");
    let found = (&record["status"], &record["source_type"]);
    assert_eq!(found, (&json!("DEPLOYED"), &json!("configured-registry")));
    assert_eq!(record.get("credentials_arn"), None);
    let log = daemon.log();
    assert!(log.contains("credentials issued for a deploy"), "{log}");
    let files = files_with(daemon.folder(), b"ministack-auth-token");
    assert_eq!(files, Vec::<String>::new());
    // It comes back with the daemon, with credentials made anew.
    daemon.crash();
    daemon.restart();
    wait_for("the enclave to come back", 90, || {
        daemon.show("shop")["status"] == "DEPLOYED"
    });
    assert_eq!(daemon.ctl(&["terminate", "shop"], "").code, 0);
}

/// For a name beside the prefix, or against the operator's word.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn nobodys_rights_are_borrowed() {
    let ecr = Ecr::start();
    let daemon = ecr.daemon(PUSH_ROLE);
    let image = format!("{}/other/my-app:v1", ecr.scene.registry.host());
    let configured = ["--source-type", "configured-registry"];
    let beside = create(&daemon, "beside", &image, &configured);
    let words = "has no credentials for this image";
    assert!(
        beside.code == 64 && beside.stderr.contains(words),
        "{beside:?}"
    );
    let anonymous = ["--source-type", "public-registry"];
    let public = create(&daemon, "public", &ecr.scene.reference, &anonymous);
    let is_refused = public.code == 1 && public.stderr.contains("credentials");
    assert!(is_refused, "{public:?}");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_deploy_without_its_role_fails_in_the_stage_of_credentials() {
    let ecr = Ecr::start();
    let daemon = ecr.daemon("arn:aws:iam::000000000000:role/nobody");
    let failed = create(&daemon, "shop", &ecr.scene.reference, &[]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let failure = &daemon.show("shop")["failure"];
    assert_eq!(failure["stage"], "credentials");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("cannot assume the role"), "{failure}");
}
