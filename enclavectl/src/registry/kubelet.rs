//! A kubelet's credential provider (Kubernetes reference, "Kubelet CredentialProvider (v1)"): which image on standard input, credentials
//! for that image's repository on standard output. The pod's service account token is shown to the broker if the kubelet gives it.

use super::{Broker, CliError};
use crate::{print, tell};
use host_proxy::broker::client::AskError;
use host_proxy::broker::provider::Action;
use host_proxy::broker::question::{Answer, Question, Wanted};
use oci::{Reference, Secret};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::Read as _;
use zeroize::Zeroizing;

const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
const MAX_REQUEST: u64 = 1 << 20;
/// A kubelet forgets credentials so long before they end, in seconds.
const SLACK: u64 = 300;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file that --image-credential-provider-config of the kubelet names (enclavectl is in --image-credential-provider-bin-dir):\n\n  \
    apiVersion: kubelet.config.k8s.io/v1\n  \
    kind: CredentialProviderConfig\n  \
    providers:\n  \
    - name: enclavectl\n    \
      apiVersion: credentialprovider.kubelet.k8s.io/v1\n    \
      matchImages: [\"123456789012.dkr.ecr.us-east-1.amazonaws.com\"]\n    \
      defaultCacheDuration: 10m\n    \
      args: [registry, kubelet, --broker, \"https://redoubt.example.com:9443\"]\n    \
      tokenAttributes: {serviceAccountTokenAudience: redoubt, requireServiceAccount: true, cacheType: ServiceAccount}\n\n\
    The broker then needs the cluster's keys (jwks_url or jwks_file) and rules like subject = \"system:serviceaccount:prod:*\".\n\
    In place of tokenAttributes, --token-file among the args shows one token for the whole node."
)]
pub(super) struct Args {
    #[command(flatten)]
    broker: Broker,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    api_version: String,
    kind: String,
    image: String,
    #[serde(default)]
    service_account_token: Option<Secret>,
}

pub(super) async fn run(Args { broker }: Args) -> Result<(), CliError> {
    let access = broker.access()?;
    let mut text = Zeroizing::new(Vec::new());
    let read = std::io::stdin().take(MAX_REQUEST).read_to_end(&mut text);
    read.map_err(|e| {
        CliError::new(
            Exit::Data,
            e,
            "a kubelet writes its request to standard input",
        )
    })?;
    let Request {
        api_version,
        kind,
        image,
        service_account_token,
    } = serde_json::from_slice(&text).map_err(|_| {
        CliError::new(
            Exit::Data,
            "standard input is no CredentialProviderRequest",
            "a kubelet calls this",
        )
    })?;
    if (api_version.as_str(), kind.as_str()) != (VERSION, "CredentialProviderRequest") {
        let message = format!("{kind} of {api_version} is not {VERSION}");
        return Err(CliError::new(
            Exit::Data,
            message,
            "set apiVersion in the CredentialProviderConfig",
        ));
    }
    let reference =
        Reference::parse(&image).map_err(|e| CliError::new(Exit::Data, e, "check matchImages"))?;
    let token = service_account_token.filter(|token| !token.expose().is_empty());
    let question = Question {
        wanted: Wanted::Image(reference.to_string()),
        action: Action::Pull,
    };
    let (auth, duration) = match access.client(token)?.ask(&question).await {
        Ok(answer) => (
            auth(&reference, &answer),
            answer
                .credentials
                .expires_in
                .unwrap_or(0)
                .saturating_sub(SLACK),
        ),
        // Not a project of the broker's, or not this pod's: the kubelet goes on with what else it has.
        Err(error @ AskError::Refused { status: 404, .. }) => {
            tell(&format!("no credentials for {image}: {error}"));
            (Map::new(), 0)
        }
        Err(error) => return Err(error.into()),
    };
    let response = json!({
        "apiVersion": VERSION,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Image",
        "cacheDuration": format!("{duration}s"),
        "auth": auth,
    });
    print(&Zeroizing::new(response.to_string()))
}

/// The key is the image's repository: what was given for one is not tried with another.
fn auth(image: &Reference, answer: &Answer) -> Map<String, Value> {
    let granted = &answer.credentials;
    if granted.username.is_empty() {
        return Map::new();
    }
    let pair = json!({ "username": granted.username, "password": granted.password.expose() });
    Map::from_iter([(format!("{}/{}", image.host(), image.repository()), pair)])
}
