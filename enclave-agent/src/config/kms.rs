//! One call to KMS: Decrypt with a Recipient. TLS ends here, inside the enclave; the host carries
//! ciphertext on the egress port. aws-sdk-kms writes, retries and watches the time; how its requests
//! are signed and travel is ours ([`Transport`]).

use super::signer::Signer;
use super::transport::{Transport, TransportError};
use crate::error::BootError;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_kms::operation::decrypt::{DecryptError, DecryptOutput};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyEncryptionMechanism, RecipientInfo};
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use std::time::Duration;
use wire::control::AbortReason;
use wire::kms::MAX_SIGNATURES;
use wire::sealed::Header;
use wire::spec::MeasuredConfig;

/// Each is signed.
const ATTEMPTS: u32 = MAX_SIGNATURES;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Retries included. The host waits 90 seconds for the workload to start (host-proxy, deploy).
const TIMEOUT: Duration = Duration::from_secs(35);

/// `CiphertextForRecipient` for the data key of a sealed config.
pub(super) async fn decrypt(
    config: &MeasuredConfig,
    header: &Header,
    document: Vec<u8>,
    signer: Signer,
) -> Result<Vec<u8>, BootError> {
    let client = client(config, signer)?;
    let recipient = RecipientInfo::builder()
        .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
        .attestation_document(Blob::new(document))
        .build();
    let answer = client
        .decrypt()
        .key_id(&config.kms_key)
        .ciphertext_blob(Blob::new(header.encrypted_key.clone()))
        .set_encryption_context(Some(header.encryption_context().into_iter().collect()))
        .recipient(recipient)
        .send()
        .await
        .map_err(|error| explain(&error))?;
    let unusable = |detail| BootError::new(AbortReason::KmsAnswer, detail);
    let DecryptOutput {
        plaintext,
        ciphertext_for_recipient,
        ..
    } = answer;
    match (plaintext, ciphertext_for_recipient) {
        (None, Some(ciphertext)) => Ok(ciphertext.into_inner()),
        (Some(_), _) => Err(unusable(
            "KMS answered with the plaintext, which the host could have read: \
             it did not look at the attestation document",
        )),
        (None, None) => Err(unusable("KMS answered with nothing for this enclave")),
    }
}

/// Without credentials: what the SDK hands to the transport is not signed.
fn client(config: &MeasuredConfig, signer: Signer) -> Result<Client, BootError> {
    let transport = SharedHttpConnector::new(Transport::new(config, signer)?);
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(TIMEOUT)
        .build();
    let settings = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .endpoint_url(format!("https://{}", config.endpoint))
        .allow_no_auth()
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .http_client(http_client_fn(move |_settings, _components| {
            transport.clone()
        }))
        .build();
    Ok(Client::from_conf(settings))
}

fn explain(error: &SdkError<DecryptError>) -> BootError {
    let chain = || {
        std::iter::successors(Some(error as &dyn std::error::Error), |error| {
            error.source()
        })
    };
    if let Some(error) = chain().find_map(|cause| cause.downcast_ref::<TransportError>()) {
        return BootError::new(error.reason(), format!("KMS could not be asked: {error}"));
    }
    let Some(service) = error.as_service_error() else {
        // The error chain, and not DisplayErrorContext, which would show the answer's body.
        let chain: Vec<String> = chain().map(ToString::to_string).collect();
        return BootError::new(
            AbortReason::KmsUnreachable,
            format!("KMS could not be asked: {}", chain.join(": ")),
        );
    };
    let code = service.code().unwrap_or("an error without a code");
    let message = service.message().unwrap_or("no message");
    let reason = match code {
        "InvalidCiphertextException" | "IncorrectKeyException" => AbortReason::ConfigDamaged,
        "ThrottlingException" | "KMSInternalException" | "DependencyTimeoutException" => {
            AbortReason::KmsUnreachable
        }
        _ => AbortReason::KmsRefused,
    };
    BootError::new(reason, format!("KMS answered {code}: {message}"))
}
