//! Connections into an enclave: for each ingress port of its spec a TCP listener on the host, which the operator may choose, and
//! one for relying parties who ask for attestation documents.

use api::Ingress;
use explain::{Code, Explain};
use launch::{Stream, Vsock};
use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::frame::Reader;
use wire::io::Overflow;
use wire::relay::{OpenReply, OpenRequest};
use wire::spec::{IngressSpec, NetworkSpec};

const MAX_CONNECTIONS: usize = 10_000;
/// The agent answers 32 at a time.
const MAX_REQUESTS: usize = 32;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// What is held of each direction.
const CHUNK: usize = 16 * 1024;
/// The agent itself waits a few seconds for a service that was just started.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(15 * 60);

/// The listeners of one enclave. Dropping it closes them and every connection.
#[derive(Debug)]
pub struct IngressListeners {
    /// Where the host listens for each port of the enclave.
    pub addresses: Vec<Ingress>,
    /// Where it listens for relying parties.
    pub attestation: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl IngressListeners {
    /// Closes the listeners for certain before it returns: their addresses are free then.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Listens for every port. An address that is taken is an error; without one a free port of 127.0.0.1 is used.
pub async fn open(network: &NetworkSpec, vsock: &Vsock) -> Result<IngressListeners, ListenError> {
    // All of them first: a task that accepts would hold its address for a moment longer than an error does.
    let (mut bound, mut addresses, mut attestation) = (Vec::new(), Vec::new(), None);
    for IngressSpec { port, listen } in &network.ingress {
        let listener = bind(listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await?;
        addresses.push(Ingress {
            port: *port,
            address: local(&listener)?,
        });
        bound.push((listener, Target::Port(*port)));
    }
    if let Some(listen) = network.attestation {
        let listener = bind(listen).await?;
        attestation = Some(local(&listener)?);
        bound.push((listener, Target::Attestation));
    }
    let mut tasks = JoinSet::new();
    for (listener, target) in bound {
        tasks.spawn(accept(listener, target, vsock.clone()));
    }
    Ok(IngressListeners {
        addresses,
        attestation,
        tasks,
    })
}

/// Where it listens: the system may have chosen.
fn local(listener: &TcpListener) -> Result<SocketAddr, ListenError> {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    listener.local_addr().map_err(|source| ListenError {
        address: unknown,
        source,
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// The host cannot listen where the spec asks it to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl Explain for ListenError {
    fn code(&self) -> Code {
        Code::LaunchFailed
    }

    fn next_step(&self) -> Cow<'_, str> {
        "Choose another 'listen' address in enclave.toml, or leave it out.".into()
    }
}

/// What a listener leads to.
#[derive(Debug, Clone, Copy)]
enum Target {
    Port(u16),
    Attestation,
}

async fn accept(listener: TcpListener, target: Target, vsock: Vsock) {
    let limit = match target {
        Target::Port(_) => MAX_CONNECTIONS,
        Target::Attestation => MAX_REQUESTS,
    };
    let handle = move |client| {
        let vsock = vsock.clone();
        async move {
            let ended = match target {
                Target::Port(port) => carry(client, port, &vsock).await,
                Target::Attestation => attest(client, &vsock).await,
            };
            if let Err(error) = ended {
                tracing::debug!(?target, %error, "an ingress connection ended");
            }
        }
    };
    wire::io::serve(listener, limit, Overflow::Wait, handle).await;
}

/// HTTP between a relying party and the agent, as it is: the agent limits what it reads and how long it takes.
async fn attest(mut client: TcpStream, vsock: &Vsock) -> io::Result<()> {
    client.set_nodelay(true)?;
    let exchange = async {
        let mut enclave = vsock.connect(wire::ATTESTATION_PORT).await?;
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut enclave, CHUNK, CHUNK).await
    };
    timeout(REQUEST_TIMEOUT, exchange)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(())
}

async fn carry(client: TcpStream, port: u16, vsock: &Vsock) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (enclave, first) = timeout(OPEN_TIMEOUT, dial(vsock, port))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    wire::io::relay(client, enclave, first, IDLE).await?;
    Ok(())
}

async fn dial(vsock: &Vsock, port: u16) -> io::Result<(Stream, Vec<u8>)> {
    let mut enclave = vsock.connect(wire::INGRESS_PORT).await?;
    wire::io::write(&mut enclave, &OpenRequest { port }).await?;
    let mut reader = Reader::default();
    match wire::io::read(&mut enclave, &mut reader).await? {
        Some(OpenReply::Opened) => Ok((enclave, reader.into_rest())),
        Some(OpenReply::Refused { why }) => Err(io::Error::other(why)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
