//! Signature Version 4 (IAM user guide, "Create a signed AWS API request"), the checking side.

use super::{ACCESS_KEY_ID, REGION, Request, SECRET_ACCESS_KEY};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use sha2::{Digest as _, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// AWS's own tolerance, in seconds.
const MAX_SKEW: i64 = 5 * 60;

pub(super) fn check(request: &Request) -> Result<(), (&'static str, String)> {
    let refused = |why: &str| ("InvalidSignatureException", why.to_owned());
    let header = request
        .header("authorization")
        .ok_or(("MissingAuthenticationTokenException", String::new()))?;
    let fields = header
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or_else(|| refused("another algorithm"))?;
    let field = |name: &str| {
        let found = fields
            .split(',')
            .find_map(|field| field.trim().strip_prefix(name));
        found
            .and_then(|rest| rest.strip_prefix('='))
            .ok_or_else(|| refused("a field is missing"))
    };
    let (credential, signed, signature) = (
        field("Credential")?,
        field("SignedHeaders")?,
        field("Signature")?,
    );
    let date = request
        .header("x-amz-date")
        .ok_or_else(|| refused("no date"))?;
    let day = date.get(..8).unwrap_or_default();
    let scope = format!("{day}/{REGION}/kms/aws4_request");
    if credential != format!("{ACCESS_KEY_ID}/{scope}") {
        return Err((
            "UnrecognizedClientException",
            "The security token included in the request is invalid.".to_owned(),
        ));
    }
    if !["host", "x-amz-date", "x-amz-target"]
        .iter()
        .all(|name| signed.split(';').any(|known| known == *name))
    {
        return Err(refused("a header that matters is not signed"));
    }
    let now = i64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap();
    if seconds(date).is_none_or(|then| (now - then).abs() > MAX_SKEW) {
        return Err(refused("Signature expired"));
    }
    let headers: String = signed
        .split(';')
        .map(|name| format!("{name}:{}\n", request.header(name).unwrap_or_default()))
        .collect();
    let canonical = format!(
        "POST\n/\n\n{headers}\n{signed}\n{}",
        hex::encode(Sha256::digest(&request.body))
    );
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex::encode(Sha256::digest(canonical))
    );
    let start = format!("AWS4{SECRET_ACCESS_KEY}").into_bytes();
    let key = [day, REGION, "kms", "aws4_request"]
        .iter()
        .fold(start, |key, part| mac(&key, part));
    match hex::encode(mac(&key, &text)) == signature {
        true => Ok(()),
        false => Err(refused(
            "The request signature we calculated does not match",
        )),
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&Key::new(HMAC_SHA256, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

/// `20260101T120000Z` as seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    let part = |range: std::ops::Range<usize>| date.get(range);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(9..11)?,
        part(11..13)?,
        part(13..15)?
    );
    text.parse::<attestation::Time>()
        .ok()
        .map(|time| time.as_millis() / 1000)
}
