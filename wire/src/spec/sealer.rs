//! The public key of the one who may seal configs for a spec.

use super::error::{InvalidValue, SpecError};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// An Ed25519 public key (RFC 8032, 5.1.5): 32 bytes, 64 hexadecimal digits in specs and messages.
/// Not checked to be a point of the curve: no signature holds for one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(try_from = "String", into = "String")]
#[cbor(transparent)]
pub struct SealerKey(
    /// As RFC 8032 encodes it.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl std::fmt::Display for SealerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl TryFrom<String> for SealerKey {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        let mut key = [0; 32];
        match hex::decode_to_slice(&text, &mut key) {
            Ok(()) => Ok(SealerKey(key)),
            Err(_) => Err(InvalidValue::SealerKey(text).of("config.sealer")),
        }
    }
}

impl From<SealerKey> for String {
    fn from(key: SealerKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        let text = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = SealerKey::try_from(text.to_owned()).unwrap();
        assert_eq!((key.0[0], key.to_string().as_str()), (0xd7, text));
        for bad in [
            "",
            &text[2..],
            &format!("{text}00"),
            &text.replace('d', "x"),
        ] {
            let problem = InvalidValue::SealerKey(bad.to_owned()).of("config.sealer");
            assert_eq!(SealerKey::try_from(bad.to_owned()), Err(problem));
        }
    }
}
