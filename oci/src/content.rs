//! What can be wrong with the form of something that a registry sent.

use crate::digest::DigestError;
use hyper::http::uri::InvalidUri;
use std::io;

/// What is wrong with a part of an image, or with an answer. [`crate::PullError::Invalid`] says
/// with which.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Not the JSON that the specification requires, or an object that names a key twice.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Not JSON. What it is must not be quoted, since it may be a secret.
    #[error("not JSON at column {column}")]
    SecretJson {
        /// Where reading stopped, from 1.
        column: usize,
    },
    /// The token service's answer has neither `token` nor `access_token`.
    #[error("the answer holds no token")]
    NoToken,
    /// A digest that does not follow the grammar.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A URL that cannot be read.
    #[error(transparent)]
    Url(#[from] InvalidUri),
    /// A request that HTTP cannot carry.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    /// The first schema of Docker's manifests, or none.
    #[error("its schemaVersion is not 2; push the image again with a current tool")]
    SchemaVersion,
    /// `Content-Type` and the document's own `mediaType` differ (CVE-2021-41190).
    #[error("its Content-Type is '{content_type}', and its mediaType '{media_type}'")]
    MediaTypes {
        /// From the HTTP header.
        content_type: String,
        /// From the document.
        media_type: String,
    },
    /// The document could be read as a manifest and as an index (CVE-2021-41190).
    #[error("it has both layers and manifests")]
    LayersAndManifests,
    /// Neither a manifest nor an index.
    #[error("it has neither layers nor manifests")]
    NoLayersNorManifests,
    /// An index names an index.
    #[error("an index inside an index is not followed")]
    NestedIndex,
    /// An artifact that is no container image.
    #[error("'{0}' is not the config of a container image")]
    ConfigType(String),
    /// A layer with `urls` (OCI image-spec, descriptor.md): its bytes are elsewhere.
    #[error("it is stored at a foreign URL; such layers are not supported")]
    ForeignLayer,
    /// A media type that no specification has.
    #[error("unknown media type '{0}'")]
    UnknownLayerType(String),
    /// A media type that is not a layer's, or not one that may be distributed.
    #[error("media type '{0}' is not a layer that may be fetched")]
    LayerType(String),
    /// The config's `rootfs.type` is not `layers`.
    #[error("its rootfs has type '{0}'")]
    RootfsType(String),
    /// The config's `diff_ids` do not match the manifest's layers.
    #[error("it names {found} layers, the manifest {expected}")]
    LayerCount {
        /// In the config.
        found: usize,
        /// In the manifest.
        expected: usize,
    },
    /// The config's history does not match the manifest's layers.
    #[error("its history has {found} layers, the manifest {expected}")]
    HistoryCount {
        /// In the history, without its empty layers.
        found: usize,
        /// In the manifest.
        expected: usize,
    },
    /// A document of another length than its descriptor says.
    #[error("it is {found} bytes long, expected {expected}")]
    Length {
        /// In bytes.
        found: u64,
        /// In bytes.
        expected: u64,
    },
    /// A partial answer that begins elsewhere than asked for (RFC 9110, 14.4).
    #[error("asked from byte {asked}, got '{content_range}'")]
    Range {
        /// The first byte that was asked for.
        asked: u64,
        /// The answer's `Content-Range`.
        content_range: String,
    },
    /// A layer that cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] io::Error),
}
