//! Seals a config for the one enclave that its spec describes: a data key from KMS, AES-256-GCM
//! over the config, the file format of [`wire::sealed`]. The plaintext stays in memory that is
//! wiped, and goes nowhere else.

mod sealer;

pub use sealer::SigningKey;

use attestation::Pcr;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Salt};
use aws_sdk_kms::config::Region;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_kms::operation::generate_data_key::GenerateDataKeyError;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use explain::{Class, Code, Explain};
use sha2::{Digest as _, Sha384};
use std::borrow::Cow;
use std::time::Duration;
use wire::sealed::{
    COMMITMENT_INFO, COMMITMENT_LEN, ENCRYPTION_INFO, EnvironmentError, Header, MAX_PLAINTEXT,
    NONCE_LEN, TAG_LEN,
};
use wire::spec::{Caution, Deliver, ImageDefaults, MeasuredConfig, SealerKey, Spec, SpecError};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
const KEY_LEN: usize = 32;

/// Why [`seal`] made no sealed config.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The spec has no key for a config.
    #[error("the spec has no [config]")]
    NoConfig,
    /// The spec is invalid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The config is empty or too long; its length in bytes.
    #[error("a config must be 1 to {MAX_PLAINTEXT} bytes long; this one has {0}")]
    Length(usize),
    /// The config cannot be delivered as environment variables.
    #[error("the spec delivers the config as environment variables: {0}")]
    Environment(#[from] EnvironmentError),
    /// The config cannot be delivered as environment variables, since it is not UTF-8.
    #[error("the spec delivers the config as environment variables, but it is not text")]
    NotText,
    /// The enclave would refuse this version.
    #[error("version {version} is below the spec's minimum, {minimum}: no enclave would open it")]
    BelowMinimum {
        /// The version to seal.
        version: u64,
        /// The spec's `minimum_version`.
        minimum: u64,
    },
    /// The spec has a sealer, and there is no key to sign with.
    #[error("the spec has the sealer '{0}': the config must be signed")]
    Unsigned(SealerKey),
    /// The key is not that of the spec's sealer.
    #[error(
        "the key to sign with has the public key '{key}', but the spec has {}",
        expected.map_or("no sealer".to_owned(), |sealer| format!("the sealer '{sealer}'"))
    )]
    Sealer {
        /// The public part of the key that was given.
        key: SealerKey,
        /// The spec's `sealer`.
        expected: Option<SealerKey>,
    },
    /// What was given is no key to sign with.
    #[error("this is no Ed25519 private key in PEM (PKCS #8)")]
    SigningKey,
    /// KMS answered with an error: its code and message.
    #[error("KMS refused to generate a data key: {0}")]
    KmsRefused(String),
    /// KMS cannot be reached or gave no usable answer, or there are no AWS credentials.
    #[error("cannot get a data key from KMS: {0}")]
    KmsUnreachable(String),
    /// The cryptographic library failed.
    #[error("encryption failed")]
    Crypto,
}

impl Explain for SealError {
    fn code(&self) -> Code {
        match self {
            SealError::NoConfig | SealError::Spec(_) => Code::SpecInvalid,
            SealError::Length(_)
            | SealError::Environment(_)
            | SealError::NotText
            | SealError::BelowMinimum { .. }
            | SealError::Unsigned(_)
            | SealError::Sealer { .. }
            | SealError::SigningKey => Code::RequestInvalid,
            SealError::KmsRefused(_) => Code::KmsRefused,
            SealError::KmsUnreachable(_) => Code::KmsUnreachable,
            SealError::Crypto => Code::Internal,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            SealError::NoConfig => "Add [config] with a kms_key to enclave.toml.",
            SealError::Spec(_) => "Correct enclave.toml.",
            SealError::Length(_) => "Correct the config.",
            SealError::Environment(_) | SealError::NotText => {
                "Write one NAME=value per line, of those that config.variables names; or have the \
                 spec deliver the config as a file (config.deliver)."
            }
            SealError::Unsigned(_) => "Name the sealer's private key with --sign-key.",
            SealError::Sealer { key, expected } => return sealer_hint(*key, *expected).into(),
            SealError::SigningKey => {
                "Make one with 'openssl genpkey -algorithm ed25519 -out sealer.pem'."
            }
            SealError::BelowMinimum { .. } => "Choose a higher --version.",
            SealError::KmsRefused(_) | SealError::KmsUnreachable(_) => {
                "Check the AWS credentials (AWS_ACCESS_KEY_ID, a profile or a role), the key's \
                 policy (kms:GenerateDataKey) and config.endpoint."
            }
            SealError::Crypto => "This is a bug; please report it.",
        }
        .into()
    }

    fn class(&self) -> Class {
        match self {
            SealError::Length(_) | SealError::Environment(_) | SealError::NotText => Class::Data,
            SealError::KmsRefused(_) => Class::Unavailable,
            _ => self.code().class(),
        }
    }
}

fn sealer_hint(key: SealerKey, expected: Option<SealerKey>) -> String {
    match expected {
        Some(_) => "Name the key of the spec's sealer with --sign-key.".to_owned(),
        None => {
            format!("Add sealer = \"{key}\" to [config] in enclave.toml, or leave --sign-key out.")
        }
    }
}

/// A sealed config, and how it looks from outside.
#[derive(Debug)]
pub struct SealedConfig {
    /// The part that is not encrypted: name, version, key, sealer.
    pub header: Header,
    /// What the spec allows that weakens the config's protection.
    pub cautions: Vec<Caution>,
    /// The whole file, header included.
    pub bytes: Vec<u8>,
}

impl SealedConfig {
    /// PCR16 of an enclave that opened it.
    pub fn pcr16(&self) -> Pcr {
        pcr16(&self.bytes)
    }
}

/// PCR16 of an enclave that opened this sealed config: extended once, from zero. `sealed` is the
/// whole file.
///
/// ```
/// use attestation::Pcr;
/// use sha2::{Digest as _, Sha384};
///
/// let sealed = b"the bytes of app.sealed";
/// let expected = Pcr::of_content_hash(Sha384::digest(sealed).into());
/// assert_eq!(eif_builder::seal::pcr16(sealed), expected);
/// ```
pub fn pcr16(sealed: &[u8]) -> Pcr {
    Pcr::of_content_hash(Sha384::digest(sealed).into())
}

/// Seals `plaintext` as the given version, for enclaves of that spec; signed with `signing_key`
/// exactly if the spec names a sealer.
///
/// Makes one request to the KMS that the spec names: 30 seconds at most. AWS credentials come from
/// the usual places (environment, profile, role) and need kms:GenerateDataKey on the key. Must run
/// on a tokio runtime with I/O and time.
///
/// # Errors
/// The spec has no `[config]`, its enclave would refuse this config, or KMS does not provide a data
/// key.
pub async fn seal(
    spec: &Spec,
    version: u64,
    plaintext: &[u8],
    signing_key: Option<&SigningKey>,
) -> Result<SealedConfig, SealError> {
    let (name, config) = subject(spec)?;
    check(&config, version, plaintext)?;
    sealer::check(&config, signing_key)?;
    let mut header = Header {
        name,
        version,
        kms_key: config.kms_key.clone(),
        context: config.context.clone(),
        encrypted_key: Vec::new(),
        nonce: random()?,
        commitment: [0; COMMITMENT_LEN],
        sealer: config.sealer,
    };
    let key;
    (key, header.encrypted_key) = data_key(&config, &header).await?;
    let mut bytes = encrypt(&mut header, &key, plaintext)?;
    if let Some(key) = signing_key {
        bytes = key.sign(bytes);
    }
    Ok(SealedConfig {
        header,
        cautions: config.cautions(),
        bytes,
    })
}

/// Only the spec's own part matters here; what the image adds is known when it is built.
fn subject(spec: &Spec) -> Result<(String, MeasuredConfig), SealError> {
    let spec = spec.resolve(ImageDefaults::any())?;
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
        wire::sealed::environment(text, &config.variables)?;
    }
    let minimum = config.minimum_version;
    if version < minimum {
        return Err(SealError::BelowMinimum { version, minimum });
    }
    Ok(())
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
        .map_err(|e| kms_error(&e))?;
    let plain = answer
        .plaintext
        .map(|blob| Zeroizing::new(blob.into_inner()));
    let key = plain
        .and_then(|plain| <[u8; KEY_LEN]>::try_from(plain.as_slice()).ok())
        .map(Zeroizing::new);
    match (key, answer.ciphertext_blob) {
        (Some(key), Some(encrypted)) => Ok((key, encrypted.into_inner())),
        _ => Err(SealError::KmsUnreachable(
            "its answer has no key of 32 bytes".to_owned(),
        )),
    }
}

/// KMS's own code and message, or the error chain; never the request, which DisplayErrorContext
/// would show.
fn kms_error(error: &SdkError<GenerateDataKeyError>) -> SealError {
    match error.as_service_error() {
        Some(service) => SealError::KmsRefused(format!(
            "{}: {}",
            service.code().unwrap_or("an error without a code"),
            service.message().unwrap_or("no message")
        )),
        None => SealError::KmsUnreachable(explain::chain(error)),
    }
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
        .map_err(|e| SealError::KmsUnreachable(format!("config.ca: {e}")))?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    let shared = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .timeout_config(timeouts)
        .load()
        .await;
    // The spec's CA is for KMS alone: credentials may come from elsewhere.
    let settings = aws_sdk_kms::config::Builder::from(&shared)
        .http_client(http)
        .endpoint_url(format!("https://{}", config.endpoint));
    Ok(aws_sdk_kms::Client::from_conf(settings.build()))
}

/// The file without a signature; writes into the header which data key it is for.
fn encrypt(
    header: &mut Header,
    data_key: &[u8; KEY_LEN],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    header.commitment = *derive(data_key, COMMITMENT_INFO)?;
    let authenticated = header.encode();
    let key = derive(data_key, ENCRYPTION_INFO)?;
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SealError::Crypto)?;
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

/// A key of its own for each use of the data key ([`wire::sealed`], "Key commitment").
fn derive(data_key: &[u8; KEY_LEN], info: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, SealError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let extracted = Salt::new(HKDF_SHA512, &[]).extract(data_key);
    let filled = extracted
        .expand(&[info], KeyLen)
        .and_then(|expanded| expanded.fill(key.as_mut_slice()));
    filled.map_err(|_| SealError::Crypto)?;
    Ok(key)
}

struct KeyLen;

impl KeyType for KeyLen {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::sealed::Sealed;

    /// What Python's `cryptography` made of the same keys and texts (wire/golden/sealed.py).
    #[test]
    fn seals_and_signs_what_other_libraries_do() {
        let key: [u8; KEY_LEN] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let golden: [&[u8]; 2] = [
            include_bytes!("../../wire/golden/config-2.sealed"),
            include_bytes!("../../wire/golden/config-2-signed.sealed"),
        ];
        let signer = sealer::tests::signing_key();
        for (golden, signer) in golden.into_iter().zip([None, Some(signer)]) {
            let mut header = Sealed::parse(golden).unwrap().header;
            header.commitment = [0; COMMITMENT_LEN];
            let mut bytes = encrypt(&mut header, &key, b"TOKEN=x").unwrap();
            if let Some(signer) = signer {
                bytes = signer.sign(bytes);
            }
            assert_eq!(bytes, golden);
        }
    }

    fn spec(more: &str) -> Spec {
        let variables = if more.contains("deliver") {
            "[]"
        } else {
            "['A']"
        };
        let more = format!("variables = {variables}\n{more}");
        let text = format!(
            "name = \"orders\"\n[network]\negress = [\"kms.us-east-1.amazonaws.com:443\"]\n\
             [config]\nkms_key = \"arn:aws:kms:us-east-1:111122223333:key/k\"\n{more}"
        );
        Spec::parse(&text).unwrap()
    }

    fn refused(more: &str, version: u64, plaintext: &[u8]) -> SealError {
        let (_, config) = subject(&spec(more)).unwrap();
        check(&config, version, plaintext).unwrap_err()
    }

    #[test]
    fn refuses_what_the_enclave_would_refuse() {
        let no_variable = refused("", 1, b"no variable");
        assert!(
            no_variable
                .to_string()
                .contains("line 1 of the config has no =")
        );
        assert!(matches!(no_variable, SealError::Environment(_)));
        let foreign = refused("", 1, b"A=1\nLD_PRELOAD=x").to_string();
        assert!(foreign.contains("line 2 of the config sets a variable"));
        assert!(matches!(refused("", 1, &[0xff]), SealError::NotText));
        assert!(refused("", 1, &[]).to_string().contains("1 to 49152 bytes"));
        let long = vec![b'#'; MAX_PLAINTEXT + 1];
        assert!(matches!(refused("", 1, &long), SealError::Length(49153)));
        assert!(matches!(
            refused("minimum_version = 3", 2, b"A=1"),
            SealError::BelowMinimum {
                version: 2,
                minimum: 3
            }
        ));
        let (name, config) = subject(&spec("deliver = \"/run/config/app\"")).unwrap();
        assert_eq!(name, "orders");
        assert!(check(&config, 0, &[0xff]).is_ok());
        assert!(matches!(
            subject(&Spec::default()),
            Err(SealError::NoConfig)
        ));
    }

    #[test]
    fn errors_have_their_exit_codes() {
        use explain::Exit;
        for (error, exit) in [
            (SealError::NoConfig, Exit::Config),
            (SealError::Spec(SpecError::NoCommand), Exit::Config),
            (SealError::Length(0), Exit::Data),
            (refused("", 1, b"no variable"), Exit::Data),
            (SealError::NotText, Exit::Data),
            (refused("minimum_version = 3", 2, b"A=1"), Exit::Usage),
            (SealError::Unsigned(SealerKey([1; 32])), Exit::Usage),
            (SealError::SigningKey, Exit::Usage),
            (SealError::KmsRefused(String::new()), Exit::Unavailable),
            (SealError::KmsUnreachable(String::new()), Exit::Unavailable),
            (SealError::Crypto, Exit::Bug),
        ] {
            assert_eq!(error.class().exit(), exit, "{error}");
            assert!(error.next_step().ends_with('.'), "{error}");
        }
    }
}
