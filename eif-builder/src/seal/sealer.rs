//! The key that signs configs, for specs that name a sealer.

use super::SealError;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use wire::spec::{MeasuredConfig, SealerKey};

/// An Ed25519 private key (RFC 8032). `Debug` shows its public part alone.
#[derive(Debug)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: SealerKey,
}

impl SigningKey {
    /// Reads a PEM file with a private key in PKCS #8 (RFC 8410), as `openssl genpkey -algorithm
    /// ed25519` writes it.
    ///
    /// # Errors
    /// [`SealError::SigningKey`] if it is anything else.
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, SealError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SealError::SigningKey)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|_| SealError::SigningKey)?;
        let public = <[u8; 32]>::try_from(pair.public_key().as_ref())
            .map(SealerKey)
            .map_err(|_| SealError::SigningKey)?;
        Ok(SigningKey { pair, public })
    }

    /// What a spec names as `config.sealer`.
    pub fn public_key(&self) -> SealerKey {
        self.public
    }

    /// The file, and behind it the signature over all of it.
    pub(super) fn sign(&self, mut file: Vec<u8>) -> Vec<u8> {
        let signature = self.pair.sign(&file);
        file.extend_from_slice(signature.as_ref());
        file
    }
}

/// The enclave opens configs that are signed by the spec's sealer, and unsigned ones if there is
/// none.
pub(super) fn check(config: &MeasuredConfig, key: Option<&SigningKey>) -> Result<(), SealError> {
    let expected = config.sealer;
    match (key.map(SigningKey::public_key), expected) {
        (None, Some(sealer)) => Err(SealError::Unsigned(sealer)),
        (Some(key), _) if expected != Some(key) => Err(SealError::Sealer { key, expected }),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use explain::Explain as _;
    use wire::spec::{ImageDefaults, Spec};

    /// RFC 8032, 7.1, test 1, as OpenSSL writes it.
    const PEM: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";

    pub(in crate::seal) fn signing_key() -> SigningKey {
        SigningKey::from_pem(PEM).unwrap()
    }

    #[test]
    fn a_spec_with_a_sealer_is_sealed_for_with_that_key_only() {
        let key = signing_key();
        let own = key.public_key();
        assert!(own.to_string().starts_with("d75a980182b10ab7"));
        let text = "name = 'n'\n[network]\negress = ['kms.us-east-1.amazonaws.com:443']\n[config]\n\
                    kms_key = 'arn:aws:kms:us-east-1:1:key/k'\nvariables = ['A']";
        let spec = Spec::parse(text).unwrap().resolve(ImageDefaults::any());
        let mut config = spec.unwrap().config.unwrap();
        let refused = |config: &MeasuredConfig, key| check(config, key).unwrap_err();
        assert!(check(&config, None).is_ok());
        let unasked = refused(&config, Some(&key));
        assert!(unasked.next_step().contains(&format!("sealer = \"{own}\"")));
        config.sealer = Some(own);
        assert!(check(&config, Some(&key)).is_ok());
        assert!(matches!(refused(&config, None), SealError::Unsigned(_)));
        config.sealer = Some(SealerKey([1; 32]));
        let other = refused(&config, Some(&key)).to_string();
        assert!(
            other.contains(&own.to_string()) && other.contains("0101"),
            "{other}"
        );
    }

    #[test]
    fn what_is_no_ed25519_key_is_refused() {
        let rsa = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIJ1hsZ3v\n-----END PRIVATE KEY-----\n";
        for bad in ["", "d75a98", rsa] {
            let error = SigningKey::from_pem(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, SealError::SigningKey), "{bad}");
        }
    }
}
