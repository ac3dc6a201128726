//! Signature Version 4 (IAM user guide, "Create a signed AWS API request"), the checking side.

use super::policy::Policy;
use super::{ACCESS_KEY_ID, HOST, REGION, Request, SECRET_ACCESS_KEY};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// AWS's own tolerance, in seconds.
const MAX_SKEW: i64 = 5 * 60;

pub(super) type Refusal = (&'static str, String);

/// Temporary credentials of a role.
pub(super) struct Session {
    pub(super) secret: String,
    pub(super) token: String,
    pub(super) role: String,
    pub(super) policy: Policy,
}

/// Who signed.
pub(super) struct Signatory<'s> {
    pub(super) role: &'s str,
    /// What the session may do at most.
    pub(super) limits: Option<&'s Policy>,
}

fn refused(why: &str) -> Refusal {
    ("InvalidSignatureException", why.to_owned())
}

/// What the header `authorization` says.
struct Authorization<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl Authorization<'_> {
    fn parse(header: &str) -> Result<Authorization<'_>, Refusal> {
        let fields = header
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or_else(|| refused("another algorithm"))?;
        let field = |name: &str| {
            let mut fields = fields.split(',').map(str::trim);
            let found = fields.find_map(|field| field.strip_prefix(name));
            found
                .and_then(|rest| rest.strip_prefix('='))
                .ok_or_else(|| refused("a field is missing"))
        };
        Ok(Authorization {
            credential: field("Credential")?,
            signed_headers: field("SignedHeaders")?,
            signature: field("Signature")?,
        })
    }
}

/// Checks a request to this service.
pub(super) fn check<'s>(
    request: &Request,
    service: &str,
    sessions: &'s BTreeMap<String, Session>,
) -> Result<Signatory<'s>, Refusal> {
    let header = request
        .header("authorization")
        .ok_or(("MissingAuthenticationTokenException", String::new()))?;
    let Authorization {
        credential,
        signed_headers,
        signature,
    } = Authorization::parse(header)?;
    let date = request.header("x-amz-date");
    let date = date.ok_or_else(|| refused("no date"))?;
    let day = date.get(..8).unwrap_or_default();
    let scope = format!("{day}/{REGION}/{service}/aws4_request");
    let access_key = credential.strip_suffix(&format!("/{scope}"));
    let (secret, signatory) =
        signatory(access_key, request, sessions).ok_or_else(unknown_credentials)?;
    if let Some(name) = unsigned(request, signed_headers) {
        return Err(refused(&format!("the header {name} is not signed")));
    }
    if !is_fresh(date) {
        return Err(refused("Signature expired"));
    }
    let hash = hex::encode(Sha256::digest(canonical(request, signed_headers)));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    if hex::encode(mac(&signing_key(secret, day, service), &text)) == signature {
        Ok(signatory)
    } else {
        let message = "The request signature we calculated does not match";
        Err(refused(message))
    }
}

fn unknown_credentials() -> Refusal {
    let message = "The security token included in the request is invalid.";
    ("UnrecognizedClientException", message.to_owned())
}

/// Whose access key this is, and the key's secret; sessions have to show their token.
fn signatory<'s>(
    access_key: Option<&str>,
    request: &Request,
    sessions: &'s BTreeMap<String, Session>,
) -> Option<(&'s str, Signatory<'s>)> {
    let access_key = access_key?;
    if access_key == ACCESS_KEY_ID {
        let host = Signatory {
            role: HOST,
            limits: None,
        };
        return Some((SECRET_ACCESS_KEY, host));
    }
    let session = sessions.get(access_key)?;
    let shown = request.header("x-amz-security-token")?;
    let signatory = Signatory {
        role: &session.role,
        limits: Some(&session.policy),
    };
    (shown == session.token).then_some((session.secret.as_str(), signatory))
}

/// A header that has to be signed and is not: `host`, `content-type` and all of AWS's own.
fn unsigned<'r>(request: &'r Request, signed_headers: &str) -> Option<&'r str> {
    let is_signed = |name: &str| signed_headers.split(';').any(|known| known == name);
    let must = |name: &str| matches!(name, "host" | "content-type") || name.starts_with("x-amz-");
    let mut names = request.headers.iter().map(|(name, _)| name.as_str());
    if !is_signed("host") {
        return Some("host");
    }
    names.find(|name| must(name) && !is_signed(name))
}

fn is_fresh(date: &str) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    seconds(date).is_some_and(|then| (now - then).abs() <= MAX_SKEW)
}

fn canonical(request: &Request, signed_headers: &str) -> String {
    let value = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let headers: String = signed_headers
        .split(';')
        .map(|name| format!("{name}:{}\n", value(name)))
        .collect();
    let hash = hex::encode(Sha256::digest(&request.body));
    format!("POST\n/\n\n{headers}\n{signed_headers}\n{hash}")
}

fn signing_key(secret: &str, day: &str, service: &str) -> Vec<u8> {
    let start = format!("AWS4{secret}").into_bytes();
    let parts = [day, REGION, service, "aws4_request"];
    parts.iter().fold(start, |key, part| mac(&key, part))
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
