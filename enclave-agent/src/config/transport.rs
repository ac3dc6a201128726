//! How a request reaches KMS: one connection through the host's egress, TLS inside the enclave,
//! HTTP/1.1. The host sees ciphertext; which server it led to is proved by the certificate.
//!
//! The SDK's request is not signed. The host signs it, and is asked only once the server has proved
//! to be KMS. Beside the body nothing of the SDK's request is sent: the headers are those that the
//! host signs, as both sides know them.

use super::signer::Signer;
use crate::egress::{self, ConnectError};
use crate::error::BootError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HeaderValue, InvalidHeaderValue};
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
use wire::kms::{self, SignRefusal, SignedHeaders};
use wire::relay::RefuseReason;
use wire::spec::{Destination, MeasuredConfig};

/// The longest answer, in bytes; KMS's have some thousand.
const MAX_ANSWER: usize = 256 * 1024;

/// One connection a request: there is one request.
#[derive(Clone)]
pub(super) struct Transport {
    endpoint: Destination,
    tls: TlsConnector,
    signer: Signer,
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
    #[error("the host did not sign: {0}")]
    Unsigned(SignRefusal),
    /// The host was asked to sign, and gave no answer.
    #[error("the host did not sign: {0}")]
    Control(io::Error),
    /// The SDK made another request than the one that the host signs.
    #[error("the request is not KMS's Decrypt")]
    Foreign,
    #[error(transparent)]
    Header(#[from] InvalidHeaderValue),
    #[error(transparent)]
    ServerName(#[from] InvalidDnsNameError),
    /// The server could not prove its name.
    #[error(transparent)]
    Tls(io::Error),
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// An answer that does not convert, or that is too long.
    #[error(transparent)]
    Message(Box<dyn std::error::Error + Send + Sync>),
}

impl TransportError {
    pub(super) fn reason(&self) -> AbortReason {
        match self {
            TransportError::Refused(_) => AbortReason::EgressRefused,
            TransportError::Unsigned(SignRefusal::Unavailable)
            | TransportError::Control(_)
            | TransportError::Header(_) => AbortReason::SignatureUnavailable,
            TransportError::Unsigned(_) | TransportError::Foreign => AbortReason::SignatureRefused,
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
    pub(super) fn new(config: &MeasuredConfig, signer: Signer) -> Result<Transport, BootError> {
        Ok(Transport {
            endpoint: config.endpoint.clone(),
            tls: TlsConnector::from(Arc::new(tls(config)?)),
            signer,
        })
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let body = body_to_sign(&request)?;
        let stream = self.connect().await?;
        let signed = self.signer.sign(body.to_vec()).await;
        let headers = signed
            .map_err(TransportError::Control)?
            .map_err(TransportError::Unsigned)?;
        let request = signed_request(&self.endpoint, headers, body)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
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

/// The body, if all else is as the host will sign it.
fn body_to_sign(request: &HttpRequest) -> Result<Bytes, TransportError> {
    let headers = request.headers();
    let is_decrypt = request.method() == "POST"
        && headers.get("content-type") == Some(kms::CONTENT_TYPE)
        && headers.get("x-amz-target") == Some(kms::TARGET)
        && request
            .uri()
            .parse::<hyper::Uri>()
            .is_ok_and(|uri| uri.path() == "/" && uri.query().is_none());
    match request.body().bytes() {
        Some(body) if is_decrypt => Ok(Bytes::copy_from_slice(body)),
        _ => Err(TransportError::Foreign),
    }
}

/// The request as it is sent (RFC 9112, 3.2.1: a server is sent the path, and `host`).
fn signed_request(
    endpoint: &Destination,
    signed: SignedHeaders,
    body: Bytes,
) -> Result<hyper::Request<Full<Bytes>>, TransportError> {
    let SignedHeaders {
        date,
        authorization,
        security_token,
    } = signed;
    let mut request = hyper::Request::new(Full::new(body));
    *request.method_mut() = hyper::Method::POST;
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::try_from(kms::host(endpoint))?);
    headers.insert("content-type", HeaderValue::from_static(kms::CONTENT_TYPE));
    headers.insert("x-amz-target", HeaderValue::from_static(kms::TARGET));
    headers.insert("x-amz-date", HeaderValue::try_from(date)?);
    headers.insert("authorization", HeaderValue::try_from(authorization)?);
    if let Some(token) = security_token {
        headers.insert("x-amz-security-token", HeaderValue::try_from(token)?);
    }
    Ok(request)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As the SDK hands it over, with one header set to something else.
    fn request(uri: &str, header: (&'static str, &'static str)) -> HttpRequest {
        let mut request = HttpRequest::new(SdkBody::from("{}"));
        request.set_method("POST").unwrap();
        request.set_uri(uri).unwrap();
        let headers = request.headers_mut();
        headers.insert("content-type", kms::CONTENT_TYPE);
        headers.insert("x-amz-target", kms::TARGET);
        headers.insert("x-amz-user-agent", "aws-sdk-rust");
        headers.insert(header.0, header.1);
        request
    }

    #[test]
    fn only_the_request_that_the_host_signs_is_made() {
        let kms = "https://kms.eu-west-1.amazonaws.com:443/";
        let none = ("amz-sdk-request", "attempt=1");
        let body = body_to_sign(&request(kms, none)).unwrap();
        assert_eq!(body, "{}".as_bytes());
        for (uri, header) in [
            (kms, ("x-amz-target", "TrentService.Encrypt")),
            (kms, ("content-type", "application/json")),
            ("https://kms.eu-west-1.amazonaws.com:443/keys", none),
            ("https://kms.eu-west-1.amazonaws.com:443/?Action=x", none),
        ] {
            let refused = body_to_sign(&request(uri, header));
            assert!(
                matches!(refused, Err(TransportError::Foreign)),
                "{uri} {header:?}"
            );
        }
    }

    #[test]
    fn nothing_is_sent_but_what_is_signed() {
        let endpoint = Destination::parse("kms.eu-west-1.amazonaws.com:443").unwrap();
        let signed = |date: &str| SignedHeaders {
            date: date.to_owned(),
            authorization: "A".to_owned(),
            security_token: Some("T".to_owned()),
        };
        let request = signed_request(&endpoint, signed("D"), Bytes::from("{}")).unwrap();
        let sent: Vec<(&str, &[u8])> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(
            sent,
            [
                ("host", b"kms.eu-west-1.amazonaws.com".as_slice()),
                ("content-type", kms::CONTENT_TYPE.as_bytes()),
                ("x-amz-target", kms::TARGET.as_bytes()),
                ("x-amz-date", b"D"),
                ("authorization", b"A"),
                ("x-amz-security-token", b"T"),
            ]
        );
        assert_eq!(
            (request.method().as_str(), request.uri().path()),
            ("POST", "/")
        );
        let two_lines = signed_request(&endpoint, signed("D\r\nx: y"), Bytes::new());
        assert!(matches!(two_lines, Err(TransportError::Header(_))));
    }
}
