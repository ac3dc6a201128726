//! The client of the daemon's API, over its unix socket.

use crate::error::{ErrorBody, ErrorFields};
use bytes::Bytes;
use explain::{Class, Code, Explain};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

const MAX_ANSWER: usize = 64 * 1024 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers on the socket.
    #[error("cannot reach the daemon at {path}: {reason}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The error chain.
        reason: String,
    },
    /// The daemon said no.
    #[error("{message}")]
    Refused {
        /// Of the HTTP answer.
        status: u16,
        /// `None` for a code that this version does not know.
        code: Option<Code>,
        /// The daemon's own words.
        message: String,
        /// The daemon's own advice.
        next_step: String,
    },
    /// The answer is not that of this API.
    #[error("the daemon sent an answer that cannot be read: {0}")]
    Unreadable(String),
}

impl Explain for ClientError {
    fn code(&self) -> Code {
        match self {
            ClientError::Unreachable { .. } => Code::DaemonUnreachable,
            ClientError::Refused { code, .. } => code.unwrap_or(Code::Internal),
            ClientError::Unreadable(_) => Code::AnswerUnreadable,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            ClientError::Unreachable { reason, .. } if reason.contains("Permission denied") => {
                "The socket belongs to the daemon's group: join it (adduser USER redoubt), or use sudo.".into()
            }
            ClientError::Unreachable { .. } => self.code().next_step().into(),
            ClientError::Refused { next_step, .. } => next_step.into(),
            ClientError::Unreadable(_) => {
                "Check that enclavectl and host-proxy have the same version.".into()
            }
        }
    }

    /// What the daemon refuses is a matter of the request, or of its state.
    fn class(&self) -> Class {
        match self {
            ClientError::Refused { status: 400, .. } => Class::Usage,
            ClientError::Refused { .. } => Class::Refused,
            other => other.code().class(),
        }
    }
}

/// Where the daemon listens. Each request is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A streamed answer.
#[derive(Debug)]
pub struct AnswerStream {
    body: Incoming,
    pending: Vec<u8>,
}

impl Client {
    /// Connects to nothing yet.
    pub fn new(socket: &Path) -> Client {
        Client {
            socket: socket.to_owned(),
        }
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unreachable {
            path: self.socket.clone(),
            reason: error.to_string(),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(&e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "host-proxy")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.unreachable(&e))?;
        let sent = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let response = sent
            .map_err(|_| self.unreachable(&"no answer within 60 seconds"))?
            .map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let bytes = collect(response).await?;
        let ErrorBody { error } =
            serde_json::from_slice(&bytes).map_err(|e| ClientError::Unreadable(e.to_string()))?;
        let ErrorFields {
            code,
            message,
            next_step,
        } = error;
        let code = Code::ALL
            .iter()
            .find(|known| known.as_str() == code)
            .copied();
        Err(ClientError::Refused {
            status,
            code,
            message,
            next_step,
        })
    }

    /// One request, and its answer as it came: at most 64 MiB, within 60 seconds.
    ///
    /// # Errors
    /// Nothing listens there, the daemon refuses, or its answer is too long or too slow.
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, ClientError> {
        collect(self.send(method, path, body).await?).await
    }

    /// One request, and its answer as a value.
    ///
    /// # Errors
    /// As for [`Client::bytes`], and an answer that is no `T`.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Unreadable(e.to_string()))
    }

    /// An answer that goes on: events or logs.
    ///
    /// # Errors
    /// Nothing listens there, or the daemon refuses.
    pub async fn stream(&self, path: &str) -> Result<AnswerStream, ClientError> {
        let response = self.send(Method::GET, path, Vec::new()).await?;
        Ok(AnswerStream {
            body: response.into_body(),
            pending: Vec::new(),
        })
    }
}

async fn collect(response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
    let collecting = Limited::new(response.into_body(), MAX_ANSWER).collect();
    let body = timeout(ANSWER_TIMEOUT, collecting)
        .await
        .map_err(|_| ClientError::Unreadable("it did not end".to_owned()))?;
    Ok(body
        .map_err(|e| ClientError::Unreadable(e.to_string()))?
        .to_bytes()
        .to_vec())
}

impl AnswerStream {
    /// The next piece as it came; `None` at the end.
    pub async fn piece(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// The next line as a value; lines that cannot be read are ignored. `None` at the end.
    pub async fn line<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some(end) = self.pending.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                if let Ok(value) = serde_json::from_slice(&line) {
                    return Some(value);
                }
                continue;
            }
            if self.pending.len() > MAX_ANSWER {
                return None;
            }
            let piece = self.piece().await?;
            self.pending.extend_from_slice(&piece);
        }
    }
}
