//! `GET /registry/credentials?project=NAME[&action=pull]` with `Authorization: Bearer TOKEN`, and
//! `GET /healthz`. Instead of the project, the name of an image can be given, as a kubelet does:
//! `?image=HOST/PATH`.
//!
//! | status | when |
//! |---|---|
//! | 200 | credentials: the body is a [`CredentialResponse`] |
//! | 400 | the query is malformed |
//! | 401 | the token is missing or invalid |
//! | 404 | the project does not exist, or belongs to others: callers do not learn which |
//! | 405 | another method than GET |
//! | 429 | too many requests of this subject |
//! | 502 | the registry's service refused; the operator has to act |
//! | 503, 504 | it is busy, out of order, or too slow; tokens cannot be checked now; or the audit log cannot be written |
//!
//! Errors are `{"error":{"code","message","next_step"}}`. Every answer has the request's id in
//! `x-request-id`, and the audit log has it too. Credentials leave once their line is on disk there;
//! refusals of one address are counted. The journal has a line for each.

use crate::credential_error::CredentialError;
use crate::issuer::Issuer;
use crate::limits::RateLimiter;
use crate::provider::IssuedCredentials;
use crate::token::{Caller, TokenError, Tokens};
use api::ApiError;
use api::credentials::project::Project;
use api::credentials::{
    Action, CredentialRequest, CredentialResponse, CredentialScope, GrantedCredentials,
};
use audit::{Actor, AuditAction, AuditEntry, AuditLog, AuditOutcome};
use bytes::Bytes;
use explain::Explain as _;
use http_body_util::Full;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use oci::{Reference, Secret};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use zeroize::Zeroizing;

/// How much of a subject or reason is logged, in characters.
const MAX_LOGGED: usize = 200;
/// How much of a name that is no project's is logged, in characters.
const MAX_LOGGED_NAME: usize = 300;

/// Answers the requests of all connections.
#[derive(Debug)]
pub(super) struct CredentialService {
    tokens: Tokens,
    issuer: Arc<Issuer>,
    rate_limiter: RateLimiter,
    audit: AuditLog,
}

/// What every line of the audit log names: who asks, and in which request.
struct AuditContext<'a> {
    subject: String,
    by: Actor,
    /// The request's, as in `x-request-id`.
    id: &'a str,
}

impl CredentialService {
    pub(super) fn new(
        tokens: Tokens,
        issuer: Arc<Issuer>,
        rate_limiter: RateLimiter,
        audit: AuditLog,
    ) -> CredentialService {
        CredentialService {
            tokens,
            issuer,
            rate_limiter,
            audit,
        }
    }

    /// Never fails: errors are answers too.
    pub(super) async fn respond<B>(
        &self,
        request: &Request<B>,
        peer: IpAddr,
    ) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => response(StatusCode::OK, "text/plain", "ok\n"),
            (&Method::GET, "/registry/credentials") => {
                let id = request_id();
                let query = request.uri().query().unwrap_or_default();
                let answer = self.credentials(request.headers(), query, &id, peer).await;
                let mut response = match answer {
                    Ok(body) => response(
                        StatusCode::OK,
                        "application/json",
                        Bytes::copy_from_slice(&body),
                    ),
                    Err(error) => refusal(error),
                };
                self.issuer.metrics().answered(response.status());
                if let Ok(id) = HeaderValue::from_str(&id) {
                    response.headers_mut().insert("x-request-id", id);
                }
                response
            }
            (_, "/registry/credentials" | "/healthz") => refusal(CredentialError::WrongMethod),
            _ => refusal(CredentialError::NoSuchPath),
        }
    }

    async fn credentials(
        &self,
        headers: &HeaderMap,
        query: &str,
        id: &str,
        peer: IpAddr,
    ) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let refused = |by: Actor| {
            move |error: CredentialError| {
                self.audit.count_refusal(by, error.code());
                error
            }
        };
        let caller = self.authenticate(headers, id).await;
        let caller = caller.map_err(refused(Actor::caller(None, peer)))?;
        let by = Actor::caller(Some(&caller.subject), peer);
        let subject = escaped(&caller.subject, MAX_LOGGED);
        let audit = AuditContext { subject, by, id };
        let answer = self.answer(&caller, query, &audit).await;
        answer.map_err(refused(audit.by))
    }

    async fn answer(
        &self,
        caller: &Caller,
        query: &str,
        audit: &AuditContext<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        self.admit(caller, audit)?;
        let CredentialRequest { scope, action } = CredentialRequest::parse(query)?;
        let project = self.find_project(scope, caller, audit)?;
        let issued = self.issue(&project, action, audit).await?;
        Ok(body(issued, &project))
    }

    async fn authenticate(&self, headers: &HeaderMap, id: &str) -> Result<Caller, CredentialError> {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| bearer(value.to_str().ok()?))
            .ok_or(CredentialError::Unauthorized)?;
        self.tokens.caller(token).await.map_err(|error| {
            // It may quote the token.
            let reason = escaped(&error.to_string(), MAX_LOGGED);
            tracing::info!(target: "audit", id, reason, "a token was refused");
            match error {
                TokenError::NoKeys => CredentialError::KeysUnavailable,
                _ => CredentialError::Unauthorized,
            }
        })
    }

    /// A public issuer signs tokens for all the world: callers without projects are not counted.
    fn admit(&self, caller: &Caller, audit: &AuditContext<'_>) -> Result<(), CredentialError> {
        let AuditContext { subject, id, .. } = audit;
        if caller.has_no_projects() {
            tracing::info!(target: "audit", subject, id, "the caller has no projects");
            return Err(CredentialError::UnknownProject);
        }
        if !self.rate_limiter.allows(&caller.subject, Instant::now()) {
            tracing::info!(target: "audit", subject, id, "too many requests");
            return Err(CredentialError::RateLimited);
        }
        Ok(())
    }

    fn find_project(
        &self,
        scope: CredentialScope,
        caller: &Caller,
        audit: &AuditContext<'_>,
    ) -> Result<Project, CredentialError> {
        let candidates = match &scope {
            CredentialScope::Project(name) => Project::parse(name).into_iter().collect(),
            CredentialScope::Image(name) => match Reference::parse(name) {
                Ok(image) => self.issuer.projects_of(&image),
                Err(_) => Vec::new(),
            },
        };
        let found = candidates
            .into_iter()
            .find(|project| caller.is_allowed(project));
        found.ok_or_else(|| {
            let (CredentialScope::Project(name) | CredentialScope::Image(name)) = &scope;
            let AuditContext { subject, id, .. } = audit;
            let project = escaped(name, MAX_LOGGED_NAME);
            tracing::info!(target: "audit", subject, id, project, "no such project, or not this caller's");
            CredentialError::UnknownProject
        })
    }

    async fn issue(
        &self,
        project: &Project,
        action: Action,
        AuditContext { subject, by, id }: &AuditContext<'_>,
    ) -> Result<IssuedCredentials, CredentialError> {
        let issued = self.issuer.credentials(project, action).await;
        let (project, action) = (project.as_str(), action.as_str());
        let issued = issued.map_err(|error| {
            tracing::warn!(target: "audit", subject, id, project, action, %error, "no credentials");
            CredentialError::from_provider(&error, id)
        })?;
        let expires_at = issued.expiry_rfc3339();
        let (what, outcome) = if issued.login.is_some() {
            ("credentials issued", AuditOutcome::Issued)
        } else {
            ("registry URL returned", AuditOutcome::Accepted)
        };
        let entry = AuditEntry::new(AuditAction::Credentials, outcome, by.clone())
            .credentials(project, action, expires_at.as_deref())
            .request(id);
        self.audit.record(entry).await?;
        tracing::info!(target: "audit", subject, id, project, action, expires_at, "{what}");
        Ok(issued)
    }
}

/// Foreign text for the log: on one line, and cut.
fn escaped(text: &str, limit: usize) -> String {
    text.escape_debug().take(limit).collect()
}

/// RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Names a request in the audit log and in its answer.
fn request_id() -> String {
    let mut bytes = [0; 8];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::warn!("the system provides no randomness for the id of a request");
    }
    hex::encode(bytes)
}

fn refusal(error: CredentialError) -> Response<Full<Bytes>> {
    let (status, retry_after) = (error.status(), error.retry_after());
    let body = serde_json::to_vec(&ApiError::from(error).body()).unwrap_or_default();
    let mut response = response(status, "application/json", body);
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(pause) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(pause.as_secs()));
    }
    response
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The JSON of a 200. Empty user name and password: users log in at the registry themselves.
fn body(issued: IssuedCredentials, project: &Project) -> Zeroizing<Vec<u8>> {
    let IssuedCredentials {
        registry_url,
        login,
        expires_at,
    } = issued;
    let (username, password) = login.unwrap_or_else(|| (String::new(), Secret::new("")));
    let remaining = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default();
    let response = CredentialResponse {
        credentials: GrantedCredentials {
            registry_url,
            username,
            password,
            expires_in: expires_at.map(|at| remaining(at).as_secs()),
        },
        repository: project.as_str().to_owned(),
    };
    Zeroizing::new(serde_json::to_vec(&response).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer() {
        assert_eq!(bearer("Bearer a.b.c"), Some("a.b.c"));
        assert_eq!(bearer("bearer  a "), Some("a"));
        assert!(bearer("Basic a").is_none() && bearer("Bearer").is_none());
    }
}
