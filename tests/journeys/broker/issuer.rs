//! An issuer of tokens.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::broker::{claims, signed, unsigned};

/// Of each kind that an issuer may sign with.
pub(super) struct Issuer {
    pub(super) rsa: RsaKeyPair,
    ecdsa: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    pub(super) fn new() -> Issuer {
        let random = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
        Issuer {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ecdsa: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(),
        }
    }

    /// RFC 7517 and 8037; one key is of a kind that Redoubt does not know.
    pub(super) fn keys(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let rsa = self.rsa.public_key();
        let point = self.ecdsa.public_key().as_ref();
        json!({ "keys": [
            { "kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AA", "y": "AA" },
            { "kty": "RSA", "kid": "RS256", "use": "sig", "alg": "RS256",
              "n": text(rsa.modulus().big_endian_without_leading_zero()),
              "e": text(rsa.exponent().big_endian_without_leading_zero()) },
            { "kty": "EC", "crv": "P-256", "kid": "ES256", "x": text(&point[1..33]), "y": text(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "x": text(self.ed25519.public_key().as_ref()) },
        ] })
    }

    pub(super) fn token(&self, algorithm: &str) -> String {
        let text = unsigned(
            &json!({ "alg": algorithm, "kid": algorithm }),
            &claims("repo:org/app:main", &["my-app"]),
        );
        let random = SystemRandom::new();
        let signature = match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            "ES256" => self
                .ecdsa
                .sign(&random, text.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            _ => self.ed25519.sign(text.as_bytes()).as_ref().to_vec(),
        };
        signed(&text, &signature)
    }
}

pub(super) const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];
