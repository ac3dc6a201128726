//! The sealer's signature over a config, for a spec that names a sealer.

use crate::error::BootError;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use wire::control::AbortReason;
use wire::sealed::Sealed;
use wire::spec::MeasuredConfig;

/// Checks the signature with the key of the measured spec, whatever the file says of itself. Comes
/// after the header was compared with the spec, and before anything is asked of KMS.
pub(super) fn verify(sealed: &Sealed<'_>, config: &MeasuredConfig) -> Result<(), BootError> {
    let Some(sealer) = &config.sealer else {
        return Ok(());
    };
    let refused = |detail| BootError::new(AbortReason::ConfigUnsigned, detail);
    let signature = sealed
        .signature
        .ok_or_else(|| refused("the config is not signed, and the spec names a sealer"))?;
    UnparsedPublicKey::new(&ED25519, sealer.0)
        .verify(signature.signed, signature.bytes)
        .map_err(|_| refused("the signature of the config is not that of the spec's sealer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::spec::{ImageDefaults, SealerKey, Spec};

    const SIGNED: &[u8] = include_bytes!("../../../wire/golden/config-2-signed.sealed");
    const UNSIGNED: &[u8] = include_bytes!("../../../wire/golden/config-2.sealed");

    fn config(sealer: Option<SealerKey>) -> MeasuredConfig {
        let text = "name = 'orders'\n[network]\negress = ['kms.us-east-1.amazonaws.com:443']\n\
                    [config]\nkms_key = 'arn:aws:kms:us-east-1:111122223333:key/k'\n\
                    variables = ['TOKEN']";
        let spec = Spec::parse(text).unwrap().resolve(ImageDefaults::any());
        MeasuredConfig {
            sealer,
            ..spec.unwrap().config.unwrap()
        }
    }

    fn refusal(bytes: &[u8], sealer: SealerKey) -> AbortReason {
        let sealed = Sealed::parse(bytes).unwrap();
        verify(&sealed, &config(Some(sealer))).unwrap_err().reason
    }

    #[test]
    fn a_config_is_opened_with_the_signature_of_the_specs_sealer_only() {
        let sealed = Sealed::parse(SIGNED).unwrap();
        let sealer = sealed.header.sealer.unwrap();
        verify(&sealed, &config(Some(sealer))).unwrap();
        let unsigned = AbortReason::ConfigUnsigned;
        assert_eq!(refusal(UNSIGNED, sealer), unsigned);
        assert_eq!(refusal(SIGNED, SealerKey([1; 32])), unsigned);
        assert_eq!(refusal(SIGNED, SealerKey([0; 32])), unsigned);
        // Without a sealer it is the header that refuses a signed file.
        verify(&Sealed::parse(UNSIGNED).unwrap(), &config(None)).unwrap();
    }

    #[test]
    fn every_bit_of_a_signed_file_is_signed() {
        let sealer = Sealed::parse(SIGNED).unwrap().header.sealer.unwrap();
        for bit in 0..SIGNED.len() * 8 {
            let mut flipped = SIGNED.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(sealed) = Sealed::parse(&flipped) {
                let refused = verify(&sealed, &config(Some(sealer))).is_err();
                assert!(refused, "bit {bit} is not signed");
            }
        }
    }
}
