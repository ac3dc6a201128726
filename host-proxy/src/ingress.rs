//! Connections into an enclave: for each ingress port of its spec a TCP listener on the host, which the operator may choose.

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
use wire::spec::IngressManifest;

const MAX_CONNECTIONS: usize = 10_000;
/// The agent itself waits a few seconds for a service that was just started.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(15 * 60);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// The listeners of one enclave. Dropping it closes them and every connection.
#[derive(Debug)]
pub struct Gate {
    pub addresses: Vec<Ingress>,
    _tasks: JoinSet<()>,
}

/// Listens for every port. An address that is taken is an error; without one a free port of 127.0.0.1 is used.
pub async fn open(rules: &[IngressManifest], vsock: &Vsock) -> io::Result<Gate> {
    let mut tasks = JoinSet::new();
    let mut addresses = Vec::new();
    for IngressManifest { port, listen } in rules {
        let wanted = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let listener = TcpListener::bind(wanted)
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {wanted}: {e}")))?;
        addresses.push(Ingress { port: *port, address: listener.local_addr()? });
        tasks.spawn(accept(listener, *port, vsock.clone()));
    }
    Ok(Gate { addresses, _tasks: tasks })
}

async fn accept(listener: TcpListener, port: u16, vsock: Vsock) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
            Ok((client, _)) => {
                let vsock = vsock.clone();
                connections.spawn(async move {
                    if let Err(error) = carry(client, port, &vsock).await {
                        tracing::debug!(port, %error, "an ingress connection ended");
                    }
                    drop(slot);
                });
            }
        }
    }
}

async fn carry(client: TcpStream, port: u16, vsock: &Vsock) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (enclave, first) =
        timeout(OPEN_TIMEOUT, dial(vsock, port)).await.map_err(|_| io::ErrorKind::TimedOut)??;
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
