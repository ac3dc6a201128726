//! What a document says, for looking at.

use super::Failure;
use std::path::Path;

pub(super) fn run(doc: &Path, json: bool) -> Result<String, Failure> {
    let bytes = super::document::read(doc)?;
    let shown = attestation::unverified::describe(&bytes).map_err(|e| {
        Failure::new(
            e,
            "give the bytes that the NSM gave out, in base64, or in hexadecimal digits",
        )
    })?;
    super::warn("caution: nothing of this was verified; `attest verify` does that");
    match json {
        true => {
            Ok(serde_json::to_string_pretty(&shown).expect("strings and lists always serialise"))
        }
        false => Ok(shown.to_string()),
    }
}
