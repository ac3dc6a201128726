//! The crypto provider: everything that this crate uses of aws-lc-rs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

/// An uncompressed point on P-384 (SEC 1, 2.3.3): 0x04, x, y.
pub(crate) type PublicKey = [u8; 97];
/// r and s, 48 bytes each, big-endian (RFC 9053, 2.1).
pub(crate) type Signature = [u8; 96];

/// The order of P-384's base point (SP 800-186, 3.2.1.4), big-endian.
const ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf,
    0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// ECDSA with P-384 and SHA-384. A key that is not a point of the curve verifies nothing.
pub(crate) fn verify_p384_sha384(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let (r, s) = signature.split_at(48);
    let in_range = |n: &[u8]| n.iter().any(|&byte| byte != 0) && n < ORDER.as_slice();
    in_range(r)
        && in_range(s)
        && UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key)
            .verify(message, signature)
            .is_ok()
}

/// Takes a time that depends on the lengths alone.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    #[test]
    fn refuses_numbers_outside_the_group() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let key: PublicKey = pair.public_key().as_ref().try_into().unwrap();
        let good: Signature = pair
            .sign(&SystemRandom::new(), b"x")
            .unwrap()
            .as_ref()
            .try_into()
            .unwrap();
        assert!(verify_p384_sha384(&key, b"x", &good));
        assert!(!verify_p384_sha384(&key, b"y", &good));
        for bad in [[0; 48], ORDER, [0xff; 48]] {
            for half in [0, 48] {
                let mut signature = good;
                signature[half..half + 48].copy_from_slice(&bad);
                assert!(!verify_p384_sha384(&key, b"x", &signature));
            }
        }
        assert!(
            !verify_p384_sha384(&[4; 97], b"x", &good),
            "not a point of the curve"
        );
    }
}
