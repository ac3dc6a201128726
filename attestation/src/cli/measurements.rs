//! Files with measurements, in any form that a builder prints.

use super::error::CommandError;
use super::input;
use attestation::Measurements;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::Path;

pub(super) fn read(path: &Path) -> Result<Measurements, CommandError> {
    parse(&input::text(path)?).map_err(|e| {
        CommandError::new(
            format!("{}: {e}", path.display()),
            "use the JSON output of `eif-builder build --json`, `eif-builder describe` or nitro-cli",
        )
    })
}

fn parse(text: &str) -> serde_json::Result<Measurements> {
    match serde_json::from_str(text)? {
        Keys { nitro: Some(_), .. } => {
            serde_json::from_str(text).map(|Nitro { measurements }| measurements)
        }
        Keys { built: Some(_), .. } => {
            serde_json::from_str(text).map(|Built { measurements, .. }| measurements)
        }
        _ => serde_json::from_str(text),
    }
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
    measurements: Measurements,
}
