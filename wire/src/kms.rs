//! The one request to AWS that an enclave makes: KMS's `Decrypt` with a `Recipient`, which opens its
//! sealed config. The enclave has no AWS credentials. It writes the body and carries the request
//! over TLS of its own; the host signs it, after a look at the body.
//!
//! All that is signed beside the body is fixed here or by the spec, of which each side has its own
//! copy: `POST /`, `host`, `content-type` and `x-amz-target`. The host adds `x-amz-date` and
//! `x-amz-security-token`.

use crate::spec::Destination;
use minicbor::{Decode, Encode};

/// The header `content-type` (AWS JSON 1.1 protocol, as KMS speaks it).
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// The header `x-amz-target`: the action.
pub const TARGET: &str = "TrentService.Decrypt";
/// The signatures that an enclave gets in its life: a request, and its retries.
pub const MAX_SIGNATURES: u32 = 3;
/// The longest body that is signed, in bytes. An attestation document has at most 16 KiB, a
/// ciphertext 6144 bytes, and both travel in base64.
pub const MAX_BODY: usize = 48 * 1024;

/// The header `host` of a request to this endpoint: without HTTPS's own port (RFC 9110, 4.2.2).
#[must_use]
pub fn host(endpoint: &Destination) -> String {
    let text = endpoint.to_string();
    match text.strip_suffix(":443") {
        Some(host) => host.to_owned(),
        None => text,
    }
}

/// The headers that sign a request (IAM user guide, "Create a signed AWS API request"). They fit
/// one body and expire after minutes. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignedHeaders {
    /// `x-amz-date`.
    #[n(0)]
    pub date: String,
    /// `authorization`.
    #[n(1)]
    pub authorization: String,
    /// `x-amz-security-token`, with temporary credentials only. It names a session and signs
    /// nothing without the session's secret key.
    #[n(2)]
    pub security_token: Option<String>,
}

impl std::fmt::Debug for SignedHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignedHeaders(…)")
    }
}

/// Why the host does not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum SignRefusal {
    /// The enclave has no sealed config, or has started its workload.
    #[n(0)]
    #[error("this enclave has no config to open now")]
    NotAsked,
    /// It had [`MAX_SIGNATURES`].
    #[n(1)]
    #[error("this enclave had its {MAX_SIGNATURES} signatures")]
    TooMany,
    /// More than [`MAX_BODY`].
    #[n(2)]
    #[error("the request is longer than {MAX_BODY} bytes")]
    TooLong,
    /// Not JSON, a field twice, a field missing, or one that the request has no use for.
    #[n(3)]
    #[error("the request is not the one that opens a sealed config")]
    Malformed,
    /// Another `KeyId` than the spec's.
    #[n(4)]
    #[error("the request names another key than the spec")]
    Key,
    /// Another `EncryptionContext` than the sealed config's.
    #[n(5)]
    #[error("the request has another encryption context than the sealed config")]
    Context,
    /// Another `CiphertextBlob` than the data key of the sealed config.
    #[n(6)]
    #[error("the request has another ciphertext than the sealed config")]
    Ciphertext,
    /// No attestation document for KMS to answer to, or another algorithm.
    #[n(7)]
    #[error("the request names no recipient that KMS can answer to")]
    Recipient,
    /// The host has no AWS credentials.
    #[n(8)]
    #[error("the host has no AWS credentials to sign with")]
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_is_without_the_port_of_https() {
        for (endpoint, expected) in [
            (
                "kms.eu-west-1.amazonaws.com:443",
                "kms.eu-west-1.amazonaws.com",
            ),
            ("localhost:8443", "localhost:8443"),
            ("localhost:1443", "localhost:1443"),
            ("[::1]:443", "[::1]"),
        ] {
            assert_eq!(host(&Destination::parse(endpoint).unwrap()), expected);
        }
    }

    #[test]
    fn debug_shows_no_signature() {
        let headers = SignedHeaders {
            date: "D".to_owned(),
            authorization: "A".to_owned(),
            security_token: Some("T".to_owned()),
        };
        assert_eq!(format!("{headers:?}"), "SignedHeaders(…)");
    }
}
