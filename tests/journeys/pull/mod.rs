//! The registry client against registries that misbehave.

mod bytes;
mod login;

use oci::pull::{DEFAULT_MAX_UNPACKED, PullProgress, PullRequest, VerifiedImage, pull};
use oci::{Credentials, Digest, Endpoint, Platform, PullError, Reference, Secret};
use serde_json::json;
use std::sync::Arc;
use tests::hostile::{Asked, FakeRegistry, HttpAnswer, answer};
use tests::image::Layer;

struct Quiet;

impl PullProgress for Quiet {
    fn resolved(&self, _: Digest, _: &[u64]) {}
    fn received(&self, _: u64) {}
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of one plain layer, as bytes.
#[derive(Clone)]
struct Parts {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn parts() -> Parts {
    let layer = Layer::default()
        .file("hello", 0o644, 0, vec![b'x'; 100_000])
        .finish();
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] } });
    let config = serde_json::to_vec(&config).unwrap();
    let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": blob("application/vnd.oci.image.config.v1+json", &config),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    Parts {
        layer,
        config,
        manifest: serde_json::to_vec(&manifest).unwrap(),
    }
}

impl Parts {
    fn serve(&self, asked: &Asked) -> HttpAnswer {
        let Parts {
            layer,
            config,
            manifest,
        } = self;
        match asked.path.as_str() {
            path if path.contains("/manifests/") => {
                answer(200, &[("content-type", MANIFEST)], manifest.clone())
            }
            path if path.ends_with(&Digest::of(config).to_string()) => {
                answer(200, &[], config.clone())
            }
            path if path.ends_with(&Digest::of(layer).to_string()) => {
                answer(200, &[], layer.clone())
            }
            _ => answer(404, &[], ""),
        }
    }

    fn is_layer(&self, asked: &Asked) -> bool {
        asked.path.ends_with(&Digest::of(&self.layer).to_string())
    }
}

async fn fetch(registry: &FakeRegistry, also_plain: &[String]) -> Result<VerifiedImage, PullError> {
    let plain_http = std::iter::once(registry.host())
        .chain(also_plain.iter().cloned())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let request = PullRequest {
        reference: Reference::parse(&format!("{}/org/app:v1", registry.host())).unwrap(),
        platform: Platform::linux_amd64(),
        credentials: Some(Credentials::Password {
            username: "alice".into(),
            password: Secret::new("open-sesame"),
        }),
        endpoint: Endpoint {
            plain_http,
            ca_cert: None,
        },
        work_dir: folder.path().to_owned(),
        max_unpacked: DEFAULT_MAX_UNPACKED,
    };
    let result = pull(request, Arc::new(Quiet)).await;
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left in the work folder"
    );
    result
}

const BASIC: &str = "Basic YWxpY2U6b3Blbi1zZXNhbWU=";
