//! Container images made entry by entry, and written as OCI layouts that skopeo and umoci read.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// A layer's archive while it is made. Every method adds one entry.
pub struct Layer {
    tar: Builder<Vec<u8>>,
}

#[derive(Clone, Copy)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Default for Layer {
    fn default() -> Self {
        Layer {
            tar: Builder::new(Vec::new()),
        }
    }
}

impl Layer {
    fn entry(
        mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        owner: u64,
        link: Option<&str>,
        body: &[u8],
    ) -> Layer {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_000_000_000);
        header.set_size(body.len() as u64);
        match link {
            Some(link) => self.tar.append_link(&mut header, path, link).unwrap(),
            None => self.tar.append_data(&mut header, path, body).unwrap(),
        }
        self
    }

    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Layer {
        self.entry(path, EntryType::Directory, mode, 0, None, &[])
    }

    #[must_use]
    pub fn file(self, path: &str, mode: u32, owner: u64, body: impl AsRef<[u8]>) -> Layer {
        self.entry(path, EntryType::Regular, mode, owner, None, body.as_ref())
    }

    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(path, EntryType::Symlink, 0o777, 0, Some(target), &[])
    }

    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Layer {
        self.entry(path, EntryType::Link, 0o600, 7, Some(target), &[])
    }

    #[must_use]
    pub fn fifo(self, path: &str) -> Layer {
        self.entry(path, EntryType::Fifo, 0o644, 0, None, &[])
    }

    #[must_use]
    pub fn char_device(mut self, path: &str, major: u32, minor: u32) -> Layer {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.tar.append_data(&mut header, path, &[][..]).unwrap();
        self
    }

    /// Attributes for the next entry.
    #[must_use]
    pub fn xattrs(mut self, xattrs: &[(&str, &[u8])]) -> Layer {
        let named: Vec<(String, &[u8])> = xattrs
            .iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), *value))
            .collect();
        self.tar
            .append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), *value)))
            .unwrap();
        self
    }

    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }
}

/// An image: layers, lowest first, and what its config says of how to run it.
pub struct Image {
    pub layers: Vec<(Vec<u8>, Compression)>,
    pub config: Value,
    pub architecture: &'static str,
}

impl Image {
    #[must_use]
    pub fn new(config: Value) -> Image {
        Image {
            layers: Vec::new(),
            config,
            architecture: "amd64",
        }
    }

    #[must_use]
    pub fn layer(mut self, layer: Layer, compression: Compression) -> Image {
        self.layers.push((layer.finish(), compression));
        self
    }

    /// Writes an OCI layout with the tag `v1` and gives the manifest's digest.
    pub fn write(&self, folder: &Path) -> String {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        let put = |media_type: &str, bytes: &[u8]| {
            let digest = hex::encode(Sha256::digest(bytes));
            std::fs::write(blobs.join(&digest), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|(tar, compression)| {
                let (bytes, kind) = compress(tar, *compression);
                put(
                    &format!("application/vnd.oci.image.layer.v1.tar{kind}"),
                    &bytes,
                )
            })
            .collect();
        let diff_ids: Vec<String> = self
            .layers
            .iter()
            .map(|(tar, _)| format!("sha256:{}", hex::encode(Sha256::digest(tar))))
            .collect();
        let config = json!({
            "architecture": self.architecture, "os": "linux", "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = put(
            "application/vnd.oci.image.config.v1+json",
            &serde_json::to_vec(&config).unwrap(),
        );
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
        });
        let mut manifest = put(
            "application/vnd.oci.image.manifest.v1+json",
            &serde_json::to_vec(&manifest).unwrap(),
        );
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(
            folder.join("index.json"),
            serde_json::to_vec(&index).unwrap(),
        )
        .unwrap();
        manifest["digest"].as_str().unwrap().to_owned()
    }
}

fn compress(tar: &[u8], compression: Compression) -> (Vec<u8>, &'static str) {
    match compression {
        Compression::None => (tar.to_vec(), ""),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            (encoder.finish().unwrap(), "+gzip")
        }
        Compression::Zstd => (zstd::bulk::compress(tar, 3).unwrap(), "+zstd"),
    }
}
