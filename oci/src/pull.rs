//! Pulls an image: resolves the reference once, then fetches config and layers by digest, several at a time.
//! A download that breaks off is resumed where it stopped; the digests decide in the end.

use super::json::MAX_DOCUMENT;
use super::layer::{self, Expected};
use super::manifest::{self, Blob, Document, ImageConfig, Manifest};
use super::registry::{Get, next_chunk, read_bounded};
use super::{
    Credentials, Digest, Endpoint, Platform, PullError, Reference, Registry, VerifiedLayer,
};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Layers that are fetched and unpacked at once.
const PARALLEL_LAYERS: usize = 3;
/// How often one blob is resumed.
const MAX_RESUMES: u32 = 5;
const FEED_PIECES: usize = 16;

/// What to pull and how.
#[derive(Debug, Clone)]
pub struct Request {
    pub reference: Reference,
    pub platform: Platform,
    pub credentials: Option<Credentials>,
    pub endpoint: Endpoint,
    /// Where layers are spooled; nothing in it has a name, so nothing is left behind.
    pub work_dir: PathBuf,
    /// Bytes that all layers together may have once they are unpacked.
    pub max_unpacked: u64,
}

/// A limit against archives that unpack to more than anybody's disk: 32 GiB.
pub const DEFAULT_MAX_UNPACKED: u64 = 32 << 30;

/// What is told while a pull runs. Called from several tasks.
pub trait Progress: Send + Sync {
    /// The reference turned out to be this manifest, with these layers (compressed size in bytes).
    fn resolved(&self, digest: Digest, layers: &[u64]);
    /// `bytes` more of the compressed layers arrived.
    fn received(&self, bytes: u64);
}

/// An image whose every byte was checked. Only [`pull`] makes one.
#[derive(Debug)]
pub struct VerifiedImage {
    reference: Reference,
    digest: Digest,
    config: ImageConfig,
    layers: Vec<VerifiedLayer>,
}

impl VerifiedImage {
    /// As it was asked for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Digest of the image's manifest, the one of its platform.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Lowest layer first.
    pub fn layers(&self) -> &[VerifiedLayer] {
        &self.layers
    }
}

pub async fn pull(
    request: Request,
    progress: Arc<dyn Progress>,
) -> Result<VerifiedImage, PullError> {
    let Request {
        reference,
        platform,
        credentials,
        endpoint,
        work_dir,
        max_unpacked,
    } = request;
    let registry = Arc::new(Registry::new(&reference, credentials, &endpoint)?);
    let (digest, manifest) = resolve(&registry, &reference, &platform).await?;
    let Manifest { config, layers } = manifest;
    let sizes: Vec<u64> = layers.iter().map(|(blob, _)| blob.size).collect();
    progress.resolved(digest, &sizes);

    let config = fetch_document(
        &registry,
        format!("blobs/{}", config.digest),
        &[],
        Some(config),
        "the image's config",
    )
    .await?;
    let config = manifest::read_config(&config.bytes, layers.len(), &platform)?;

    let budget = Arc::new(AtomicU64::new(max_unpacked));
    let slots = Arc::new(Semaphore::new(PARALLEL_LAYERS));
    let mut tasks = JoinSet::new();
    for (index, ((blob, compression), diff_id)) in layers.iter().zip(&config.diff_ids).enumerate() {
        let expected = Expected {
            name: format!("layer {} ({})", index + 1, blob.digest),
            blob: *blob,
            diff_id: *diff_id,
            compression: *compression,
            budget: budget.clone(),
            max_unpacked,
        };
        let (registry, slots, progress, work_dir) = (
            registry.clone(),
            slots.clone(),
            progress.clone(),
            work_dir.clone(),
        );
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await;
            (
                index,
                fetch_layer(&registry, expected, work_dir, &*progress).await,
            )
        });
    }
    // The first error drops the set, which ends the other downloads; their spools have no names.
    let mut unpacked = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        let (index, layer) = joined.map_err(|e| PullError::invalid("a layer", e))?;
        unpacked.push((index, layer?));
    }
    unpacked.sort_by_key(|(index, _)| *index);
    Ok(VerifiedImage {
        reference,
        digest,
        config,
        layers: unpacked.into_iter().map(|(_, layer)| layer).collect(),
    })
}

async fn resolve(
    registry: &Registry,
    reference: &Reference,
    platform: &Platform,
) -> Result<(Digest, Manifest), PullError> {
    let path = format!("manifests/{}", reference.version());
    let mut document = fetch_document(registry, path, &manifest::ACCEPT, None, "the manifest")
        .await
        .map_err(|e| match e {
            PullError::NotFound { reason, .. } => PullError::NotFound {
                reference: reference.to_string(),
                reason,
            },
            other => other,
        })?;
    if let Some(expected) = reference.digest()
        && document.digest != expected
    {
        return Err(PullError::DigestMismatch {
            what: "the manifest".to_owned(),
            expected,
            found: document.digest,
        });
    }
    if let Document::Index(blob) =
        manifest::read(&document.bytes, document.content_type.as_deref(), platform)?
    {
        let path = format!("manifests/{}", blob.digest);
        document = fetch_document(
            registry,
            path,
            &manifest::ACCEPT,
            Some(blob),
            "the platform's manifest",
        )
        .await?;
    }
    match manifest::read(&document.bytes, document.content_type.as_deref(), platform)? {
        Document::Manifest(manifest) => Ok((document.digest, manifest)),
        Document::Index(_) => Err(PullError::invalid(
            "the manifest",
            "an index inside an index is not followed",
        )),
    }
}

struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    content_type: Option<String>,
}

/// A JSON document, read into memory; checked against `expected` where something vouched for it before.
async fn fetch_document(
    registry: &Registry,
    path: String,
    accept: &[&'static str],
    expected: Option<Blob>,
    what: &str,
) -> Result<Fetched, PullError> {
    let response = registry
        .get(&Get {
            path,
            accept,
            offset: 0,
        })
        .await?;
    let content_type = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let bytes = read_bounded(response, MAX_DOCUMENT, what).await?;
    let digest = Digest::of(&bytes);
    if let Some(Blob {
        digest: wanted,
        size,
    }) = expected
    {
        if bytes.len() as u64 != size {
            return Err(PullError::invalid(
                what,
                format!("it is {} bytes long, expected {size}", bytes.len()),
            ));
        }
        if digest != wanted {
            return Err(PullError::DigestMismatch {
                what: what.to_owned(),
                expected: wanted,
                found: digest,
            });
        }
    }
    Ok(Fetched {
        bytes,
        digest,
        content_type,
    })
}

async fn fetch_layer(
    registry: &Registry,
    expected: Expected,
    work_dir: PathBuf,
    progress: &dyn Progress,
) -> Result<VerifiedLayer, PullError> {
    let (sender, feed) = mpsc::channel(FEED_PIECES);
    let blob = expected.blob;
    let unpacking = tokio::task::spawn_blocking(move || layer::unpack(feed, &expected, &work_dir));
    if let Err(error) = feed_blob(registry, blob, &sender, progress).await {
        // A closed feed means that unpacking failed first: its error is the one that counts.
        let _ = sender.send(Err(error)).await;
    }
    drop(sender);
    unpacking
        .await
        .map_err(|e| PullError::invalid("a layer", e))?
}

/// Sends a blob's bytes in order, resuming after a break. Stops quietly where nobody listens any more.
async fn feed_blob(
    registry: &Registry,
    blob: Blob,
    sender: &mpsc::Sender<Result<Bytes, PullError>>,
    progress: &dyn Progress,
) -> Result<(), PullError> {
    let mut offset = 0;
    let mut resumes = 0;
    loop {
        let get = Get {
            path: format!("blobs/{}", blob.digest),
            accept: &[],
            offset,
        };
        let response = registry.get(&get).await?;
        // A registry that ignores the range sends everything again: what we have is skipped.
        let mut skip = if offset > 0 && response.status() == StatusCode::OK {
            offset
        } else {
            0
        };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            check_range(response.headers(), offset)?;
        }
        let mut body = response.into_body();
        let broken = loop {
            match next_chunk(registry.host(), &mut body).await {
                Ok(Some(mut bytes)) => {
                    let skipped = skip.min(bytes.len() as u64);
                    skip -= skipped;
                    bytes = bytes.split_off(usize::try_from(skipped).unwrap_or(bytes.len()));
                    offset += bytes.len() as u64;
                    progress.received(bytes.len() as u64);
                    if !bytes.is_empty() && sender.send(Ok(bytes)).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) if offset >= blob.size => return Ok(()),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        resumes += 1;
        if resumes > MAX_RESUMES {
            let short = PullError::TooShort {
                what: blob.digest.to_string(),
                expected: blob.size,
                found: offset,
            };
            return Err(broken.unwrap_or(short));
        }
    }
}

/// `Content-Range: bytes START-END/TOTAL` (RFC 9110, 14.4) must begin where we stopped.
fn check_range(headers: &header::HeaderMap, offset: u64) -> Result<(), PullError> {
    let value = headers
        .get(header::CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let start = value
        .strip_prefix("bytes ")
        .and_then(|range| range.split('-').next());
    match start.and_then(|start| start.parse::<u64>().ok()) == Some(offset) {
        true => Ok(()),
        false => Err(PullError::invalid(
            "a partial answer",
            format!("asked from byte {offset}, got '{value}'"),
        )),
    }
}
