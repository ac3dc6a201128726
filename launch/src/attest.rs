//! Fetches attestation documents from an enclave (port 9004), and decides whether one is that of
//! the enclave that was launched.

use crate::evidence::{Evidence, EvidenceError, Expected};
use crate::vsock::Vsock;
use attestation::{Measurements, Pcr, Time};
use bytes::Bytes;
use explain::{Code, Explain};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use std::borrow::Cow;
use std::io;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);
const NONCE_LEN: usize = 32;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The vsock connection cannot be made.
    #[error("the enclave does not answer: {0}")]
    Connect(#[from] io::Error),
    /// HTTP fails on it.
    #[error("the enclave does not answer: {0}")]
    Http(#[from] hyper::Error),
    /// The document is too long, or was cut off.
    #[error("the enclave's answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came in time.
    #[error("the enclave does not answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    /// The agent refused.
    #[error("the enclave answered {0}")]
    Status(u16),
}

impl Explain for FetchError {
    fn code(&self) -> Code {
        Code::AttestationFailed
    }

    fn next_step(&self) -> Cow<'_, str> {
        "Check its state with 'enclavectl show NAME', and try again.".into()
    }

    fn is_retryable(&self) -> bool {
        true
    }
}

/// A document, of which nothing was checked but its length. Takes 10 seconds at most; cancelling is
/// safe.
///
/// # Errors
/// The enclave does not answer, or not with a document.
pub async fn fetch(vsock: &Vsock, nonce: Option<&[u8]>) -> Result<Vec<u8>, FetchError> {
    let query = nonce
        .map(|nonce| format!("?nonce={}", hex::encode(nonce)))
        .unwrap_or_default();
    timeout(TIMEOUT, exchange(vsock, &query))
        .await
        .map_err(|_| FetchError::Timeout)?
}

async fn exchange(vsock: &Vsock, query: &str) -> Result<Vec<u8>, FetchError> {
    let stream = vsock.connect(wire::ATTESTATION_PORT).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("/attestation{query}"))
        .header(hyper::header::HOST, "enclave")
        .body(Empty::<Bytes>::new())
        .map_err(|e| FetchError::Body(e.into()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), attestation::document::MAX_LEN)
        .collect()
        .await;
    connection.abort();
    if !status.is_success() {
        return Err(FetchError::Status(status.as_u16()));
    }
    Ok(body.map_err(FetchError::Body)?.to_bytes().to_vec())
}

/// Why a launched enclave is not DEPLOYED.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It gave no document.
    #[error("no usable attestation document: {0}")]
    Fetch(#[from] FetchError),
    /// It gave one that is not what was asked for.
    #[error("no usable attestation document: {0}")]
    Document(EvidenceError),
    /// It is another enclave than the one that was built.
    #[error(transparent)]
    Other(EvidenceError),
    /// The system has no randomness for a nonce.
    #[error("the system provides no randomness")]
    Random,
}

impl Explain for VerifyError {
    fn code(&self) -> Code {
        match self {
            VerifyError::Fetch(_) | VerifyError::Document(_) => Code::AttestationFailed,
            VerifyError::Other(error) => error.code(),
            VerifyError::Random => Code::Internal,
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, VerifyError::Fetch(_))
    }
}

impl From<EvidenceError> for VerifyError {
    fn from(error: EvidenceError) -> VerifyError {
        match error.code() {
            Code::MeasurementMismatch => VerifyError::Other(error),
            _ => VerifyError::Document(error),
        }
    }
}

/// What decides on DEPLOYED: a document that was made just now, by the enclave that was just
/// launched, over what was built. `sealed_config` is what PCR16 must be if a sealed config was
/// brought. `debug` is how it was launched.
///
/// # Errors
/// The enclave gives no document, or one that is not fresh or not of what was built.
pub async fn verify_launched(
    vsock: &Vsock,
    evidence: &Evidence,
    measurements: &Measurements,
    sealed_config: Option<Pcr>,
    debug: bool,
) -> Result<(), VerifyError> {
    let mut nonce = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| VerifyError::Random)?;
    let document = match fetch(vsock, Some(&nonce)).await {
        Ok(document) => document,
        Err(error @ FetchError::Status(_)) => return Err(error.into()),
        // A workload that was just started may keep a small machine busy: one more try.
        Err(_) => fetch(vsock, Some(&nonce)).await?,
    };
    let expected = Expected {
        measurements,
        sealed_config,
        nonce: &nonce,
        debug,
    };
    evidence.check(&document, Time::from(SystemTime::now()), expected)?;
    Ok(())
}
