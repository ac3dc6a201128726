//! Documents as people keep them: raw, in base64, or in hexadecimal digits.

use super::Failure;
use attestation::document::MAX_LEN;
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
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
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return bytes;
    };
    let text: String = text
        .trim_start_matches('\u{feff}')
        .split_whitespace()
        .collect();
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let base64 = |alphabet| GeneralPurpose::new(alphabet, config).decode(&text).ok();
    hex::decode(&text)
        .ok()
        .or_else(|| base64(&STANDARD))
        .or_else(|| base64(&URL_SAFE))
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
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| fail(&e))?;
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
            b"hEShATgi/w".to_vec(),
            "\u{feff}hEShATgi/w==".as_bytes().to_vec(),
        ] {
            assert_eq!(decode(form), raw);
        }
        assert_eq!(decode(b"neither".to_vec()), b"neither");
    }
}
