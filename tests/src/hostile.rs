//! A fake registry, or another service, whose every answer a test writes. It records what it was
//! asked, so that a test can see what left the client.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// One request as it came: path with query, the headers that matter, and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    /// GitLab's header for access tokens.
    pub private_token: Option<String>,
    pub body: String,
}

impl Asked {
    async fn read(request: Request<Incoming>) -> Asked {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let header = |name: &str| {
            let value = parts.headers.get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        Asked {
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            authorization: header("authorization"),
            range: header("range"),
            private_token: header("private-token"),
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }
}

pub type HttpAnswer = Response<Full<Bytes>>;

pub struct FakeRegistry {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl FakeRegistry {
    pub async fn start(
        answer: impl Fn(&Asked) -> HttpAnswer + Send + Sync + 'static,
    ) -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let seen = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (seen, answer) = (seen.clone(), answer.clone());
                        async move {
                            let asked = Asked::read(request).await;
                            seen.lock().unwrap().push(asked.clone());
                            Ok::<_, Infallible>(answer(&asked))
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    // A client may hang up at any time.
                    drop(
                        connection
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        FakeRegistry { port, asked, task }
    }

    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on nothing listens there.
    pub fn stop(&self) {
        self.task.abort();
    }

    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with these headers.
#[must_use]
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> HttpAnswer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}
