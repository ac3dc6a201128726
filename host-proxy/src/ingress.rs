//! Connections into an enclave: for each ingress port of its spec a TCP listener on the host, which the operator may choose, and
//! one for relying parties who ask for attestation documents.

use crate::launch::Vsock;
use crate::record::Ingress;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wire::frame::Reader;
use wire::relay::{Answer, Open};
use wire::spec::{IngressSpec, NetworkSpec};

const MAX_CONNECTIONS: usize = 10_000;
/// The agent answers 32 at a time.
const MAX_QUESTIONS: usize = 32;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);
/// vhost-device-vsock drops larger writes.
const CHUNK: usize = 16 * 1024;
/// The agent itself waits a few seconds for a service that was just started.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(15 * 60);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// The listeners of one enclave. Dropping it closes them and every connection.
#[derive(Debug)]
pub struct Gate {
    pub addresses: Vec<Ingress>,
    pub attestation: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Gate {
    /// Closes the listeners for certain before it returns: their addresses are free then.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Listens for every port. An address that is taken is an error; without one a free port of 127.0.0.1 is used.
pub async fn open(network: &NetworkSpec, vsock: &Vsock) -> io::Result<Gate> {
    // All of them first: a task that accepts would hold its address for a moment longer than an error does.
    let (mut bound, mut addresses, mut attestation) = (Vec::new(), Vec::new(), None);
    for IngressSpec { port, listen } in &network.ingress {
        let listener = bind(listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await?;
        addresses.push(Ingress {
            port: *port,
            address: listener.local_addr()?,
        });
        bound.push((listener, Target::Port(*port)));
    }
    if let Some(listen) = network.attestation {
        let listener = bind(listen).await?;
        attestation = Some(listener.local_addr()?);
        bound.push((listener, Target::Attestation));
    }
    let mut tasks = JoinSet::new();
    for (listener, target) in bound {
        tasks.spawn(accept(listener, target, vsock.clone()));
    }
    Ok(Gate {
        addresses,
        attestation,
        tasks,
    })
}

async fn bind(wanted: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(wanted).await;
    listener.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {wanted}: {e}")))
}

/// What a listener leads to.
#[derive(Debug, Clone, Copy)]
enum Target {
    Port(u16),
    Attestation,
}

async fn accept(listener: TcpListener, target: Target, vsock: Vsock) {
    let slots = Arc::new(Semaphore::new(match target {
        Target::Port(_) => MAX_CONNECTIONS,
        Target::Attestation => MAX_QUESTIONS,
    }));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
            Ok((client, _)) => {
                let vsock = vsock.clone();
                connections.spawn(async move {
                    let ended = match target {
                        Target::Port(port) => carry(client, port, &vsock).await,
                        Target::Attestation => ask(client, &vsock).await,
                    };
                    if let Err(error) = ended {
                        tracing::debug!(?target, %error, "an ingress connection ended");
                    }
                    drop(slot);
                });
            }
        }
    }
}

/// HTTP between a relying party and the agent, as it is: the agent limits what it reads and how long it takes.
async fn ask(mut client: TcpStream, vsock: &Vsock) -> io::Result<()> {
    client.set_nodelay(true)?;
    let exchange = async {
        let mut enclave = vsock.connect(wire::ATTESTATION_PORT).await?;
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut enclave, CHUNK, CHUNK).await
    };
    timeout(QUESTION_TIMEOUT, exchange)
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

async fn dial(vsock: &Vsock, port: u16) -> io::Result<(UnixStream, Vec<u8>)> {
    let mut enclave = vsock.connect(wire::INGRESS_PORT).await?;
    wire::io::write(&mut enclave, &Open { port }).await?;
    let mut reader = Reader::default();
    match wire::io::read(&mut enclave, &mut reader).await? {
        Some(Answer::Opened) => Ok((enclave, reader.into_rest())),
        Some(Answer::Refused { why }) => Err(io::Error::other(why)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
