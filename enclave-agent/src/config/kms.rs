//! One call to KMS: Decrypt with a Recipient. TLS ends here, inside the enclave; the host carries ciphertext on the egress port.
//! aws-sdk-kms signs, retries and watches the time; how its requests travel is ours.

use crate::egress::{self, ConnectError};
use crate::failure::Fatal;
use aws_credential_types::Credentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_kms::operation::decrypt::{DecryptError, DecryptOutput};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyEncryptionMechanism, RecipientInfo};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;
use wire::control::{AwsCredentials, AbortReason};
use wire::sealed::Header;
use wire::spec::{Destination, MeasuredConfig};

const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Retries included. The host waits a minute for the workload to start.
const TIMEOUT: Duration = Duration::from_secs(35);
/// KMS's answers have some thousand bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// `CiphertextForRecipient` for the data key of a sealed config.
pub(super) async fn decrypt(
    config: &MeasuredConfig,
    header: &Header,
    document: Vec<u8>,
    credentials: AwsCredentials,
    parent: u32,
) -> Result<Vec<u8>, Fatal> {
    let client = client(config, credentials, parent)?;
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
    let DecryptOutput {
        plaintext,
        ciphertext_for_recipient,
        ..
    } = answer;
    match (plaintext, ciphertext_for_recipient) {
        (None, Some(ciphertext)) => Ok(ciphertext.into_inner()),
        (Some(_), _) => Err(Fatal::new(
            AbortReason::KmsAnswer,
            "KMS answered with the plaintext, which the host could have read: it did not look at the attestation document",
        )),
        (None, None) => Err(Fatal::new(
            AbortReason::KmsAnswer,
            "KMS answered with nothing for this enclave",
        )),
    }
}

fn client(
    config: &MeasuredConfig,
    credentials: AwsCredentials,
    parent: u32,
) -> Result<Client, Fatal> {
    let AwsCredentials {
        access_key_id,
        secret_access_key,
        session_token,
    } = credentials;
    let credentials = Credentials::new(
        access_key_id,
        secret_access_key,
        session_token,
        None,
        "host",
    );
    let transport = SharedHttpConnector::new(Transport {
        parent,
        endpoint: config.endpoint.clone(),
        tls: TlsConnector::from(Arc::new(tls(config)?)),
    });
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(TIMEOUT)
        .build();
    let settings = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .endpoint_url(format!("https://{}", config.endpoint))
        .credentials_provider(credentials)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .http_client(http_client_fn(move |_settings, _components| {
            transport.clone()
        }))
        .build();
    Ok(Client::from_conf(settings))
}

/// The authorities are compiled in or in the spec: measured either way.
fn tls(config: &MeasuredConfig) -> Result<rustls::ClientConfig, Fatal> {
    let unusable = |problem: &dyn std::fmt::Display| {
        Fatal::new(AbortReason::Spec, format!("config.ca: {problem}"))
    };
    let mut roots = RootCertStore::empty();
    match &config.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots
                    .add(certificate.map_err(|e| unusable(&e))?)
                    .map_err(|e| unusable(&e))?;
            }
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .map_err(|e| unusable(&e))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// One connection a request: there is one request.
#[derive(Clone)]
struct Transport {
    parent: u32,
    endpoint: Destination,
    tls: TlsConnector,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.endpoint)
    }
}

impl HttpConnector for Transport {
    /// The attempt's timeout is around this; it needs none of its own.
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let transport = self.clone();
        HttpConnectorFuture::new(async move {
            transport
                .exchange(request)
                .await
                .map_err(|problem| match &problem {
                    // Nobody changes his mind about these.
                    Unreachable::Refused(_) | Unreachable::Tls(_) => {
                        ConnectorError::user(problem.into())
                    }
                    Unreachable::Broken(_) => ConnectorError::io(problem.into()),
                })
        })
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
enum Unreachable {
    #[error("the host refused the connection: {0}")]
    Refused(wire::relay::Refusal),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Broken(String),
}

impl Transport {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, Unreachable> {
        let broken = |error: &dyn std::fmt::Display| Unreachable::Broken(error.to_string());
        let stream =
            egress::connect(self.parent, &self.endpoint)
                .await
                .map_err(|error| match error {
                    ConnectError::Refused(why) => Unreachable::Refused(why),
                    ConnectError::Io(error) => broken(&error),
                })?;
        let name = ServerName::try_from(self.endpoint.host.clone())
            .map_err(|e| Unreachable::Tls(e.to_string()))?;
        let tls = self
            .tls
            .connect(name, stream)
            .await
            .map_err(|error| match error.get_ref() {
                Some(inner) if inner.is::<rustls::Error>() => Unreachable::Tls(error.to_string()),
                _ => broken(&error),
            })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|e| broken(&e))?;
        let connection = tokio::spawn(connection);
        let request = request.try_into_http1x().map_err(|e| broken(&e))?;
        let response = sender
            .send_request(origin_form(request))
            .await
            .map_err(|e| broken(&e))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|e| broken(&e))?
            .to_bytes();
        connection.abort();
        let response = hyper::Response::from_parts(parts, SdkBody::from(body));
        HttpResponse::try_from(response).map_err(|e| broken(&e))
    }
}

/// The SDK names the whole address; a server is sent its path (RFC 9112, 3.2.1) and a Host.
fn origin_form(mut request: hyper::Request<SdkBody>) -> hyper::Request<SdkBody> {
    use hyper::header::{HOST, HeaderValue};
    let host = request
        .uri()
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let (Some(host), false) = (host, request.headers().contains_key(HOST)) {
        request.headers_mut().insert(HOST, host);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", hyper::http::uri::PathAndQuery::as_str);
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    request
}

fn explain(error: &SdkError<DecryptError>) -> Fatal {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(unreachable) = cause.downcast_ref::<Unreachable>() {
            let failure = match unreachable {
                Unreachable::Refused(_) => AbortReason::EgressRefused,
                Unreachable::Tls(_) => AbortReason::KmsTls,
                Unreachable::Broken(_) => AbortReason::KmsUnreachable,
            };
            return Fatal::new(failure, format!("KMS could not be asked: {unreachable}"));
        }
        source = cause.source();
    }
    let Some(service) = error.as_service_error() else {
        // The row of causes, and not DisplayErrorContext, which would show the answer's body.
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
            error.source()
        });
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        return Fatal::new(
            AbortReason::KmsUnreachable,
            format!("KMS could not be asked: {}", causes.join(": ")),
        );
    };
    let code = service.code().unwrap_or("an error without a code");
    let said = format!(
        "KMS answered {code}: {}",
        service.message().unwrap_or("nothing more")
    );
    let failure = match code {
        "InvalidCiphertextException" | "IncorrectKeyException" => AbortReason::ConfigDamaged,
        "ThrottlingException" | "KMSInternalException" | "DependencyTimeoutException" => {
            AbortReason::KmsUnreachable
        }
        _ => AbortReason::KmsRefused,
    };
    Fatal::new(failure, said)
}
