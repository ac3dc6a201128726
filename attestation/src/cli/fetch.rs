//! Fetches a document from an enclave's endpoint. The response is not trusted, whatever the
//! connection.

use super::document::decode;
use super::error::{CommandError, error_chain};
use attestation::document::MAX_LEN;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
/// EAT asks for 8 to 64 bytes (RFC 9711, 4.1).
const NONCE_LEN: usize = 32;
const HINT: &str = "check the URL (http:// or https://?), and whether the enclave is deployed";

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no response within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error(transparent)]
    Send(#[from] legacy::Error),
    #[error("the response cannot be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the endpoint returned {0}")]
    Status(StatusCode),
}

pub(super) fn nonce() -> Result<Vec<u8>, CommandError> {
    let mut nonce = vec![0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| {
        CommandError::new(
            "no random numbers",
            "check this machine's random number generator",
        )
    })?;
    Ok(nonce)
}

pub(super) fn document(url: &str, nonce: &[u8]) -> Result<Vec<u8>, CommandError> {
    let uri = request_uri(url, nonce)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::new(e, "try again"))?;
    let response = runtime.block_on(async { tokio::time::timeout(TIMEOUT, get(uri)).await });
    // A DNS look-up runs on a thread that cannot be stopped: do not wait for it.
    runtime.shutdown_background();
    response
        .unwrap_or(Err(FetchError::Timeout))
        .map(decode)
        .map_err(|e| CommandError::new(format!("{url}: {}", error_chain(&e)), HINT))
}

fn request_uri(url: &str, nonce: &[u8]) -> Result<Uri, CommandError> {
    const EXAMPLE: &str = "give a URL like https://orders.example.com/attestation";
    let uri: Uri = url
        .parse()
        .map_err(|e| CommandError::new(format!("{url}: {e}"), EXAMPLE))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority())
    else {
        return Err(CommandError::new(
            format!("{url} is not an http or https URL"),
            EXAMPLE,
        ));
    };
    let path = match uri.path() {
        "/" | "" => "/attestation",
        path => path,
    };
    let query = uri
        .query()
        .map(|query| format!("{query}&"))
        .unwrap_or_default();
    Uri::builder()
        .scheme(scheme)
        .authority(authority.as_str())
        .path_and_query(format!("{path}?{query}nonce={}", hex::encode(nonce)))
        .build()
        .map_err(|e| CommandError::new(format!("{url}: {e}"), EXAMPLE))
}

async fn get(uri: Uri) -> Result<Vec<u8>, FetchError> {
    let client: legacy::Client<_, Empty<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build(connector()?);
    let request = Request::get(uri)
        .header(ACCEPT, "application/cbor")
        .body(Empty::new())?;
    let response = client.request(request).await?;
    let status = response.status();
    // Twice the limit: some endpoints respond in hexadecimal.
    let body = Limited::new(response.into_body(), 2 * MAX_LEN)
        .collect()
        .await
        .map_err(FetchError::Body)?;
    if status.is_success() {
        Ok(body.to_bytes().to_vec())
    } else {
        Err(FetchError::Status(status))
    }
}

fn connector() -> Result<HttpsConnector<HttpConnector>, FetchError> {
    let mut roots = rustls::RootCertStore::empty();
    // Certificates that rustls cannot parse are ignored, as other programs do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(FetchError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_goes_into_the_query() {
        let uri = |url| {
            request_uri(url, &[0xab; 2])
                .map(|uri| uri.to_string())
                .map_err(|error| error.message)
        };
        assert_eq!(
            uri("http://h:1").unwrap(),
            "http://h:1/attestation?nonce=abab"
        );
        assert_eq!(
            uri("https://h/x/attest").unwrap(),
            "https://h/x/attest?nonce=abab"
        );
        assert_eq!(
            uri("https://h/x?a=b").unwrap(),
            "https://h/x?a=b&nonce=abab"
        );
        assert_eq!(
            uri("ftp://h/x").unwrap_err(),
            "ftp://h/x is not an http or https URL"
        );
        assert!(uri("h").is_err() && uri("not a url").is_err());
    }
}
