//! Seals a config for the one enclave that its spec describes: a data key from KMS, AES-256-GCM over the config, the file of
//! [`wire::sealed`]. The plaintext stays in memory that is wiped, and goes nowhere else.

pub mod command;

use attestation::Pcr;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_sdk_kms::config::Region;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_kms::operation::generate_data_key::GenerateDataKeyError;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use sha2::{Digest as _, Sha384};
use std::time::Duration;
use wire::sealed::{EnvironmentError, Header, MAX_PLAINTEXT, NONCE_LEN, TAG_LEN};
use wire::spec::{Deliver, ImageDefaults, MeasuredConfig, Spec, SpecError};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
const KEY_LEN: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the spec has no [config]")]
    NoConfig,
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("a config has 1 to {MAX_PLAINTEXT} bytes, this one has {0}")]
    Length(usize),
    #[error("the spec delivers the config as environment: {0}")]
    Environment(#[from] EnvironmentError),
    #[error("the spec delivers the config as environment, and it is not text")]
    NotText,
    #[error("version {version} is below the spec's minimum, {minimum}: no enclave would open it")]
    BelowMinimum { version: u64, minimum: u64 },
    #[error("KMS gave no data key: {0}")]
    Kms(String),
    #[error("encryption failed")]
    Crypto,
}

/// A sealed config, and what it will look like from outside.
#[derive(Debug)]
pub struct SealedConfig {
    pub header: Header,
    /// The file.
    pub bytes: Vec<u8>,
}

impl SealedConfig {
    /// What PCR16 of an enclave is that opened it.
    pub fn pcr16(&self) -> Pcr {
        pcr16(&self.bytes)
    }
}

/// What PCR16 of an enclave is that opened this sealed config: extended once, from zero.
pub fn pcr16(sealed: &[u8]) -> Pcr {
    Pcr::of_content_hash(Sha384::digest(sealed).into())
}

/// Seals `plaintext` as the given version. AWS credentials come from the usual places and need kms:GenerateDataKey on the key.
pub async fn seal(
    manifest: &Spec,
    version: u64,
    plaintext: &[u8],
) -> Result<SealedConfig, SealError> {
    let (name, config) = subject(manifest)?;
    check(&config, version, plaintext)?;
    let mut header = Header {
        name,
        version,
        kms_key: config.kms_key.clone(),
        context: config.context.clone(),
        encrypted_key: Vec::new(),
        nonce: random()?,
    };
    let key;
    (key, header.encrypted_key) = data_key(&config, &header).await?;
    let bytes = encrypt(&header, &key, plaintext)?;
    Ok(SealedConfig { header, bytes })
}

/// Only the spec's own part matters here; what the image adds is known when it is built.
fn subject(manifest: &Spec) -> Result<(String, MeasuredConfig), SealError> {
    let spec = manifest.resolve(ImageDefaults::any())?;
    Ok((
        spec.name.unwrap_or_default(),
        spec.config.ok_or(SealError::NoConfig)?,
    ))
}

/// Everything that the agent would refuse is refused here already.
fn check(config: &MeasuredConfig, version: u64, plaintext: &[u8]) -> Result<(), SealError> {
    if !(1..=MAX_PLAINTEXT).contains(&plaintext.len()) {
        return Err(SealError::Length(plaintext.len()));
    }
    if config.deliver == Deliver::Env {
        let text = std::str::from_utf8(plaintext).map_err(|_| SealError::NotText)?;
        wire::sealed::environment(text)?;
    }
    match version < config.minimum_version {
        true => Err(SealError::BelowMinimum {
            version,
            minimum: config.minimum_version,
        }),
        false => Ok(()),
    }
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError::Crypto)?;
    Ok(bytes)
}

async fn data_key(
    config: &MeasuredConfig,
    header: &Header,
) -> Result<(Zeroizing<[u8; KEY_LEN]>, Vec<u8>), SealError> {
    let answer = client(config)
        .await?
        .generate_data_key()
        .key_id(&config.kms_key)
        .key_spec(DataKeySpec::Aes256)
        .set_encryption_context(Some(header.encryption_context().into_iter().collect()))
        .send()
        .await
        .map_err(|e| SealError::Kms(causes(&e)))?;
    let plain = answer
        .plaintext
        .map(|blob| Zeroizing::new(blob.into_inner()));
    let key = plain
        .and_then(|plain| <[u8; KEY_LEN]>::try_from(plain.as_slice()).ok())
        .map(Zeroizing::new);
    match (key, answer.ciphertext_blob) {
        (Some(key), Some(encrypted)) => Ok((key, encrypted.into_inner())),
        _ => Err(SealError::Kms(
            "it answered without a key of 32 bytes".to_owned(),
        )),
    }
}

/// KMS's own code and message, or the row of causes; never the request, which DisplayErrorContext would show.
fn causes(error: &SdkError<GenerateDataKeyError>) -> String {
    if let Some(service) = error.as_service_error() {
        return format!(
            "{}: {}",
            service.code().unwrap_or("an error without a code"),
            service.message().unwrap_or("nothing more")
        );
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn client(config: &MeasuredConfig) -> Result<aws_sdk_kms::Client, SealError> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let mut trust = TrustStore::default();
    if let Some(pem) = &config.ca {
        trust = TrustStore::empty().with_pem_certificate(pem.as_bytes());
    }
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|e| SealError::Kms(format!("config.ca: {e}")))?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    let shared = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .timeout_config(timeouts)
        .load()
        .await;
    // The spec's authority is for KMS alone: credentials may come from elsewhere.
    let settings = aws_sdk_kms::config::Builder::from(&shared)
        .http_client(http)
        .endpoint_url(format!("https://{}", config.endpoint));
    Ok(aws_sdk_kms::Client::from_conf(settings.build()))
}

fn encrypt(header: &Header, key: &[u8; KEY_LEN], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let authenticated = header.encode();
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Crypto)?;
    let nonce: [u8; NONCE_LEN] = header.nonce;
    // Room for the tag: a vector that grows would leave a copy of the plaintext behind.
    let mut ciphertext = Vec::with_capacity(plaintext.len() + TAG_LEN);
    ciphertext.extend_from_slice(plaintext);
    LessSafeKey::new(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(authenticated.as_slice()),
            &mut ciphertext,
        )
        .map_err(|_| SealError::Crypto)?;
    Ok([authenticated, ciphertext].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(more: &str) -> Spec {
        let text = format!(
            "name = \"orders\"\n[network]\negress = [\"kms.us-east-1.amazonaws.com:443\"]\n\
             [config]\nkms_key = \"arn:aws:kms:us-east-1:111122223333:key/k\"\n{more}"
        );
        Spec::parse(&text).unwrap()
    }

    fn refused(more: &str, version: u64, plaintext: &[u8]) -> String {
        let (_, config) = subject(&manifest(more)).unwrap();
        check(&config, version, plaintext).unwrap_err().to_string()
    }

    #[test]
    fn refuses_what_the_enclave_would_refuse() {
        assert!(refused("", 1, b"no variable").contains("line 1 of the config has no ="));
        assert!(refused("", 1, &[0xff]).contains("not text"));
        assert!(refused("", 1, &[]).contains("1 to 49152 bytes"));
        assert!(refused("", 1, &vec![b'#'; MAX_PLAINTEXT + 1]).contains("49153"));
        assert!(refused("minimum_version = 3", 2, b"A=1").contains("below the spec's minimum"));
        let (name, config) = subject(&manifest("deliver = \"/run/config/app\"")).unwrap();
        assert_eq!(name, "orders");
        assert!(check(&config, 0, &[0xff]).is_ok());
        assert!(matches!(
            subject(&Spec::default()),
            Err(SealError::NoConfig)
        ));
    }
}
