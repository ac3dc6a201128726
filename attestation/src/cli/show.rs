//! Prints a document without verifying it.

use super::document;
use super::error::CommandError;
use super::output::warn;
use attestation::unverified::describe;
use std::path::Path;

pub(super) fn run(doc: &Path, json: bool) -> Result<String, CommandError> {
    let bytes = document::read(doc)?;
    let document = describe(&bytes).map_err(|e| {
        CommandError::new(
            e,
            "give the bytes that the NSM returned: raw, in base64 or in hexadecimal",
        )
    })?;
    warn("caution: nothing of this was verified; use `attest verify` for that");
    if json {
        Ok(serde_json::to_string_pretty(&document).expect("strings and lists always serialise"))
    } else {
        Ok(document.to_string())
    }
}
