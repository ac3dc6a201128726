//! The registry client (OCI distribution-spec): GETs, and nothing else, over HTTP/1.1 with rustls.
//! It never sends credentials to a host that was not asked for them by name, never follows a
//! redirect to a local address, and never waits without a limit. It does not judge what it fetches:
//! `manifest` and `layer` do.
//!
//! One request goes through [`exchange`]; [`retry`] decides what follows from its outcome;
//! [`login`] answers challenges; [`redirect`] follows to where blobs are; [`error_body`] turns a
//! refusal into an error.

mod error_body;
mod exchange;
mod login;
mod redirect;
mod retry;
mod target;

pub(crate) use exchange::{Get, next_chunk, read_bounded};

use crate::error::PullError;
use crate::reference::Reference;
use crate::secret::Credentials;
use crate::transport::Endpoint;
use error_body::Refusal;
use exchange::{Clients, exchange};
use hyper::Response;
use hyper::body::Incoming;
use login::Login;
use retry::{Attempt, Decision};
use target::Target;

/// One repository of one registry, as one user.
#[derive(Debug)]
pub(crate) struct Registry {
    clients: Clients,
    target: Target,
    login: Login,
}

impl Registry {
    pub(crate) fn new(
        reference: &Reference,
        credentials: Option<Credentials>,
        endpoint: &Endpoint,
    ) -> Result<Registry, PullError> {
        let host = reference.host().to_owned();
        Ok(Registry {
            clients: Clients::new(endpoint)?,
            target: Target {
                is_plain_http: endpoint.plain_http.contains(&host),
                host,
                repository: reference.repository().to_owned(),
                credentials,
            },
            login: Login::default(),
        })
    }

    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        &self.target.host
    }

    /// Sends a GET, logs in when asked to, retries what may pass, follows redirects of blobs. The
    /// response is a success: 200 or 206. Cancel-safe.
    pub(crate) async fn get(&self, get: &Get<'_>) -> Result<Response<Incoming>, PullError> {
        let uri = self.target.uri(&get.path)?;
        let mut attempt = Attempt::FIRST;
        loop {
            let authorization = self.login.current().await;
            let request = get.request(&uri, authorization.as_ref())?;
            let refusal = match exchange(&self.clients.any, request).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status().is_redirection() => {
                    return redirect::follow(&self.clients, &self.target, uri, get, response).await;
                }
                Ok(response) => Refusal::read(response, &self.target).await,
                Err(error) => Refusal::unanswered(error),
            };
            match retry::next(&refusal.outcome(), attempt) {
                Decision::LogIn => {
                    let (http, stale) = (&self.clients.any, authorization.as_ref());
                    self.login.renew(http, &self.target, refusal, stale).await?;
                    attempt = attempt.after_login();
                }
                Decision::RetryAfter(pause) => {
                    tokio::time::sleep(pause).await;
                    attempt = attempt.after_pause();
                }
                Decision::GiveUp => return Err(refusal.error),
            }
        }
    }
}
