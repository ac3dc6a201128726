//! Files with measurements, in any form that a builder prints.

use super::error::CommandError;
use super::input;
use attestation::Measurements;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::Path;

/// What a builder says of an image.
#[derive(Debug)]
pub(super) struct BuiltImage {
    pub(super) measurements: Measurements,
    /// Its enclave opens a sealed config, which only `eif-builder build` knows.
    pub(super) sealed_config: bool,
}

pub(super) fn read(path: &Path) -> Result<BuiltImage, CommandError> {
    parse(&input::text(path)?).map_err(|e| {
        CommandError::new(
            format!("{}: {e}", path.display()),
            "use the JSON output of `eif-builder build --json`, `eif-builder describe` or nitro-cli",
        )
    })
}

fn parse(text: &str) -> serde_json::Result<BuiltImage> {
    let mut sealed_config = false;
    let measurements = match serde_json::from_str(text)? {
        Keys { nitro: Some(_), .. } => {
            let Nitro { measurements } = serde_json::from_str(text)?;
            measurements
        }
        Keys { built: Some(_), .. } => {
            let built: Built = serde_json::from_str(text)?;
            sealed_config = built.sealed_config;
            built.measurements
        }
        _ => serde_json::from_str(text)?,
    };
    Ok(BuiltImage {
        measurements,
        sealed_config,
    })
}

/// Tells the forms of a file apart.
#[derive(Deserialize)]
struct Keys {
    #[serde(rename = "Measurements")]
    nitro: Option<IgnoredAny>,
    #[serde(rename = "measurements")]
    built: Option<IgnoredAny>,
}

/// nitro-cli prints many other keys.
#[derive(Deserialize)]
struct Nitro {
    #[serde(rename = "Measurements")]
    measurements: Measurements,
}

/// A policy has other keys: it must be given with --policy, where they are not ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Built {
    #[serde(rename = "eif")]
    _eif: Option<IgnoredAny>,
    #[serde(rename = "image")]
    _image: Option<IgnoredAny>,
    #[serde(rename = "parts")]
    _parts: Option<IgnoredAny>,
    #[serde(rename = "cautions")]
    _cautions: Option<IgnoredAny>,
    #[serde(default)]
    sealed_config: bool,
    measurements: Measurements,
}
