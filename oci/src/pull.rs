//! Pulls an image: resolves the reference once, then fetches config and layers by digest, several
//! at a time. A download that breaks off is resumed where it stopped; the digests decide in the
//! end.

use crate::content::ContentError;
use crate::digest::Digest;
use crate::error::PullError;
use crate::image_config::{self, ImageConfig};
use crate::json::MAX_DOCUMENT;
use crate::layer::{self, Expected, VerifiedLayer};
use crate::manifest::{self, Blob, Compression, Document, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Get, Registry, next_chunk, read_bounded};
use crate::secret::Credentials;
use crate::transport::Endpoint;
use bytes::Bytes;
use explain::printable;
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Layers that are fetched and unpacked at once.
const PARALLEL_LAYERS: usize = 3;
/// How often one blob is resumed.
const MAX_RESUMES: u32 = 5;
/// Pieces of a body that may wait for the unpacking side; hyper reads at most about 400 KiB at
/// once.
const FEED_PIECES: usize = 16;

/// What to pull and how.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Which image. A digest in it is enforced.
    pub reference: Reference,
    /// Which variant of it.
    pub platform: Platform,
    /// Sent only where the registry asks for a login, to the registry and its own token service.
    pub credentials: Option<Credentials>,
    /// How registries may be reached.
    pub endpoint: Endpoint,
    /// An existing directory that layers are unpacked in. Their files have no names, so nothing is
    /// left behind.
    pub work_dir: PathBuf,
    /// Bytes that all layers together may have once they are unpacked.
    pub max_unpacked: u64,
}

/// A limit against archives that unpack to more than any disk holds: 32 GiB, in bytes.
pub const DEFAULT_MAX_UNPACKED: u64 = 32 << 30;

/// Reported while a pull runs. Called from several tasks; must not block.
pub trait PullProgress: Send + Sync {
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

    /// How the image says it is run.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Lowest layer first.
    pub fn layers(&self) -> &[VerifiedLayer] {
        &self.layers
    }
}

/// Pulls an image and verifies it: manifest and config, then up to three layers at once. Runs on a
/// Tokio runtime with time and I/O; layers are unpacked on its blocking threads.
///
/// Cancel-safe: when the future is dropped the downloads end, and the files of half-unpacked layers
/// are freed as soon as their threads notice.
///
/// Waits at most 40 seconds for a response and 30 for more of one, tries a request that may pass
/// four times, and resumes a blob five times; there is no limit for the pull as a whole.
///
/// # Errors
/// See the variants of [`PullError`]. The first layer that fails ends the others.
pub async fn pull(
    request: PullRequest,
    progress: Arc<dyn PullProgress>,
) -> Result<VerifiedImage, PullError> {
    let PullRequest {
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

    let path = format!("blobs/{}", config.digest);
    let what = "the image's config";
    let config = fetch_document(&registry, path, &[], Some(config), what).await?;
    let config = image_config::read(&config.bytes, layers.len(), &platform)?;

    let expected = expect_layers(&layers, &config.diff_ids, max_unpacked);
    let layers = fetch_layers(registry, expected, work_dir, progress).await?;
    Ok(VerifiedImage {
        reference,
        digest,
        config,
        layers,
    })
}

/// What each layer must turn out to be; all share one budget of unpacked bytes.
fn expect_layers(
    layers: &[(Blob, Compression)],
    diff_ids: &[Digest],
    max_unpacked: u64,
) -> Vec<Expected> {
    let budget = Arc::new(AtomicU64::new(max_unpacked));
    let each = layers.iter().zip(diff_ids).enumerate();
    each.map(|(index, ((blob, compression), diff_id))| Expected {
        name: format!("layer {} ({})", index + 1, blob.digest),
        blob: *blob,
        diff_id: *diff_id,
        compression: *compression,
        budget: budget.clone(),
        max_unpacked,
    })
    .collect()
}

/// Fetches several layers at once. The first error drops the set, which ends the other downloads;
/// their files have no names.
async fn fetch_layers(
    registry: Arc<Registry>,
    expected: Vec<Expected>,
    work_dir: PathBuf,
    progress: Arc<dyn PullProgress>,
) -> Result<Vec<VerifiedLayer>, PullError> {
    let slots = Arc::new(Semaphore::new(PARALLEL_LAYERS));
    let mut tasks = JoinSet::new();
    for (index, expected) in expected.into_iter().enumerate() {
        let (registry, slots) = (registry.clone(), slots.clone());
        let (progress, work_dir) = (progress.clone(), work_dir.clone());
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let layer = fetch_layer(&registry, expected, work_dir, &*progress).await;
            (index, layer)
        });
    }
    let mut unpacked = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        let (index, layer) = joined?;
        unpacked.push((index, layer?));
    }
    unpacked.sort_by_key(|(index, _)| *index);
    Ok(unpacked.into_iter().map(|(_, layer)| layer).collect())
}

/// From a reference to the one manifest of the platform, by way of an index where there is one.
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
            ContentError::NestedIndex,
        )),
    }
}

struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    content_type: Option<String>,
}

/// A JSON document, read into memory; checked against `expected` where something vouched for it
/// before.
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
    let bytes = read_bounded(registry.host(), response, MAX_DOCUMENT, what).await?;
    let digest = Digest::of(&bytes);
    if let Some(expected) = expected {
        let size = bytes.len() as u64;
        check_document(what, Blob { digest, size }, expected)?;
    }
    Ok(Fetched {
        bytes,
        digest,
        content_type,
    })
}

fn check_document(what: &str, found: Blob, expected: Blob) -> Result<(), PullError> {
    if found.size != expected.size {
        let problem = ContentError::Length {
            found: found.size,
            expected: expected.size,
        };
        return Err(PullError::invalid(what, problem));
    }
    if found.digest != expected.digest {
        return Err(PullError::DigestMismatch {
            what: what.to_owned(),
            expected: expected.digest,
            found: found.digest,
        });
    }
    Ok(())
}

async fn fetch_layer(
    registry: &Registry,
    expected: Expected,
    work_dir: PathBuf,
    progress: &dyn PullProgress,
) -> Result<VerifiedLayer, PullError> {
    let (sender, feed) = mpsc::channel(FEED_PIECES);
    let blob = expected.blob;
    let unpacking = tokio::task::spawn_blocking(move || layer::unpack(feed, &expected, &work_dir));
    if let Err(error) = feed_blob(registry, blob, &sender, progress).await {
        // A closed feed means that unpacking failed first: its error is the one that counts.
        sender.send(Err(error)).await.ok();
    }
    drop(sender);
    unpacking.await?
}

/// The unpacking side of one layer.
type Feed = mpsc::Sender<Result<Bytes, PullError>>;

/// Sends a blob's bytes in order, resuming after a break. Stops quietly where the feed is closed.
async fn feed_blob(
    registry: &Registry,
    blob: Blob,
    feed: &Feed,
    progress: &dyn PullProgress,
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
        if response.status() == StatusCode::PARTIAL_CONTENT {
            check_range(response.headers(), offset)?;
        }
        let broken = match feed_body(registry.host(), response, &mut offset, feed, progress).await {
            Ok(Fed::Closed) => return Ok(()),
            Ok(Fed::Whole) if offset >= blob.size => return Ok(()),
            Ok(Fed::Whole) => None,
            Err(error) => Some(error),
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

/// How a body ended.
enum Fed {
    /// All of it was sent on.
    Whole,
    /// The unpacking side has ended.
    Closed,
}

/// Sends one response's bytes on; `offset` counts them.
async fn feed_body(
    host: &str,
    response: Response<Incoming>,
    offset: &mut u64,
    feed: &Feed,
    progress: &dyn PullProgress,
) -> Result<Fed, PullError> {
    // A registry that ignores the range sends everything again: what we have is skipped.
    let mut skip = if response.status() == StatusCode::OK {
        *offset
    } else {
        0
    };
    let mut body = response.into_body();
    while let Some(mut bytes) = next_chunk(host, &mut body).await? {
        let skipped = skip.min(bytes.len() as u64);
        skip -= skipped;
        bytes = bytes.split_off(usize::try_from(skipped).unwrap_or(bytes.len()));
        *offset += bytes.len() as u64;
        progress.received(bytes.len() as u64);
        if !bytes.is_empty() && feed.send(Ok(bytes)).await.is_err() {
            return Ok(Fed::Closed);
        }
    }
    Ok(Fed::Whole)
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
    if start.and_then(|start| start.parse::<u64>().ok()) == Some(offset) {
        return Ok(());
    }
    let problem = ContentError::Range {
        asked: offset,
        content_range: printable(value),
    };
    Err(PullError::invalid("a partial answer", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_answer_begins_where_the_last_one_ended() {
        let check = |value: &str| {
            let mut headers = header::HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, value.parse().unwrap());
            check_range(&headers, 1000)
        };
        assert!(check("bytes 1000-1999/3000").is_ok());
        for bad in [
            "bytes 5-9/10",
            "bytes 999-1999/3000",
            "1000-1999/3000",
            "",
            "bytes */3000",
        ] {
            let error = check(bad).unwrap_err();
            assert!(
                matches!(
                    &error,
                    PullError::Invalid { problem: ContentError::Range { asked: 1000, content_range }, .. }
                        if content_range == bad
                ),
                "{error}"
            );
        }
    }
}
