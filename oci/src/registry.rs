//! The registry client (OCI distribution-spec): GETs, and nothing else, over HTTP/1.1 with rustls.
//! It never sends credentials to a host that was not asked for them by name, never follows a redirect inwards, and
//! never waits without a limit. It does not judge what it fetches: `manifest` and `layer` do.

use super::auth::{self, Challenge};
use super::reference::Reference;
use super::transport::{CONNECT_TIMEOUT, Endpoint, Http, connect_with, is_inward};
use super::{Credentials, PullError, Secret};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long a registry may take to begin an answer, or to go on with one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a manifest, a config or a token may take as a whole.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_TOKEN: usize = 1024 * 1024;
const MAX_ERROR: usize = 16 * 1024;
const MAX_REDIRECTS: usize = 5;
const MAX_TRIES: u32 = 4;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// One repository of one registry, as one user.
#[derive(Debug)]
pub struct Registry {
    http: Http,
    /// For redirects: cannot connect to addresses of this machine or of the link.
    outward: Http,
    plain_http: BTreeSet<String>,
    host: String,
    repository: String,
    credentials: Option<Credentials>,
    /// The current `Authorization` header; behind a lock so that many layers ask for one token once.
    authorization: Mutex<Option<Secret>>,
}

/// What is asked of the registry, below `/v2/<repository>/`.
pub(crate) struct Get<'a> {
    pub(crate) path: String,
    pub(crate) accept: &'a [&'static str],
    /// First byte wanted; above 0 it becomes a Range request.
    pub(crate) offset: u64,
}

impl Registry {
    pub fn new(
        reference: &Reference,
        credentials: Option<Credentials>,
        endpoint: &Endpoint,
    ) -> Result<Registry, PullError> {
        Ok(Registry {
            http: connect_with(endpoint, false)?,
            outward: connect_with(endpoint, true)?,
            plain_http: endpoint.plain_http.clone(),
            host: reference.host().to_owned(),
            repository: reference.repository().to_owned(),
            credentials,
            authorization: Mutex::new(None),
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a GET, logs in when asked to, retries what may pass, follows redirects of blobs. Gives a 200 or a 206.
    pub(crate) async fn get(&self, get: &Get<'_>) -> Result<Response<Incoming>, PullError> {
        let scheme = if self.plain_http.contains(&self.host) {
            "http"
        } else {
            "https"
        };
        let uri: Uri = format!(
            "{scheme}://{}/v2/{}/{}",
            self.host, self.repository, get.path
        )
        .parse()
        .map_err(|e| PullError::invalid("the address of the image", e))?;
        let mut logged_in = false;
        let mut tries = 1;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let result = self
                .send(&self.http, &uri, get, authorization.as_ref())
                .await;
            let wait = match result {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status().is_redirection() => {
                    return self.follow(uri, get, response).await;
                }
                Ok(response) => {
                    let challenge = auth::choose(response.headers());
                    let retry_after = retry_after(response.headers());
                    let (status, reason) = self.read_error(response).await;
                    let expired = status == StatusCode::FORBIDDEN && reason.contains("expired");
                    if (status == StatusCode::UNAUTHORIZED || expired) && !logged_in {
                        logged_in = true;
                        self.log_in(challenge, reason, authorization.as_ref())
                            .await?;
                        continue;
                    }
                    let error = self.error(status, reason);
                    if !error.is_transient() || tries >= MAX_TRIES {
                        return Err(error);
                    }
                    retry_after.unwrap_or(backoff(tries))
                }
                Err(error) if error.is_transient() && tries < MAX_TRIES => backoff(tries),
                Err(error) => return Err(error),
            };
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    async fn send(
        &self,
        http: &Http,
        uri: &Uri,
        get: &Get<'_>,
        authorization: Option<&Secret>,
    ) -> Result<Response<Incoming>, PullError> {
        let mut request = Request::get(uri);
        for accept in get.accept {
            request = request.header(header::ACCEPT, *accept);
        }
        if get.offset > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", get.offset));
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, sensitive(authorization)?);
        }
        exchange(http, uri, request.body(Full::default())).await
    }

    /// Blobs often live elsewhere, at an address that carries its own signature: credentials must not follow there.
    async fn follow(
        &self,
        mut from: Uri,
        get: &Get<'_>,
        mut response: Response<Incoming>,
    ) -> Result<Response<Incoming>, PullError> {
        for _ in 0..MAX_REDIRECTS {
            if !get.path.starts_with("blobs/") {
                return Err(self.redirect_error("a manifest is not answered with a redirect"));
            }
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| self.redirect_error("the answer names no location"))?;
            let to =
                resolve_location(&from, location).map_err(|reason| self.redirect_error(&reason))?;
            let authority = to.authority().map(ToString::to_string).unwrap_or_default();
            let named_plain = self.plain_http.contains(&authority);
            if to.scheme_str() != Some("https") && !named_plain {
                return Err(self.redirect_error("it leads from https to http"));
            }
            let literal = to
                .host()
                .and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
            if literal.is_some_and(is_inward) && !named_plain {
                return Err(
                    self.redirect_error("it leads to an address of this machine or its link")
                );
            }
            let http = if named_plain {
                &self.http
            } else {
                &self.outward
            };
            response = self.send(http, &to, get, None).await?;
            if !response.status().is_redirection() {
                if response.status().is_success() {
                    return Ok(response);
                }
                let (status, reason) = self.read_error(response).await;
                return Err(PullError::Status {
                    host: authority,
                    status: status.as_u16(),
                    reason,
                });
            }
            from = to;
        }
        Err(self.redirect_error("it goes on for more than 5 hops"))
    }

    fn redirect_error(&self, reason: &str) -> PullError {
        PullError::Redirect {
            host: self.host.clone(),
            reason: reason.to_owned(),
        }
    }

    /// Answers a challenge and keeps the resulting header. `stale` is the header that was just refused: if another
    /// request replaced it in the meantime, the new one is used instead of asking again.
    async fn log_in(
        &self,
        challenge: Option<Challenge>,
        reason: String,
        stale: Option<&Secret>,
    ) -> Result<(), PullError> {
        let mut authorization = self.authorization.lock().await;
        if authorization.as_ref() != stale {
            return Ok(());
        }
        let host = self.host.clone();
        let fresh = match (challenge, &self.credentials) {
            (Some(Challenge::Bearer { realm, service }), credentials) => {
                self.token(&realm, service.as_deref(), credentials.as_ref())
                    .await?
            }
            (Some(Challenge::Basic), Some(Credentials::Password { username, password })) => {
                let basic = Credentials::basic(username, password);
                if stale == Some(&basic) {
                    return Err(PullError::Unauthorized { host, reason });
                }
                basic
            }
            (Some(Challenge::Basic), Some(Credentials::IdentityToken(_))) => {
                let reason =
                    "it wants a user name and a password, and has no use for an identity token"
                        .to_owned();
                return Err(PullError::Unauthorized { host, reason });
            }
            (Some(Challenge::Basic), None) => {
                return Err(PullError::CredentialsNeeded { host, reason });
            }
            (None, Some(_)) => return Err(PullError::Unauthorized { host, reason }),
            (None, None) => return Err(PullError::CredentialsNeeded { host, reason }),
        };
        *authorization = Some(fresh);
        Ok(())
    }

    /// Asks a token service (distribution, docs/spec/auth/token.md; for identity tokens auth/oauth.md).
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credentials: Option<&Credentials>,
    ) -> Result<Secret, PullError> {
        let plain = self.plain_http.contains(&self.host);
        let realm =
            auth::check_realm(realm, &self.host, plain).map_err(|reason| PullError::Realm {
                host: self.host.clone(),
                reason,
            })?;
        let mut query = vec![("scope", format!("repository:{}:pull", self.repository))];
        query.extend(service.map(|service| ("service", service.to_owned())));
        let request = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                query.push(("grant_type", "refresh_token".to_owned()));
                query.push(("client_id", "redoubt".to_owned()));
                query.push(("refresh_token", token.expose().to_owned()));
                Request::post(&realm)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Full::from(form(&query)))
            }
            other => {
                let separator = if realm.query().is_some() { '&' } else { '?' };
                let uri: Uri = format!("{realm}{separator}{}", form(&query))
                    .parse()
                    .map_err(|e| PullError::invalid("the token service's address", e))?;
                let mut request = Request::get(uri);
                if let Some(Credentials::Password { username, password }) = other {
                    let basic = Credentials::basic(username, password);
                    request = request.header(header::AUTHORIZATION, sensitive(&basic)?);
                }
                request.body(Full::default())
            }
        };
        let response = exchange(&self.http, &realm, request).await?;
        if !response.status().is_success() {
            let anonymous = credentials.is_none();
            let (status, reason) = self.read_error(response).await;
            let host = self.host.clone();
            return Err(match status.as_u16() {
                400 | 401 | 403 if anonymous => PullError::CredentialsNeeded { host, reason },
                400 | 401 | 403 => PullError::Unauthorized { host, reason },
                _ => self.error(status, reason),
            });
        }
        let body = read_bounded(response, MAX_TOKEN, "the token").await?;
        #[derive(Deserialize)]
        struct Token {
            token: Option<Secret>,
            access_token: Option<Secret>,
        }
        // The message of a JSON error could quote the token: the position is enough.
        let Token {
            token,
            access_token,
        } = serde_json::from_slice(&body).map_err(|e| {
            PullError::invalid("the token", format!("not JSON at column {}", e.column()))
        })?;
        let token = token
            .or(access_token)
            .filter(|token| !token.expose().is_empty());
        let token =
            token.ok_or_else(|| PullError::invalid("the token", "the answer holds none"))?;
        Ok(Secret::new(format!("Bearer {}", token.expose())))
    }

    /// The status and what the registry said about it: the distribution-spec's form, or the start of whatever came.
    async fn read_error(&self, response: Response<Incoming>) -> (StatusCode, String) {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = response.status();
        let body = read_bounded(response, MAX_ERROR, "an error")
            .await
            .unwrap_or_default();
        let text = match serde_json::from_slice::<Errors>(&body) {
            Ok(Errors { errors }) => {
                let each = errors
                    .iter()
                    .map(|Entry { code, message }| format!("{code}: {message}"));
                each.collect::<Vec<_>>().join("; ")
            }
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        let text = self.without_secrets(text);
        let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
        let empty = text.trim().is_empty();
        (status, if empty { status.to_string() } else { text })
    }

    /// A server may repeat what it was sent; that must not come out of an error.
    fn without_secrets(&self, text: String) -> String {
        let secrets = match &self.credentials {
            Some(Credentials::Password { username, password }) => {
                let basic = Credentials::basic(username, password);
                let encoded = basic.expose().trim_start_matches("Basic ").to_owned();
                vec![password.clone(), Secret::new(encoded)]
            }
            Some(Credentials::IdentityToken(token)) => vec![token.clone()],
            None => Vec::new(),
        };
        let long_enough = secrets.iter().filter(|secret| secret.expose().len() >= 4);
        long_enough.fold(text, |text, secret| text.replace(secret.expose(), "…"))
    }

    fn error(&self, status: StatusCode, reason: String) -> PullError {
        let host = self.host.clone();
        match status.as_u16() {
            404 => PullError::NotFound {
                reference: format!("{host}/{}", self.repository),
                reason,
            },
            401 | 403 if self.credentials.is_some() => PullError::Unauthorized { host, reason },
            401 | 403 => PullError::CredentialsNeeded { host, reason },
            429 => PullError::RateLimited { host, reason },
            status => PullError::Status {
                host,
                status,
                reason,
            },
        }
    }
}

async fn exchange(
    http: &Http,
    uri: &Uri,
    request: Result<Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<Response<Incoming>, PullError> {
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let request = request.map_err(|e| PullError::invalid("the request", e))?;
    match timeout(CONNECT_TIMEOUT + ANSWER_TIMEOUT, http.request(request)).await {
        Err(_) => Err(PullError::Timeout {
            host,
            seconds: (CONNECT_TIMEOUT + ANSWER_TIMEOUT).as_secs(),
        }),
        Ok(Err(error)) => Err(PullError::Unreachable {
            host,
            reason: innermost(&error),
        }),
        Ok(Ok(response)) => Ok(response),
    }
}

/// The next piece of a body; `None` at its end.
pub(crate) async fn next_chunk(
    host: &str,
    body: &mut Incoming,
) -> Result<Option<Bytes>, PullError> {
    loop {
        let frame =
            timeout(ANSWER_TIMEOUT, body.frame())
                .await
                .map_err(|_| PullError::Timeout {
                    host: host.to_owned(),
                    seconds: ANSWER_TIMEOUT.as_secs(),
                })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(PullError::Unreachable {
                    host: host.to_owned(),
                    reason: innermost(&error),
                });
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A small document, within a minute.
pub(crate) async fn read_bounded(
    response: Response<Incoming>,
    limit: usize,
    what: &str,
) -> Result<Vec<u8>, PullError> {
    let reading = timeout(DOCUMENT_TIMEOUT, read_to_end(response, limit, what)).await;
    reading.map_err(|_| PullError::Timeout {
        host: what.to_owned(),
        seconds: DOCUMENT_TIMEOUT.as_secs(),
    })?
}

async fn read_to_end(
    response: Response<Incoming>,
    limit: usize,
    what: &str,
) -> Result<Vec<u8>, PullError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(what, &mut body).await? {
        if bytes.len() + chunk.len() > limit {
            return Err(PullError::TooLong {
                what: what.to_owned(),
                limit: limit as u64,
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// hyper wraps causes in causes; people want the last one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, PullError> {
    let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
        PullError::Credentials("they hold characters that HTTP cannot carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn backoff(tries: u32) -> Duration {
    Duration::from_millis(250) * 2u32.saturating_pow(tries)
}

/// Seconds only; the date form is treated as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

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

fn resolve_location(from: &Uri, location: &str) -> Result<Uri, String> {
    let to: Uri = location
        .parse()
        .map_err(|_| "the location is no address".to_owned())?;
    if to
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("the location holds a user name".to_owned());
    }
    if to.scheme().is_some() {
        return Ok(to);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = to.into_parts().path_and_query;
    Uri::from_parts(parts).map_err(|_| "the location is no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_may_be_relative_and_never_holds_a_user() {
        let from: Uri = "https://r.example/v2/a/blobs/x".parse().unwrap();
        assert_eq!(
            resolve_location(&from, "/y?z=1").unwrap(),
            "https://r.example/y?z=1"
        );
        assert_eq!(
            resolve_location(&from, "https://s.example/y").unwrap(),
            "https://s.example/y"
        );
        assert!(resolve_location(&from, "https://u:p@s.example/y").is_err());
    }

    #[test]
    fn escapes_what_goes_into_a_query() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull".into()), ("x", "&=%".into())]),
            "scope=repository%3Aa%2Fb%3Apull&x=%26%3D%25"
        );
    }
}
