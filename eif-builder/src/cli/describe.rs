//! `eif-builder describe`: the JSON of `nitro-cli describe-eif`, field for field.

use attestation::Measurements;
use eif_builder::eif::{BuildMetadata, Eif, EifError, Metadata};
use explain::CliError;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Enclave image (EIF)
    eif: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    eif_version: u16,
    measurements: Measurements,
    is_signed: bool,
    #[serde(rename = "CheckCRC")]
    check_crc: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<DescribedMetadata>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedMetadata {
    #[serde(flatten)]
    build: BuildMetadata,
    docker_info: serde_json::Value,
    #[serde(flatten)]
    custom: serde_json::Value,
}

pub(super) fn run(args: &Args) -> Result<String, CliError> {
    Ok(describe(&args.eif)?)
}

fn describe(path: &std::path::Path) -> Result<String, EifError> {
    let eif = Eif::open(path)?;
    let metadata = eif.metadata()?;
    let description = Description {
        eif_version: eif.version(),
        measurements: eif.measure()?,
        is_signed: eif.is_signed(),
        check_crc: eif.crc_matches()?,
        image_name: metadata
            .as_ref()
            .map(|metadata| metadata.image_name.clone()),
        image_version: metadata
            .as_ref()
            .map(|metadata| metadata.image_version.clone()),
        metadata: metadata.map(
            |Metadata {
                 build_metadata,
                 docker_info,
                 custom_metadata,
                 ..
             }| {
                DescribedMetadata {
                    build: build_metadata,
                    docker_info,
                    custom: custom_metadata,
                }
            },
        ),
    };
    Ok(serde_json::to_string_pretty(&description)
        .expect("strings, numbers and objects always serialise"))
}
