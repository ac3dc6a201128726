//! Signs the one request that an enclave makes to KMS, so that no AWS credentials enter an enclave.
//!
//! A [`Signer`] belongs to one launch. It takes method, path, headers and region of the request from
//! the spec, reads the body that the enclave wrote, and signs what opens the enclave's own sealed
//! config: nothing else, and no more than [`MAX_SIGNATURES`] times. An enclave that is taken over
//! can ask for no more than what it was launched to do.

mod credentials;
mod request;
mod sigv4;

pub use credentials::{KmsConfig, NoCredentials};

use self::credentials::CachedCredentials;
use self::request::Expected;
use crate::aws::AwsConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use std::time::SystemTime;
use wire::kms::{MAX_SIGNATURES, SignRefusal, SignedHeaders};
use wire::sealed::Header;
use wire::spec::MeasuredConfig;

/// Signs for one enclave. `Debug` shows no credentials.
#[derive(Debug)]
pub struct Signer {
    /// The name that the config was sealed for, for the log.
    config: String,
    expected: Expected,
    credentials: CachedCredentials,
    left: u32,
}

impl Signer {
    /// For an enclave with this spec that is to open the config with this header. Fetches
    /// credentials, which takes 15 seconds at most: those of the usual places, on an instance its
    /// role's, or of the role that the configuration names.
    ///
    /// # Errors
    /// There are no credentials, they expire within 3 minutes, or the role cannot be assumed.
    pub async fn new(
        aws: &AwsConfig,
        kms: &KmsConfig,
        config: &MeasuredConfig,
        header: &Header,
    ) -> Result<Signer, NoCredentials> {
        let provider = credentials::provider(aws, kms, header).await?;
        let mut signer = Signer::with_provider(provider, config, header);
        signer.credentials.current().await?;
        Ok(signer)
    }

    /// With credentials of this provider, which is asked before the first signature.
    pub fn with_provider(
        provider: impl ProvideCredentials + 'static,
        config: &MeasuredConfig,
        header: &Header,
    ) -> Signer {
        Signer {
            config: header.name.clone(),
            expected: Expected::new(config, header),
            credentials: CachedCredentials::new(SharedCredentialsProvider::new(provider)),
            left: MAX_SIGNATURES,
        }
    }

    /// The headers that sign a request with this body. Waits for credentials, 15 seconds at most,
    /// if those at hand are about to expire.
    ///
    /// # Errors
    /// As [`SignRefusal`] says; a refusal counts as a signature.
    pub async fn sign(&mut self, body: &[u8]) -> Result<SignedHeaders, SignRefusal> {
        self.left = self.left.checked_sub(1).ok_or(SignRefusal::TooMany)?;
        let config = &self.config;
        self.expected.check(body).inspect_err(|refusal| {
            tracing::warn!(?config, %refusal, "an enclave's request to KMS is not signed");
        })?;
        let credentials = self.credentials.current().await.map_err(|error| {
            tracing::warn!(?config, %error, "an enclave's request to KMS is not signed");
            SignRefusal::Unavailable
        })?;
        sigv4::sign(&self.expected, body, &credentials, SystemTime::now()).map_err(|error| {
            tracing::warn!(?config, %error, "an enclave's request to KMS cannot be signed");
            SignRefusal::Unavailable
        })
    }
}

#[cfg(test)]
mod tests {
    use super::request::tests::{body, config, header};
    use super::*;
    use aws_credential_types::Credentials;

    #[tokio::test]
    async fn an_enclave_gets_a_few_signatures_and_refusals_count() {
        let credentials = Credentials::new("AKIA", "secret", Some("token".into()), None, "test");
        let mut signer = Signer::with_provider(credentials, &config(), &header());
        let body = body().to_string();
        let signed = signer.sign(body.as_bytes()).await.unwrap();
        assert_eq!(signed.security_token.as_deref(), Some("token"));
        assert!(signed.authorization.contains("/eu-west-1/kms/aws4_request"));
        assert_eq!(signer.sign(b"{}").await, Err(SignRefusal::Malformed));
        assert!(signer.sign(body.as_bytes()).await.is_ok());
        for _ in 0..2 {
            assert_eq!(
                signer.sign(body.as_bytes()).await,
                Err(SignRefusal::TooMany)
            );
        }
    }

    #[test]
    fn debug_shows_no_credentials() {
        let credentials = Credentials::new("AKIA", "secret", Some("token".into()), None, "test");
        let shown = format!(
            "{:?}",
            Signer::with_provider(credentials, &config(), &header())
        );
        for secret in ["AKIA", "secret", "token"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
