//! A kubelet's credential provider (Kubernetes reference, "Kubelet CredentialProvider (v1)"): which
//! image on standard input, credentials for that image's repository on standard output. The pod's
//! service account token is presented to the broker if the kubelet sends it.

use super::access::BrokerArgs;
use crate::ui;
use api::credentials::client::CredentialRequestError;
use api::credentials::{Action, CredentialRequest, CredentialResponse, CredentialScope};
use explain::{CliError, Exit};
use oci::{Reference, Secret};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::Read as _;
use zeroize::Zeroizing;

const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
const KIND: &str = "CredentialProviderRequest";
/// The longest request, in bytes.
const MAX_REQUEST: u64 = 1 << 20;
/// How long before they expire a kubelet drops credentials, in seconds.
const SLACK: u64 = 300;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Put enclavectl into the kubelet's --image-credential-provider-bin-dir. Example of the file that\n\
    --image-credential-provider-config names:\n\n  \
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
    Instead of tokenAttributes, --token-file in args presents one token for the whole node."
)]
pub(super) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
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
    read.map_err(|e| CliError::new(Exit::Data, e, "Write a request to standard input."))?;
    let Asked { image, token } = Asked::parse(&text)?;
    let request = CredentialRequest {
        scope: CredentialScope::Image(image.to_string()),
        action: Action::Pull,
    };
    let (auth, seconds) = match access.client(token)?.ask(&request).await {
        Ok(response) => (
            auth(&image, &response),
            cache_seconds(response.credentials.expires_in),
        ),
        // Not a project of the broker's, or not this pod's: the kubelet goes on with what else it
        // has.
        Err(error @ CredentialRequestError::Refused { status: 404, .. }) => {
            ui::tell(&format!("no credentials for {image}: {error}"));
            (Map::new(), 0)
        }
        Err(error) => return Err(error.into()),
    };
    let response = json!({
        "apiVersion": VERSION,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Image",
        "cacheDuration": format!("{seconds}s"),
        "auth": auth,
    });
    ui::print(&Zeroizing::new(response.to_string()))
}

/// A request that makes sense.
struct Asked {
    image: Reference,
    /// The pod's, if there is one.
    token: Option<Secret>,
}

impl Asked {
    fn parse(text: &[u8]) -> Result<Asked, CliError> {
        let Request {
            api_version,
            kind,
            image,
            service_account_token,
        } = serde_json::from_slice(text).map_err(|_| {
            CliError::new(
                Exit::Data,
                format!("standard input is not a {KIND}"),
                "Have a kubelet call this; --help shows its configuration.",
            )
        })?;
        if (api_version.as_str(), kind.as_str()) != (VERSION, KIND) {
            return Err(CliError::new(
                Exit::Data,
                format!("this is a {kind} of {api_version}, not a {KIND} of {VERSION}"),
                "Set apiVersion in the CredentialProviderConfig.",
            ));
        }
        let image = Reference::parse(&image)
            .map_err(|e| CliError::new(Exit::Data, e, "Check matchImages."))?;
        let token = service_account_token.filter(|token| !token.expose().is_empty());
        Ok(Asked { image, token })
    }
}

/// Credentials that do not expire are not cached either: they may be revoked.
fn cache_seconds(expires_in: Option<u64>) -> u64 {
    expires_in.unwrap_or(0).saturating_sub(SLACK)
}

/// The key is the image's repository: what was given for one is not tried with another.
fn auth(image: &Reference, response: &CredentialResponse) -> Map<String, Value> {
    let granted = &response.credentials;
    if granted.username.is_empty() {
        return Map::new();
    }
    let pair = json!({ "username": granted.username, "password": granted.password.expose() });
    Map::from_iter([(format!("{}/{}", image.host(), image.repository()), pair)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(request: &Value) -> Result<(String, bool), CliError> {
        let asked = Asked::parse(request.to_string().as_bytes())?;
        Ok((asked.image.to_string(), asked.token.is_some()))
    }

    #[test]
    fn a_request_of_this_version_names_an_image_and_may_bring_a_token() {
        let mut request = json!({
            "apiVersion": VERSION, "kind": KIND, "image": "r.example/a/b:v1", "serviceAccountToken": "jwt",
        });
        assert_eq!(parse(&request), Ok(("r.example/a/b:v1".to_owned(), true)));
        request["serviceAccountToken"] = "".into();
        assert_eq!(parse(&request), Ok(("r.example/a/b:v1".to_owned(), false)));
        request["apiVersion"] = "credentialprovider.kubelet.k8s.io/v1beta1".into();
        for wrong in [request, json!({}), json!("x")] {
            assert_eq!(parse(&wrong).unwrap_err().exit, Exit::Data, "{wrong}");
        }
    }

    #[test]
    fn credentials_leave_the_cache_five_minutes_before_they_expire() {
        for (expires_in, expected) in [(None, 0), (Some(299), 0), (Some(301), 1)] {
            assert_eq!(cache_seconds(expires_in), expected);
        }
    }
}
