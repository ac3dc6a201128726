//! Reads indexes and manifests (OCI image-spec, and Docker's schema 2, which is the same with other
//! media types) and chooses the one image that fits a platform. Works on bytes that were already
//! hashed; fetches nothing.

use crate::content::ContentError;
use crate::digest::Digest;
use crate::error::PullError;
use crate::json;
use crate::platform::Platform;
use oci_spec::image::{self as oci, MediaType};
use serde::Deserialize;

pub(crate) const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Docker's own limit is 127; a manifest within 4 MiB could name 20,000.
const MAX_LAYERS: usize = 1000;

/// A part of an image: where it is and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<(Blob, Compression)>,
}

/// What a registry answers for a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    /// The manifest to fetch instead.
    Index(Blob),
}

/// Which of the two kinds this is, by the document's own words; no document may be read as both
/// (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    schema_version: Option<u64>,
}

/// Reads what came for a manifest. `content_type` is the answer's header; of an index, the manifest
/// for `wanted`.
pub(crate) fn read(
    bytes: &[u8],
    content_type: Option<&str>,
    wanted: &Platform,
) -> Result<Document, PullError> {
    let invalid = |problem: ContentError| PullError::invalid("the manifest", problem);
    let Shape {
        media_type,
        layers,
        manifests,
        schema_version,
    } = json::parse(bytes).map_err(|e| invalid(e.into()))?;
    if schema_version != Some(2) {
        return Err(invalid(ContentError::SchemaVersion));
    }
    let content_type = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if let (Some(content_type), Some(media_type)) = (content_type, media_type)
        && content_type != media_type
    {
        return Err(invalid(ContentError::MediaTypes {
            content_type: content_type.to_owned(),
            media_type,
        }));
    }
    match (layers.is_some(), manifests.is_some()) {
        (true, true) => Err(invalid(ContentError::LayersAndManifests)),
        (false, false) => Err(invalid(ContentError::NoLayersNorManifests)),
        (true, false) => {
            let manifest = json::parse(bytes).map_err(|e| invalid(e.into()))?;
            read_manifest(&manifest).map(Document::Manifest)
        }
        (false, true) => {
            let index = json::parse(bytes).map_err(|e| invalid(e.into()))?;
            choose(&index, wanted).map(Document::Index)
        }
    }
}

fn blob(descriptor: &oci::Descriptor, what: &str) -> Result<Blob, PullError> {
    let digest = descriptor.digest().to_string().parse::<Digest>();
    Ok(Blob {
        digest: digest.map_err(|e| PullError::invalid(what, e))?,
        size: descriptor.size(),
    })
}

fn read_manifest(manifest: &oci::ImageManifest) -> Result<Manifest, PullError> {
    let layers = manifest.layers();
    if layers.len() > MAX_LAYERS {
        return Err(PullError::TooManyLayers {
            found: layers.len(),
            limit: MAX_LAYERS,
        });
    }
    let config = manifest.config();
    match config.media_type() {
        MediaType::ImageConfig => {}
        MediaType::Other(other) if other == "application/vnd.docker.container.image.v1+json" => {}
        other => {
            let problem = ContentError::ConfigType(other.to_string());
            return Err(PullError::invalid("the manifest", problem));
        }
    }
    let config = blob(config, "the config's digest")?;
    if config.size > json::MAX_DOCUMENT as u64 {
        return Err(PullError::TooLong {
            what: "the config".to_owned(),
            limit: json::MAX_DOCUMENT as u64,
        });
    }
    let layers = layers.iter().map(read_layer).collect::<Result<_, _>>()?;
    Ok(Manifest { config, layers })
}

fn read_layer(layer: &oci::Descriptor) -> Result<(Blob, Compression), PullError> {
    if layer.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(PullError::invalid("a layer", ContentError::ForeignLayer));
    }
    let compression =
        compression(layer.media_type()).map_err(|e| PullError::invalid("a layer", e))?;
    Ok((blob(layer, "a layer's digest")?, compression))
}

fn compression(media_type: &MediaType) -> Result<Compression, ContentError> {
    match media_type {
        MediaType::ImageLayer => Ok(Compression::None),
        MediaType::ImageLayerGzip => Ok(Compression::Gzip),
        MediaType::ImageLayerZstd => Ok(Compression::Zstd),
        MediaType::Other(other) => match other.as_str() {
            "application/vnd.docker.image.rootfs.diff.tar" => Ok(Compression::None),
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
            other => Err(ContentError::UnknownLayerType(other.to_owned())),
        },
        other => Err(ContentError::LayerType(other.to_string())),
    }
}

/// The first entry that fits, as containerd does; entries without a platform and build attestations
/// never fit.
fn choose(index: &oci::ImageIndex, wanted: &Platform) -> Result<Blob, PullError> {
    let mut offered = Vec::new();
    for entry in index.manifests() {
        let Some(platform) = entry.platform() else {
            continue;
        };
        let found = Platform {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone(),
        };
        if wanted.is_served_by(&found) {
            return blob(entry, "a manifest's digest");
        }
        if found.os != "unknown" {
            offered.push(found.to_string());
        }
    }
    Err(PullError::NoPlatform {
        wanted: wanted.clone(),
        offered,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn layer(media_type: &str, extra: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":1{extra}}}"#)
    }

    fn manifest(layers: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{D}","size":2}},"layers":[{layers}]}}"#
        )
    }

    fn read_str(text: &str) -> Result<Document, String> {
        read(text.as_bytes(), None, &Platform::linux_amd64()).map_err(|e| e.to_string())
    }

    fn problem(text: &str, content_type: Option<&str>) -> ContentError {
        match read(text.as_bytes(), content_type, &Platform::linux_amd64()) {
            Err(PullError::Invalid { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_every_kind_of_layer() {
        let text = manifest(
            &[
                layer("application/vnd.oci.image.layer.v1.tar", ""),
                layer("application/vnd.oci.image.layer.v1.tar+gzip", ""),
                layer("application/vnd.oci.image.layer.v1.tar+zstd", ""),
                layer("application/vnd.docker.image.rootfs.diff.tar.gzip", ""),
            ]
            .join(","),
        );
        let Document::Manifest(manifest) = read_str(&text).unwrap() else {
            panic!("an index")
        };
        let kinds: Vec<_> = manifest.layers.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(
            kinds,
            [
                Compression::None,
                Compression::Gzip,
                Compression::Zstd,
                Compression::Gzip
            ]
        );
    }

    #[test]
    fn refuses_manifests_that_could_be_read_in_two_ways() {
        let problem = |text: &str| self::problem(text, None);
        let both = manifest("").replace(r#""layers""#, r#""manifests":[],"layers""#);
        assert!(matches!(problem(&both), ContentError::LayersAndManifests));
        let twice = manifest("").replace(r#""layers""#, r#""layers":[],"layers""#);
        assert!(
            matches!(problem(&twice), ContentError::Json(e) if e.to_string().contains("names a key twice"))
        );
        let neither = manifest("").replace(r#""layers":[]"#, r#""x":1"#);
        assert!(matches!(
            problem(&neither),
            ContentError::NoLayersNorManifests
        ));
        let old = manifest("").replace(":2,\"media", ":1,\"media");
        assert!(matches!(problem(&old), ContentError::SchemaVersion));

        let index = "application/vnd.oci.image.index.v1+json";
        let problem = self::problem(&manifest(""), Some(index));
        assert!(
            matches!(&problem, ContentError::MediaTypes { content_type, media_type } if content_type == index && media_type == MANIFEST),
            "{problem}"
        );
    }

    #[test]
    fn refuses_layers_that_must_not_be_fetched() {
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        let problem = |layer: &str| self::problem(&manifest(layer), None);
        let foreign = layer(gzip, r#","urls":["http://10.0.0.1/x"]"#);
        assert!(matches!(problem(&foreign), ContentError::ForeignLayer));
        let restricted = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        assert!(matches!(
            problem(&layer(restricted, "")),
            ContentError::LayerType(_)
        ));
        let unknown = layer("application/x-unknown", "");
        assert!(matches!(
            problem(&unknown),
            ContentError::UnknownLayerType(_)
        ));
        let path = layer(gzip, "").replace(D, "sha256:../../x");
        assert!(matches!(
            problem(&path),
            ContentError::Json(_) | ContentError::Digest(_)
        ));
        let negative = layer(gzip, "").replace("\"size\":1", "\"size\":-1");
        assert!(matches!(problem(&negative), ContentError::Json(_)));
    }

    #[test]
    fn reads_a_thousand_layers_and_no_more() {
        let gzip = layer("application/vnd.oci.image.layer.v1.tar+gzip", "");
        let image = |layers: usize| read_str(&manifest(&vec![gzip.as_str(); layers].join(",")));
        assert!(image(MAX_LAYERS).is_ok());
        assert_eq!(
            image(MAX_LAYERS + 1).unwrap_err(),
            "the image has 1001 layers; at most 1000 are supported"
        );
    }

    #[test]
    fn chooses_the_platform_and_says_what_there_is() {
        let entry = |platform: &str, size: u32| {
            format!(
                r#"{{"mediaType":"{MANIFEST}","digest":"{D}","size":{size},"platform":{platform}}}"#
            )
        };
        let index = |entries: &[String]| {
            format!(
                r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
                entries.join(",")
            )
        };
        let unknown = entry(r#"{"os":"unknown","architecture":"unknown"}"#, 1);
        let arm = entry(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#, 2);
        let amd = entry(r#"{"os":"linux","architecture":"amd64"}"#, 3);
        let later = entry(r#"{"os":"linux","architecture":"amd64"}"#, 4);
        let chosen = read_str(&index(&[unknown.clone(), arm.clone(), amd, later])).unwrap();
        assert_eq!(
            chosen,
            Document::Index(Blob {
                digest: D.parse().unwrap(),
                size: 3
            })
        );
        assert_eq!(
            read_str(&index(&[unknown, arm])).unwrap_err(),
            "the image has no linux/amd64; it offers linux/arm64/v8"
        );
    }
}
