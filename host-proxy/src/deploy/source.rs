//! What an enclave is launched from: the EIF that was kept, or a build of the image that the record names.
//!
//! A target that was measured before is never launched as anything else.

use super::{Context, DeployEvent, DeployRequest, LeasedEif, Stages, image};
use api::{DeployError, Record, Release, Stage};
use attestation::Measurements;
use eif_builder::build::Built;
use explain::{Code, Explain as _};
use oci::{Digest, Reference};

/// What is to run, as far as it is known: a reference, what it was resolved to, and what that measures to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The image as it was asked for.
    pub image: Reference,
    /// What it was resolved to; `None` to resolve it now.
    pub digest: Option<Digest>,
    /// What it was built to; `None` to take what the build gives.
    pub measurements: Option<Measurements>,
}

impl Target {
    /// What a record names: a tag that it has a digest for is not resolved again.
    pub(crate) fn of(record: &Record) -> Target {
        Target {
            image: record.image.clone(),
            digest: record.image_digest,
            measurements: record.measurements,
        }
    }

    /// An image that is still to be resolved.
    pub(crate) fn new(image: Reference) -> Target {
        Target {
            image,
            digest: None,
            measurements: None,
        }
    }

    /// What the registry is asked for.
    pub(super) fn reference(&self) -> Reference {
        match self.digest {
            Some(digest) => self.image.with_digest(digest),
            None => self.image.clone(),
        }
    }
}

impl From<Release> for Target {
    fn from(release: Release) -> Target {
        let Release {
            image,
            digest,
            measurements,
        } = release;
        Target {
            image,
            digest: Some(digest),
            measurements: Some(measurements),
        }
    }
}

/// A stored EIF, and what it was made from.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) eif: LeasedEif,
    pub(crate) release: Release,
}

/// The EIF that was kept for the target, or one that is built now and kept.
pub(super) async fn prepare(
    context: &Context,
    request: &DeployRequest,
    stages: &mut Stages,
) -> Result<Prepared, DeployError> {
    let Target {
        image,
        digest,
        measurements,
    } = request.target.clone();
    let mut damage = None;
    if let (Some(digest), Some(measurements)) = (digest, measurements) {
        match context.eifs.open(measurements).await {
            Ok(eif) => {
                let release = Release {
                    image,
                    digest,
                    measurements,
                };
                return Ok(Prepared { eif, release });
            }
            Err(error) => {
                let (id, code) = (&request.id, error.code().as_str());
                tracing::error!(%id, code, %error, "the EIF cannot be launched again; it is built again");
                damage = Some(error);
            }
        }
    }
    let built = build(context, request, stages).await;
    let (built, release) = built.map_err(|error| match damage {
        Some(damage) => DeployError {
            message: format!("{}; the EIF had to be built again: {damage}", error.message),
            ..error
        },
        None => error,
    })?;
    let eif = context.eifs.keep(built).await?;
    let measured = DeployEvent::Measured(release.measurements);
    stages.report(measured).await;
    Ok(Prepared { eif, release })
}

/// Builds the target, and keeps nothing of it.
pub(super) async fn measure(
    context: &Context,
    request: &DeployRequest,
    stages: &mut Stages,
) -> Result<Release, DeployError> {
    let (built, release) = build(context, request, stages).await?;
    let removed = tokio::fs::remove_file(&built.path).await;
    removed.map_err(DeployError::internal)?;
    Ok(release)
}

async fn build(
    context: &Context,
    request: &DeployRequest,
    stages: &mut Stages,
) -> Result<(Built, Release), DeployError> {
    let made = tokio::fs::create_dir_all(&request.directory).await;
    made.map_err(DeployError::internal)?;
    let (built, digest) = image::build(context, request, stages).await?;
    let measurements = built.measurements;
    if let Err(error) = check_unchanged(request.target.measurements, measurements) {
        tokio::fs::remove_file(&built.path).await.ok();
        return Err(error);
    }
    let image = request.target.image.clone();
    let release = Release {
        image,
        digest,
        measurements,
    };
    Ok((built, release))
}

/// What was measured once measures to the same again, unless somebody ordered otherwise.
fn check_unchanged(before: Option<Measurements>, now: Measurements) -> Result<(), DeployError> {
    let Some(before) = before.filter(|before| *before != now) else {
        return Ok(());
    };
    let message = format!(
        "the image was built again and its PCR0 is {} now; it was {}",
        now.pcr0, before.pcr0
    );
    let code = Code::MeasurementsChanged;
    Err(DeployError::new(code, message, code.next_step()).at(Stage::Build))
}
