//! Fetches attestation documents from an enclave (port 9004), and decides whether a document is the one of the enclave that was
//! launched.

use crate::fault::{Code, Fault};
use crate::launch::Vsock;
use attestation::sandbox::{self, UnsignedDocument};
use attestation::{Measurements, Pcr};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);
const NONCE_LEN: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the enclave does not answer: {0}")]
    Unreachable(String),
    #[error("the enclave answered {0}")]
    Status(u16),
}

/// A document, of which nothing was checked but its length.
pub async fn fetch(vsock: &Vsock, nonce: Option<&[u8]>) -> Result<Vec<u8>, FetchError> {
    let query = nonce
        .map(|nonce| format!("?nonce={}", hex::encode(nonce)))
        .unwrap_or_default();
    let unreachable = |error: &dyn std::fmt::Display| FetchError::Unreachable(error.to_string());
    let exchange = async {
        let stream = vsock
            .connect(wire::ATTESTATION_PORT)
            .await
            .map_err(|e| unreachable(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(&e))?;
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("/attestation{query}"))
            .header(hyper::header::HOST, "enclave")
            .body(Empty::<Bytes>::new())
            .map_err(|e| unreachable(&e))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| unreachable(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), attestation::document::MAX_LEN)
            .collect()
            .await;
        connection.abort();
        match status.is_success() {
            true => Ok(body.map_err(|e| unreachable(&e))?.to_bytes().to_vec()),
            false => Err(FetchError::Status(status.as_u16())),
        }
    };
    timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| FetchError::Unreachable("no answer within 10 seconds".to_owned()))?
}

/// The gate before DEPLOYED: a document that was made just now, by the enclave that was just launched, over what was
/// built. QEMU's documents carry no signature; what vouches for them is that this host started that QEMU.
/// `config` is what PCR16 must be if a sealed config was brought.
pub(crate) async fn gate(
    vsock: &Vsock,
    expected: &Measurements,
    config: Option<Pcr>,
) -> Result<(), Fault> {
    let mut nonce = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(Fault::internal)?;
    let bytes = match fetch(vsock, Some(&nonce)).await {
        // A workload that was just started may keep a small machine busy: one more try.
        Err(FetchError::Unreachable(_)) => fetch(vsock, Some(&nonce)).await,
        other => other,
    }
    .map_err(|e| failed(&e).retryable())?;
    let UnsignedDocument {
        pcrs,
        nonce: echoed,
        ..
    } = sandbox::read_unsigned(&bytes).map_err(|e| failed(&e))?;
    if echoed.as_deref() != Some(nonce.as_slice()) {
        return Err(failed(
            &"the document does not carry the nonce that was asked for",
        ));
    }
    if let Some(pcr16) = config
        && pcrs.get(16) != Some(&pcr16)
    {
        return Err(failed(&"PCR16 is not that of the config that was sent"));
    }
    pcrs.expect(expected).map_err(|mismatch| {
        Fault::new(
            Code::MeasurementMismatch,
            format!("the enclave is not what was built: {mismatch}"),
            "something changed the image between build and launch, or the enclave runs in debug mode; redeploy, and look for who did it",
        )
    })
}

fn failed(error: &dyn std::fmt::Display) -> Fault {
    Fault::new(
        Code::AttestationFailed,
        format!("no usable attestation document: {error}"),
        "redeploy; if it happens again, check the enclave's kernel for its NSM driver",
    )
}
