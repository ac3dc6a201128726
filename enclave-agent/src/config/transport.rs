//! How a request reaches KMS: one connection through the host's egress, TLS inside the enclave,
//! HTTP/1.1. The host sees ciphertext; which server it led to is proved by the certificate.

use crate::egress::{self, ConnectError};
use crate::error::BootError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use std::io;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::control::AbortReason;
use wire::relay::RefuseReason;
use wire::spec::{Destination, MeasuredConfig};

/// The longest answer, in bytes; KMS's have some thousand.
const MAX_ANSWER: usize = 256 * 1024;

/// One connection a request: there is one request.
#[derive(Clone)]
pub(super) struct Transport {
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
        HttpConnectorFuture::new(async move { Ok(transport.exchange(request).await?) })
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("the host refused the connection: {0}")]
    Refused(RefuseReason),
    #[error(transparent)]
    ServerName(#[from] InvalidDnsNameError),
    /// The server could not prove its name.
    #[error(transparent)]
    Tls(io::Error),
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// A message that does not convert, or an answer that is too long.
    #[error(transparent)]
    Message(Box<dyn std::error::Error + Send + Sync>),
}

impl TransportError {
    pub(super) fn reason(&self) -> AbortReason {
        match self {
            TransportError::Refused(_) => AbortReason::EgressRefused,
            TransportError::ServerName(_) | TransportError::Tls(_) => AbortReason::KmsTls,
            TransportError::Io(_) | TransportError::Http(_) | TransportError::Message(_) => {
                AbortReason::KmsUnreachable
            }
        }
    }
}

impl From<TransportError> for ConnectorError {
    fn from(error: TransportError) -> ConnectorError {
        match error.reason() {
            AbortReason::KmsUnreachable => ConnectorError::io(error.into()),
            // The next attempt would end in the same way.
            _ => ConnectorError::user(error.into()),
        }
    }
}

impl Transport {
    /// # Errors
    /// [`AbortReason::Spec`] if the spec's CA certificate cannot be used.
    pub(super) fn new(config: &MeasuredConfig) -> Result<Transport, BootError> {
        Ok(Transport {
            endpoint: config.endpoint.clone(),
            tls: TlsConnector::from(Arc::new(tls(config)?)),
        })
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = request
            .try_into_http1x()
            .map_err(|e| TransportError::Message(e.into()))?;
        let response = sender.send_request(origin_form(request)).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(TransportError::Message)?
            .to_bytes();
        connection.abort();
        let response = hyper::Response::from_parts(parts, SdkBody::from(body));
        HttpResponse::try_from(response).map_err(|e| TransportError::Message(e.into()))
    }

    async fn connect(&self) -> Result<TlsStream<DuplexStream>, TransportError> {
        let stream = egress::connect(&self.endpoint)
            .await
            .map_err(|error| match error {
                ConnectError::Refused(why) => TransportError::Refused(why),
                ConnectError::Io(error) => TransportError::Io(error),
            })?;
        let name = ServerName::try_from(self.endpoint.host.clone())?;
        let tls = self.tls.connect(name, stream).await;
        tls.map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => TransportError::Tls(error),
            _ => TransportError::Io(error),
        })
    }
}

/// The SDK names the whole URL; a server is sent its path (RFC 9112, 3.2.1) and a Host.
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

/// The trusted CAs are compiled in or in the spec: measured either way.
fn tls(config: &MeasuredConfig) -> Result<rustls::ClientConfig, BootError> {
    fn unusable<E: std::fmt::Display>(error: E) -> BootError {
        BootError::of(AbortReason::Spec, "config.ca")(error)
    }
    let mut roots = RootCertStore::empty();
    match &config.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots
                    .add(certificate.map_err(unusable)?)
                    .map_err(unusable)?;
            }
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .map_err(unusable)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
