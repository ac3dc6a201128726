//! An OCI layout as a registry serves it, in this process: no credentials, no uploads, tag `v1`.

use crate::hostile::{FakeRegistry, answer};
use std::path::PathBuf;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Serves every repository name alike.
pub async fn serve(layout: PathBuf) -> FakeRegistry {
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    FakeRegistry::start(move |asked| {
        let (above, name) = asked.path.rsplit_once('/').unwrap();
        let digest = if name == "v1" { &digest } else { name };
        let file = layout.join("blobs").join(digest.replace(':', "/"));
        match std::fs::read(file) {
            Ok(body) if above.ends_with("/manifests") => {
                answer(200, &[("content-type", MANIFEST)], body)
            }
            Ok(body) if above.ends_with("/blobs") => answer(200, &[], body),
            _ if asked.path == "/v2/" => answer(200, &[], ""),
            _ => answer(404, &[], ""),
        }
    })
    .await
}
