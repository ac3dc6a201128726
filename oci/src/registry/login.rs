//! Answers challenges: Basic with the password, Bearer with a token from the registry's token
//! service.

use super::error_body::{self, Refusal};
use super::exchange::{exchange, finish, read_bounded, sensitive};
use super::target::Target;
use crate::auth::{self, Challenge};
use crate::content::ContentError;
use crate::error::PullError;
use crate::secret::{Credentials, Secret, basic};
use crate::transport::Http;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header;
use hyper::{Request, Uri};
use serde::Deserialize;
use tokio::sync::Mutex;

/// The longest answer of a token service, in bytes.
const MAX_TOKEN: usize = 1024 * 1024;

/// The current `Authorization` header; behind a lock so that many layers ask for one token once.
#[derive(Debug, Default)]
pub(super) struct Login(Mutex<Option<Secret>>);

impl Login {
    pub(super) async fn current(&self) -> Option<Secret> {
        self.0.lock().await.clone()
    }

    /// Answers a challenge and keeps the resulting header. `stale` is the header that was just
    /// refused: if another request replaced it in the meantime, the new one is used instead of
    /// asking again.
    pub(super) async fn renew(
        &self,
        http: &Http,
        target: &Target,
        refusal: Refusal,
        stale: Option<&Secret>,
    ) -> Result<(), PullError> {
        let mut authorization = self.0.lock().await;
        if authorization.as_ref() != stale {
            return Ok(());
        }
        let Refusal {
            challenge, reason, ..
        } = refusal;
        let host = target.host.clone();
        let fresh = match (challenge, &target.credentials) {
            (Some(Challenge::Bearer { realm, service }), _) => {
                fetch_token(http, target, &realm, service.as_deref()).await?
            }
            (Some(Challenge::Basic), Some(Credentials::Password { username, password })) => {
                let basic = basic(username, password);
                if stale == Some(&basic) {
                    return Err(PullError::Unauthorized { host, reason });
                }
                basic
            }
            (Some(Challenge::Basic), Some(Credentials::IdentityToken(_))) => {
                let reason =
                    "it requires a user name and a password, not an identity token".to_owned();
                return Err(PullError::Unauthorized { host, reason });
            }
            (None, Some(_)) => return Err(PullError::Unauthorized { host, reason }),
            (_, None) => return Err(PullError::CredentialsNeeded { host, reason }),
        };
        *authorization = Some(fresh);
        Ok(())
    }
}

/// Asks a token service (distribution, docs/spec/auth/token.md; for identity tokens auth/oauth.md).
async fn fetch_token(
    http: &Http,
    target: &Target,
    realm: &str,
    service: Option<&str>,
) -> Result<Secret, PullError> {
    let realm = auth::check_realm(realm, &target.host, target.is_plain_http).map_err(|reason| {
        PullError::Realm {
            host: target.host.clone(),
            reason,
        }
    })?;
    let response = exchange(http, token_request(target, &realm, service)?).await?;
    let host = realm
        .authority()
        .map_or(target.host.as_str(), |authority| authority.as_str());
    if response.status().is_success() {
        let body = read_bounded(host, response, MAX_TOKEN, "the token").await?;
        return read_token(&body).map_err(|e| PullError::invalid("the token", e));
    }
    let status = response.status();
    let credentials = target.credentials.as_ref();
    let reason = error_body::read_reason(host, response, credentials).await;
    let host = target.host.clone();
    Err(match (status.as_u16(), credentials) {
        (400 | 401 | 403, None) => PullError::CredentialsNeeded { host, reason },
        (400 | 401 | 403, Some(_)) => PullError::Unauthorized { host, reason },
        _ => error_body::error(target, status, reason),
    })
}

/// A POST with a refresh token, or a GET with the password or with nothing.
fn token_request(
    target: &Target,
    realm: &Uri,
    service: Option<&str>,
) -> Result<Request<Full<Bytes>>, PullError> {
    let mut query = vec![("scope", format!("repository:{}:pull", target.repository))];
    query.extend(service.map(|service| ("service", service.to_owned())));
    if let Some(Credentials::IdentityToken(token)) = &target.credentials {
        query.push(("grant_type", "refresh_token".to_owned()));
        query.push(("client_id", "redoubt".to_owned()));
        query.push(("refresh_token", token.expose().to_owned()));
        let request =
            Request::post(realm).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        return finish(request, Full::from(form(&query)));
    }
    let separator = if realm.query().is_some() { '&' } else { '?' };
    let uri = format!("{realm}{separator}{}", form(&query));
    let uri = uri.parse::<Uri>();
    let mut request =
        Request::get(uri.map_err(|e| PullError::invalid("the token service's URL", e))?);
    if let Some(Credentials::Password { username, password }) = &target.credentials {
        request = request.header(
            header::AUTHORIZATION,
            sensitive(&basic(username, password))?,
        );
    }
    finish(request, Full::default())
}

/// The `Authorization` header that a token service's answer stands for.
fn read_token(body: &[u8]) -> Result<Secret, ContentError> {
    #[derive(Deserialize)]
    struct TokenAnswer {
        token: Option<Secret>,
        access_token: Option<Secret>,
    }
    // The message of a JSON error could quote the token: the position is enough.
    let TokenAnswer {
        token,
        access_token,
    } = serde_json::from_slice(body)
        .map_err(|e| ContentError::SecretJson { column: e.column() })?;
    let token = token
        .or(access_token)
        .filter(|token| !token.expose().is_empty())
        .ok_or(ContentError::NoToken)?;
    Ok(Secret::new(format!("Bearer {}", token.expose())))
}

/// `application/x-www-form-urlencoded`, with every byte escaped that RFC 3986, 2.3 does not call
/// unreserved.
fn form(pairs: &[(&str, String)]) -> String {
    let escape = |text: &str| {
        text.bytes()
            .map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(b).to_string()
                }
                b => format!("%{b:02X}"),
            })
            .collect::<String>()
    };
    pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect::<Vec<_>>()
        .join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_goes_into_a_query() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull".into()), ("x", "&=%".into())]),
            "scope=repository%3Aa%2Fb%3Apull&x=%26%3D%25"
        );
    }

    #[test]
    fn reads_a_token_and_never_quotes_what_is_none() {
        let bearer = Secret::new("Bearer t0ken");
        for body in [
            r#"{"token":"t0ken","expires_in":300}"#,
            r#"{"access_token":"t0ken"}"#,
        ] {
            assert_eq!(read_token(body.as_bytes()).unwrap(), bearer);
        }
        for body in ["{}", r#"{"token":""}"#] {
            let none = read_token(body.as_bytes());
            assert!(matches!(none, Err(ContentError::NoToken)), "{body}");
        }
        let error = read_token(br#"{"token":"s3cret"#).unwrap_err();
        assert!(matches!(error, ContentError::SecretJson { .. }));
        assert!(!error.to_string().contains("s3cret"));
    }
}
