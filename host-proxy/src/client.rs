//! The API's client, for `enclavectl` and whoever links this crate.

use bytes::Bytes;
use eif_builder::failure::Failure;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

const MAX_ANSWER: usize = 64 * 1024 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach the daemon at {path}: {reason}")]
    Unreachable { path: PathBuf, reason: String },
    /// What the daemon answered.
    #[error("{message}")]
    Refused {
        status: u16,
        message: String,
        hint: String,
    },
    #[error("the daemon answered something that cannot be read: {0}")]
    Unreadable(String),
}

/// As a command line says it.
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let message = error.to_string();
        match error {
            ClientError::Unreachable { .. } if message.contains("Permission denied") => {
                Failure::new(
                    69,
                    message,
                    "the socket is for the daemon's group: join it (adduser USER redoubt), or use sudo",
                )
            }
            ClientError::Unreachable { .. } => Failure::new(
                69,
                message,
                "start it with 'systemctl start host-proxy' or 'host-proxy serve', or name its socket with --socket",
            ),
            ClientError::Refused { status, hint, .. } => {
                Failure::new(if status == 400 { 64 } else { 77 }, message, hint)
            }
            ClientError::Unreadable(_) => Failure::new(
                70,
                message,
                "check that enclavectl and host-proxy have the same version",
            ),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A streamed answer.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    pending: Vec<u8>,
}

impl Client {
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
        #[derive(Deserialize)]
        struct Failed {
            error: Problem,
        }
        #[derive(Deserialize)]
        struct Problem {
            message: String,
            hint: String,
        }
        let status = response.status().as_u16();
        let bytes = collect(response).await?;
        let Failed {
            error: Problem { message, hint },
        } = serde_json::from_slice(&bytes).map_err(|e| ClientError::Unreadable(e.to_string()))?;
        Err(ClientError::Refused {
            status,
            message,
            hint,
        })
    }

    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, ClientError> {
        collect(self.send(method, path, body).await?).await
    }

    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Unreadable(e.to_string()))
    }

    pub async fn stream(&self, path: &str) -> Result<Stream, ClientError> {
        let response = self.send(Method::GET, path, Vec::new()).await?;
        Ok(Stream {
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

impl Stream {
    /// The next piece as it came; `None` at the end.
    pub async fn piece(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// The next line as a value; lines that cannot be read are passed over. `None` at the end.
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
