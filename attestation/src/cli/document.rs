//! Documents as people keep them: raw, in base64, or in hexadecimal digits.

use super::Failure;
use attestation::document::MAX_LEN;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Hexadecimal digits take two bytes for one, and lines end.
const MAX_TEXT: u64 = 3 * MAX_LEN as u64;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    Ok(decode(read_bounded(path, MAX_TEXT)?))
}

/// COSE starts with 0x84 or 0xd2, which no text does. What is neither text stays as it is, for the verifier to refuse.
pub(super) fn decode(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&bytes) else { return bytes };
    let text: String = text.split_whitespace().collect();
    let url_safe = text.trim_end_matches('=');
    hex::decode(&text)
        .ok()
        .or(STANDARD.decode(&text).ok())
        .or(URL_SAFE_NO_PAD.decode(url_safe).ok())
        .unwrap_or(bytes)
}

/// A file, or standard input for `-`.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let fail = |problem: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {problem}", path.display()), "check the path")
    };
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path).map_err(|e| fail(&e))?),
    };
    let mut bytes = Vec::new();
    source.take(limit + 1).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
    match bytes.len() as u64 <= limit {
        true => Ok(bytes),
        false => Err(fail(&format!("longer than {limit} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_raw_bytes_and_text() {
        let raw = vec![0x84, 0x44, 0xa1, 1, 0x38, 0x22, 0xff];
        for form in [
            raw.clone(),
            hex::encode(&raw).into_bytes(),
            format!("{}\n", hex::encode_upper(&raw)).into_bytes(),
            b"hESh\nATgi/w==\n".to_vec(),
            b"hEShATgi_w".to_vec(),
        ] {
            assert_eq!(decode(form), raw);
        }
        assert_eq!(decode(b"neither".to_vec()), b"neither");
    }
}
