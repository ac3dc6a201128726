//! An OCI layout as a registry serves it, in this process: no credentials, no uploads, tag `v1`,
//! which moves when another image is written to the layout.

use crate::hostile::{FakeRegistry, answer};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Serves every repository name alike.
pub async fn serve(layout: PathBuf) -> FakeRegistry {
    FakeRegistry::start(move |asked| {
        let (above, name) = asked.path.rsplit_once('/').unwrap();
        let tagged = if name == "v1" { tagged(&layout) } else { None };
        let digest = tagged.as_deref().unwrap_or(name);
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

/// The manifest that the tag means now.
fn tagged(layout: &Path) -> Option<String> {
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str();
    digest.map(str::to_owned)
}
