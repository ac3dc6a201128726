//! Documents in the forms in which they are stored: raw, in base64, or in hexadecimal.

use super::error::CommandError;
use super::input;
use attestation::document::MAX_LEN;
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::path::Path;

/// Hexadecimal takes two bytes for one, and line ends some more. In bytes.
const MAX_TEXT: u64 = 3 * MAX_LEN as u64;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    Ok(decode(input::bytes(path, MAX_TEXT)?))
}

/// COSE starts with 0x84 or 0xd2, which no text does. What is in none of the forms is returned
/// unchanged, for the verifier to refuse.
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
