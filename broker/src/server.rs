//! The broker's listener: connections, TLS and limits. What is answered is decided by
//! [`CredentialService`].

use crate::config::BrokerConfig;
use crate::error::BrokerError;
use crate::issuer::Issuer;
use crate::limits::{ConnectionLimiter, ConnectionPermit, RateLimiter};
use crate::service::CredentialService;
use crate::tls::Tls;
use crate::token::Tokens;
use audit::AuditLog;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oci::https::Https;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wire::io::{Accept, Overflow, serve};

const MAX_CONNECTIONS: usize = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a provider may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(75);
/// Of a request's head, in bytes.
const MAX_HEADERS: usize = 16 * 1024;

/// A broker that listens.
#[derive(Debug)]
pub struct Broker {
    listener: TcpListener,
    tls: Option<Tls>,
    tokens: Tokens,
    issuer: Arc<Issuer>,
    rate_limiter: RateLimiter,
}

impl Broker {
    /// Checks whether the broker could start with this configuration, as far as is possible without
    /// listening: files are read, and the issuer's keys are fetched once.
    ///
    /// # Errors
    /// As for [`Broker::start`], but for [`BrokerError::Listen`].
    pub async fn check(
        config: &BrokerConfig,
        has_registry: bool,
        https: &Https,
    ) -> Result<(), BrokerError> {
        match config.listen {
            Some(address) => prepare(config, address, has_registry, https)
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    /// Reads the files, fetches the issuer's keys (an issuer that does not answer is no error), and
    /// binds the address. `None` if the configuration has no `listen`.
    ///
    /// # Errors
    /// The configuration or a file that it names cannot be used, or the address cannot be bound.
    pub async fn start(
        config: &BrokerConfig,
        issuer: Option<Arc<Issuer>>,
        https: &Https,
    ) -> Result<Option<Broker>, BrokerError> {
        let Some(address) = config.listen else {
            return Ok(None);
        };
        let (tokens, tls) = prepare(config, address, issuer.is_some(), https).await?;
        let issuer = issuer.ok_or(BrokerError::NoRegistry)?;
        let rate_limiter = RateLimiter::new(config.rate_per_minute);
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BrokerError::Listen { address, source })?;
        Ok(Some(Broker {
            listener,
            tls,
            tokens,
            issuer,
            rate_limiter,
        }))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not report the socket's address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped, which ends every connection. Credentials are handed out
    /// once that is in the audit log.
    pub async fn serve(self, audit: AuditLog) {
        let Broker {
            listener,
            tls,
            tokens,
            issuer,
            rate_limiter,
        } = self;
        let service = CredentialService::new(tokens, issuer, rate_limiter, audit);
        let service = Arc::new(service);
        let listener = PeerListener {
            listener,
            limiter: ConnectionLimiter::default(),
        };
        serve(
            listener,
            MAX_CONNECTIONS,
            Overflow::Wait,
            move |(stream, peer, permit): Connection| {
                let (service, acceptor) = (service.clone(), tls.as_ref().map(Tls::acceptor));
                async move {
                    let _permit = permit;
                    let Some(acceptor) = acceptor else {
                        return serve_connection(stream, peer, service).await;
                    };
                    let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
                    if let Ok(Ok(stream)) = handshake {
                        serve_connection(stream, peer, service).await;
                    }
                }
            },
        )
        .await;
    }
}

/// Closes the connections that a peer has too many of, so that it cannot take those of all. On
/// loopback, where a proxy may stand for many, there is no such limit.
struct PeerListener {
    listener: TcpListener,
    limiter: ConnectionLimiter,
}

/// Without a permit it comes from loopback.
type Connection = (TcpStream, IpAddr, Option<ConnectionPermit>);

impl Accept for PeerListener {
    type Stream = Connection;

    async fn next(&self) -> io::Result<Connection> {
        loop {
            let (stream, peer) = self.listener.accept().await?;
            let permit = self.limiter.acquire(peer.ip());
            if permit.is_some() || peer.ip().is_loopback() {
                return Ok((stream, peer.ip(), permit));
            }
        }
    }
}

/// All that can be wrong before there is a listener.
async fn prepare(
    config: &BrokerConfig,
    address: SocketAddr,
    has_registry: bool,
    https: &Https,
) -> Result<(Tokens, Option<Tls>), BrokerError> {
    if !has_registry {
        return Err(BrokerError::NoRegistry);
    }
    if config.rate_per_minute == 0 {
        return Err(BrokerError::Rate);
    }
    let tls = Tls::open(&config.tls_cert, &config.tls_key)?;
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(BrokerError::Plain(address));
    }
    Ok((Tokens::new(config, https).await?, tls))
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: IpAddr,
    service: Arc<CredentialService>,
) {
    let respond = service_fn(|request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.respond(&request, peer).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        // A job asks once; one that stays would hold a permit.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), respond);
    // How a connection ends is the client's affair.
    drop(timeout(CONNECTION_TIMEOUT, connection).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn start(directory: &Path) -> SocketAddr {
        let secret = directory.join("secret");
        std::fs::write(&secret, "s".repeat(32)).unwrap();
        let config = BrokerConfig {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            jwt_secret_file: secret,
            audience: "redoubt".to_owned(),
            rate_per_minute: 1,
            ..BrokerConfig::default()
        };
        let https = Https::new(Path::new("")).unwrap();
        let registry = toml::from_str("type = 'docker'\nregistry_url = 'r.example'").unwrap();
        let issuer = Issuer::from_config(&registry, &https).await.unwrap();
        let broker = Broker::start(&config, Some(Arc::new(issuer)), &https).await;
        let broker = broker.unwrap().unwrap();
        let address = broker.address().unwrap();
        let audit = AuditLog::open(&directory.join("audit")).unwrap();
        tokio::spawn(broker.serve(audit));
        address
    }

    async fn exchange(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_error_has_a_status_a_code_and_a_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let address = start(directory.path()).await;
        let healthy = exchange(address, "GET /healthz").await;
        assert!(healthy.starts_with("HTTP/1.1 200") && healthy.ends_with("ok\n"));
        for (head, status, code) in [
            ("GET /elsewhere", 404, "NOT_FOUND"),
            ("POST /registry/credentials", 405, "METHOD_NOT_ALLOWED"),
            ("GET /registry/credentials?project=a", 401, "TOKEN_INVALID"),
        ] {
            let answer = exchange(address, head).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"], code, "{body}");
            for field in ["message", "next_step"] {
                assert!(body["error"][field].is_string(), "{body}");
            }
        }
    }
}
