//! Asks an enclave's endpoint for a document. What comes back is not trusted, whatever the connection.

use super::Failure;
use attestation::document::MAX_LEN;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Uri;
use hyper::header::ACCEPT;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
/// EAT wants 8 to 64 (RFC 9711, 4.1).
const NONCE_LEN: usize = 32;
const HINT: &str = "check the address (http:// or https://?), and whether the enclave is deployed";

pub(super) fn nonce() -> Result<Vec<u8>, Failure> {
    let mut nonce = vec![0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| {
        Failure::new(
            "no random numbers",
            "check this machine's random number generator",
        )
    })?;
    Ok(nonce)
}

pub(super) fn document(url: &str, nonce: &[u8]) -> Result<Vec<u8>, Failure> {
    let uri = address(url, nonce)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(e, "try again"))?;
    let answer = runtime.block_on(async { tokio::time::timeout(TIMEOUT, get(uri)).await });
    // Looking up a name happens on a thread that cannot be stopped: it is not waited for.
    runtime.shutdown_background();
    let bytes = match answer {
        Ok(result) => result.map_err(|problem| Failure::new(format!("{url}: {problem}"), HINT))?,
        Err(_) => {
            return Err(Failure::new(
                format!("{url}: no answer within {} s", TIMEOUT.as_secs()),
                HINT,
            ));
        }
    };
    Ok(super::document::decode(bytes))
}

fn address(url: &str, nonce: &[u8]) -> Result<Uri, Failure> {
    const WRONG: &str = "give an address like https://orders.example.com/attestation";
    let uri: Uri = url
        .parse()
        .map_err(|e| Failure::new(format!("{url}: {e}"), WRONG))?;
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Failure::new(
            format!("{url} is not an http or https address"),
            WRONG,
        ));
    };
    let path = match uri.path() {
        "/" | "" => "/attestation",
        path => path,
    };
    let others = uri
        .query()
        .map(|query| format!("{query}&"))
        .unwrap_or_default();
    let path_and_query = format!("{path}?{others}nonce={}", hex::encode(nonce));
    Uri::builder()
        .scheme(uri.scheme_str().unwrap_or("https"))
        .authority(authority.as_str())
        .path_and_query(path_and_query)
        .build()
        .map_err(|e| Failure::new(format!("{url}: {e}"), WRONG))
}

async fn get(uri: Uri) -> Result<Vec<u8>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // The system may trust what rustls cannot read; one certificate fewer is not this program's problem.
        let _ = roots.add(certificate);
    }
    let tls = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .map_err(|e| e.to_string())?
    .with_root_certificates(roots)
    .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = hyper::Request::get(uri)
        .header(ACCEPT, "application/cbor")
        .body(Empty::new())
        .map_err(|e| e.to_string())?;
    let response = client.request(request).await.map_err(|e| causes(&e))?;
    let status = response.status();
    // Twice the length: some endpoints answer in digits.
    let body = Limited::new(response.into_body(), 2 * MAX_LEN)
        .collect()
        .await
        .map_err(|e| e.to_string())?;
    match status.is_success() {
        true => Ok(body.to_bytes().to_vec()),
        false => Err(format!("the answer is {status}")),
    }
}

/// hyper's own message names the step alone.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_goes_into_the_query() {
        let uri = |url| {
            address(url, &[0xab; 2])
                .map(|uri| uri.to_string())
                .map_err(|failure| failure.message)
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
            "ftp://h/x is not an http or https address"
        );
        assert!(uri("h").is_err() && uri("not a url").is_err());
    }
}
