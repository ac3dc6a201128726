//! Signature Version 4 of the request to KMS. Pure, but for the algorithm, which is AWS's crate.

use super::request::Expected;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SigningError, SigningSettings, sign as sign_request,
};
use aws_sigv4::sign::v4::SigningParams;
use aws_sigv4::sign::v4::signing_params::BuildError;
use std::time::SystemTime;
use wire::kms::{CONTENT_TYPE, SignedHeaders, TARGET};

/// Credentials or a host that no header can hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignatureError {
    #[error(transparent)]
    Parameters(#[from] BuildError),
    #[error(transparent)]
    Request(#[from] SigningError),
}

/// The headers that sign a request with this body, which was checked.
pub(super) fn sign(
    expected: &Expected,
    body: &[u8],
    credentials: &Credentials,
    now: SystemTime,
) -> Result<SignedHeaders, SignatureError> {
    let identity = credentials.clone().into();
    let parameters = SigningParams::builder()
        .identity(&identity)
        .region(&expected.region)
        .name("kms")
        .time(now)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let headers = [
        ("content-type", CONTENT_TYPE),
        ("host", expected.host.as_str()),
        ("x-amz-target", TARGET),
    ];
    let url = format!("https://{}/", expected.host);
    let body = SignableBody::Bytes(body);
    let request = SignableRequest::new("POST", url, headers.into_iter(), body)?;
    let (instructions, _) = sign_request(request, &parameters)?.into_parts();
    let header = |wanted: &str| {
        let found = instructions.headers().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.to_owned())
    };
    Ok(SignedHeaders {
        date: header("x-amz-date").unwrap_or_default(),
        authorization: header("authorization").unwrap_or_default(),
        security_token: header("x-amz-security-token"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{config, header};
    use super::*;
    use serde_json::Value;
    use std::time::{Duration, UNIX_EPOCH};

    /// Made by golden/sigv4.py with botocore.
    const GOLDEN: &str = include_str!("../../golden/sigv4.json");
    /// 2026-01-02T03:04:05Z.
    const NOW: u64 = 1_767_323_045;

    #[test]
    fn signatures_are_those_of_awss_own_library() {
        let expected = Expected::new(&config(), &header());
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let vectors: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(vectors.len(), 2);
        for vector in vectors {
            let text = |name: &str| vector["headers"][name].as_str().map(str::to_owned);
            let credentials = Credentials::new(
                "AKIAIOSFODNN7EXAMPLE",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                text("x-amz-security-token"),
                None,
                "test",
            );
            let body = vector["body"].as_str().unwrap().as_bytes();
            let SignedHeaders {
                date,
                authorization,
                security_token,
            } = sign(&expected, body, &credentials, now).unwrap();
            assert_eq!(Some(date), text("x-amz-date"));
            assert_eq!(Some(authorization), text("authorization"));
            assert_eq!(security_token, text("x-amz-security-token"));
        }
    }
}
