//! Reads indexes, manifests and configs (OCI image-spec and Docker's schema 2, which says the same in other media types)
//! and chooses the one image that fits a platform. Works on bytes that were already hashed; fetches nothing.

use super::json;
use super::{Digest, PullError};
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

/// `os/architecture`, with an optional variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    pub fn linux_amd64() -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None)
                if !os.is_empty() && !architecture.is_empty() =>
            {
                Ok(Platform {
                    os,
                    architecture,
                    variant,
                })
            }
            _ => Err(format!(
                "'{text}' is not os/architecture, for example linux/amd64"
            )),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

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

/// Which of the two kinds this is, by the document's own words; no document may be read as both (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    schema_version: Option<u64>,
}

pub(crate) fn read(
    bytes: &[u8],
    content_type: Option<&str>,
    wanted: &Platform,
) -> Result<Document, PullError> {
    let invalid = |problem: &dyn std::fmt::Display| PullError::invalid("the manifest", problem);
    let Shape {
        media_type,
        layers,
        manifests,
        schema_version,
    } = json::parse(bytes).map_err(|e| invalid(&e))?;
    if schema_version != Some(2) {
        return Err(invalid(
            &"its schemaVersion is not 2; push the image again with a current tool",
        ));
    }
    let content_type = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if let (Some(said), Some(carried)) = (content_type, &media_type)
        && said != carried
    {
        return Err(invalid(&format_args!(
            "it came as '{said}' and calls itself '{carried}'"
        )));
    }
    match (layers.is_some(), manifests.is_some()) {
        (true, true) => Err(invalid(&"it has both layers and manifests")),
        (false, false) => Err(invalid(&"it has neither layers nor manifests")),
        (true, false) => {
            read_manifest(&json::parse(bytes).map_err(|e| invalid(&e))?).map(Document::Manifest)
        }
        (false, true) => {
            choose(&json::parse(bytes).map_err(|e| invalid(&e))?, wanted).map(Document::Index)
        }
    }
}

fn blob(descriptor: &oci::Descriptor, what: &str) -> Result<Blob, PullError> {
    let digest = descriptor
        .digest()
        .to_string()
        .parse()
        .map_err(|e| PullError::invalid(what, e))?;
    Ok(Blob {
        digest,
        size: descriptor.size(),
    })
}

fn read_manifest(manifest: &oci::ImageManifest) -> Result<Manifest, PullError> {
    if manifest.layers().len() > MAX_LAYERS {
        return Err(PullError::TooLong {
            what: "the list of layers".to_owned(),
            limit: MAX_LAYERS as u64,
        });
    }
    let config = manifest.config();
    match config.media_type() {
        MediaType::ImageConfig => {}
        MediaType::Other(other) if other == "application/vnd.docker.container.image.v1+json" => {}
        other => {
            return Err(PullError::invalid(
                "the manifest",
                format!("'{other}' is not a container image's config"),
            ));
        }
    }
    let config = blob(config, "the config's digest")?;
    if config.size > json::MAX_DOCUMENT as u64 {
        return Err(PullError::TooLong {
            what: "the config".to_owned(),
            limit: json::MAX_DOCUMENT as u64,
        });
    }
    let layers = manifest
        .layers()
        .iter()
        .map(|layer| {
            if layer.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
                return Err(PullError::invalid(
                    "a layer",
                    "it is to be fetched from a foreign address; that is not done",
                ));
            }
            Ok((
                blob(layer, "a layer's digest")?,
                compression(layer.media_type())?,
            ))
        })
        .collect::<Result<_, _>>()?;
    Ok(Manifest { config, layers })
}

fn compression(media_type: &MediaType) -> Result<Compression, PullError> {
    match media_type {
        MediaType::ImageLayer => Ok(Compression::None),
        MediaType::ImageLayerGzip => Ok(Compression::Gzip),
        MediaType::ImageLayerZstd => Ok(Compression::Zstd),
        MediaType::Other(other) => match other.as_str() {
            "application/vnd.docker.image.rootfs.diff.tar" => Ok(Compression::None),
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
            other => Err(PullError::invalid(
                "a layer",
                format!("unknown media type '{other}'"),
            )),
        },
        other => Err(PullError::invalid(
            "a layer",
            format!("media type '{other}' is not a layer that may be fetched"),
        )),
    }
}

/// The first entry that fits, as containerd does; entries without a platform and build attestations never fit.
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
        if fits(wanted, &found) {
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

/// A variant that was not asked for is no obstacle.
fn fits(wanted: &Platform, found: &Platform) -> bool {
    wanted.os == found.os
        && wanted.architecture == found.architecture
        && (wanted.variant.is_none() || wanted.variant == found.variant)
}

/// What a verified config says of how to run the image, and what its layers unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    pub run: wire::spec::ImageDefaults,
    pub(crate) diff_ids: Vec<Digest>,
}

pub(crate) fn read_config(
    bytes: &[u8],
    layers: usize,
    wanted: &Platform,
) -> Result<ImageConfig, PullError> {
    let invalid =
        |problem: &dyn std::fmt::Display| PullError::invalid("the image's config", problem);
    let config: oci::ImageConfiguration = json::parse(bytes).map_err(|e| invalid(&e))?;
    let found = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
    };
    if wanted.os != found.os || wanted.architecture != found.architecture {
        return Err(PullError::NoPlatform {
            wanted: wanted.clone(),
            offered: vec![found.to_string()],
        });
    }
    if config.rootfs().typ() != "layers" {
        return Err(invalid(&format_args!(
            "its rootfs has type '{}'",
            config.rootfs().typ()
        )));
    }
    let diff_ids: Vec<Digest> = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|id| id.parse())
        .collect::<Result<_, _>>()
        .map_err(|e: super::digest::DigestError| invalid(&e))?;
    if diff_ids.len() != layers {
        return Err(invalid(&format_args!(
            "it names {} layers, the manifest {layers}",
            diff_ids.len()
        )));
    }
    let history = config.history().as_deref().unwrap_or_default();
    let filled = history
        .iter()
        .filter(|entry| !entry.empty_layer().unwrap_or(false))
        .count();
    if !history.is_empty() && filled != layers {
        return Err(invalid(&format_args!(
            "its history has {filled} layers, the manifest {layers}"
        )));
    }
    let run = config.config().as_ref();
    let list = |read: fn(&oci::Config) -> &Option<Vec<String>>| {
        run.and_then(|run| read(run).clone()).unwrap_or_default()
    };
    Ok(ImageConfig {
        run: wire::spec::ImageDefaults {
            entrypoint: list(oci::Config::entrypoint),
            cmd: list(oci::Config::cmd),
            env: list(oci::Config::env),
            user: run.and_then(|run| run.user().clone()).unwrap_or_default(),
            working_dir: run
                .and_then(|run| run.working_dir().clone())
                .unwrap_or_default(),
            stop_signal: run.and_then(|run| run.stop_signal().clone()),
        },
        diff_ids,
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
        for (text, problem) in [
            (
                manifest("").replace(r#""layers""#, r#""manifests":[],"layers""#),
                "both layers and manifests",
            ),
            (
                manifest("").replace(r#""layers""#, r#""layers":[],"layers""#),
                "names a key twice",
            ),
            (
                manifest("").replace(r#""layers":[]"#, r#""x":1"#),
                "neither layers nor manifests",
            ),
            (
                manifest("").replace(":2,\"media", ":1,\"media"),
                "schemaVersion",
            ),
        ] {
            assert!(read_str(&text).unwrap_err().contains(problem), "{text}");
        }
        let error = read(
            manifest("").as_bytes(),
            Some("application/vnd.oci.image.index.v1+json"),
            &Platform::linux_amd64(),
        );
        assert!(error.unwrap_err().to_string().contains("calls itself"));
    }

    #[test]
    fn refuses_layers_that_must_not_be_fetched() {
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        for (text, problem) in [
            (
                layer(gzip, r#","urls":["http://10.0.0.1/x"]"#),
                "foreign address",
            ),
            (
                layer(
                    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                    "",
                ),
                "not a layer",
            ),
            (layer("application/x-unknown", ""), "unknown media type"),
            (layer(gzip, "").replace(D, "sha256:../../x"), ""),
            (layer(gzip, "").replace("\"size\":1", "\"size\":-1"), ""),
        ] {
            assert!(
                read_str(&manifest(&text)).unwrap_err().contains(problem),
                "{text}"
            );
        }
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

    #[test]
    fn a_config_must_agree_with_the_manifest() {
        let config = |rootfs: &str, extra: &str| {
            let text =
                format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{rootfs}{extra}}}"#);
            read_config(text.as_bytes(), 1, &Platform::linux_amd64()).map_err(|e| e.to_string())
        };
        let one = format!(r#"{{"type":"layers","diff_ids":["{D}"]}}"#);
        let read = config(
            &one,
            r#","config":{"User":"web","Cmd":["a"],"StopSignal":"SIGINT"}"#,
        )
        .unwrap();
        assert_eq!(
            (read.run.user.as_str(), read.run.cmd, read.run.stop_signal),
            ("web", vec!["a".to_owned()], Some("SIGINT".to_owned()))
        );
        for (rootfs, extra, problem) in [
            (r#"{"type":"layers","diff_ids":[]}"#, "", "names 0 layers"),
            (r#"{"type":"odd","diff_ids":[]}"#, "", "type 'odd'"),
            (
                one.as_str(),
                r#","history":[{"created_by":"a"},{"created_by":"b"}]"#,
                "history has 2",
            ),
        ] {
            assert!(
                config(rootfs, extra).unwrap_err().contains(problem),
                "{rootfs}{extra}"
            );
        }
    }
}
