//! A kubelet, as its credential provider API (credentialprovider.kubelet.k8s.io/v1) has it.

use super::{Home, Shop};
use serde_json::{Value, json};
use std::path::PathBuf;
use tests::broker::{SECRET, token};
use tests::daemon::CommandOutput;
use tests::registry::{PASSWORD, USER};
use tests::services::HARBOR_LIFE;

const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// A node whose own token allows nothing.
struct Node {
    shop: Shop,
    home: Home,
    token_file: PathBuf,
}

impl Node {
    async fn new() -> Node {
        let shop = Shop::open().await;
        Node {
            token_file: shop.broker.token_file(&["nothing"]),
            home: Home::new(),
            shop,
        }
    }

    fn ask(&self, request: &Value) -> CommandOutput {
        let broker = self.shop.broker.url();
        let token_file = self.token_file.to_str().unwrap();
        let arguments = ["kubelet", "--broker", &broker, "--token-file", token_file];
        self.home.registry(&arguments, &request.to_string())
    }

    fn respond(&self, request: &Value) -> Value {
        serde_json::from_str(&self.ask(request).stdout).unwrap()
    }

    /// An image of the broker's registry.
    fn image(&self, path: &str) -> String {
        format!("{}/{path}", self.shop.registry.host())
    }
}

fn request(image: &str, token: Option<&str>) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "CredentialProviderRequest",
        "image": image, "serviceAccountToken": token, "serviceAccountAnnotations": {},
    })
}

fn pods_token() -> String {
    token("system:serviceaccount:shop:web", &["my-app"], SECRET)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_kubelet_gets_credentials_for_one_image() {
    let node = Node::new().await;
    let image = node.image("my-app/web");
    let response = node.respond(&request(&image, Some(&pods_token())));
    assert_eq!(response["kind"], "CredentialProviderResponse");
    assert_eq!(response["apiVersion"], API_VERSION);
    assert_eq!(response["cacheKeyType"], "Image");
    let duration = response["cacheDuration"].as_str().unwrap();
    let seconds: u64 = duration.strip_suffix('s').unwrap().parse().unwrap();
    assert!(
        (HARBOR_LIFE - 400..HARBOR_LIFE - 299).contains(&seconds),
        "{seconds}"
    );
    let login = json!({ "username": USER, "password": PASSWORD });
    assert_eq!(response["auth"], json!({ (image.as_str()): login }));
}

/// Without a pod's token the node's own counts, which is for something else; and what is not the
/// broker's is nobody's.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_kubelet_gets_nothing_for_other_images() {
    let node = Node::new().await;
    let (image, other) = (node.image("my-app/web"), node.image("other/web"));
    let pod = pods_token();
    for (image, token) in [
        (image.as_str(), None),
        ("ghcr.io/my-app/web", Some(pod.as_str())),
        (&other, Some(&pod)),
    ] {
        let response = node.respond(&request(image, token));
        let found = (&response["auth"], &response["cacheDuration"]);
        assert_eq!(found, (&json!({}), &json!("0s")), "{image}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_kubelet_hears_nothing_on_standard_output_when_its_request_is_wrong() {
    let node = Node::new().await;
    let image = node.image("my-app/web");
    let mut old = request(&image, Some(&pods_token()));
    old["apiVersion"] = "credentialprovider.kubelet.k8s.io/v1beta1".into();
    for wrong in [old, json!({}), json!("x"), request("NO IMAGE", None)] {
        let answer = node.ask(&wrong);
        assert!(answer.code == 65 && answer.stdout.is_empty(), "{answer:?}");
    }
    let refused = node.ask(&request(&image, Some("no.token.atall")));
    let is_refused = refused.code == 77 && refused.stdout.is_empty();
    assert!(is_refused, "{refused:?}");
}
