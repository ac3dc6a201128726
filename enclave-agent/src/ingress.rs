//! Connections into the enclave: the host opens one to a port of the measured spec, and bytes go
//! both ways.

use crate::capacity::Capacity;
use crate::listen::{self, Vsock};
use crate::network::Namespace;
use crate::sys;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_vsock::VsockStream;
use wire::frame::Reader;
use wire::relay::{OpenReply, OpenRequest, RefuseReason};
use wire::spec::MAX_IDLE_SECONDS;

const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A service that was just started may not listen yet.
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(50);
/// The host gives up sooner: its operator says when.
const IDLE: Duration = Duration::from_secs(MAX_IDLE_SECONDS as u64 + 60);

/// Serves in the background; the ports are those of `workload`.
pub(crate) fn serve(
    allowed: Vec<u16>,
    workload: Arc<Namespace>,
    capacity: Capacity,
) -> io::Result<()> {
    let shared = Arc::new((allowed, workload, capacity));
    let listener = Vsock::bind(wire::INGRESS_PORT)?;
    let limit = shared.2.ingress();
    listen::spawn(listener, limit, move |stream| {
        let shared = shared.clone();
        async move {
            let (allowed, workload, capacity) = &*shared;
            // How a connection ends concerns its two ends only.
            relay(stream, allowed, workload, capacity).await.ok();
        }
    });
    Ok(())
}

async fn relay(
    mut host: VsockStream,
    allowed: &[u16],
    workload: &Namespace,
    capacity: &Capacity,
) -> io::Result<()> {
    let mut reader = Reader::default();
    let request = timeout(OPEN_TIMEOUT, wire::io::read(&mut host, &mut reader)).await??;
    let Some(OpenRequest { port }) = request else {
        return Ok(());
    };
    if !allowed.contains(&port) {
        return refuse(&mut host, RefuseReason::NotAllowed).await;
    }
    let Some(place) = capacity.take() else {
        return refuse(&mut host, RefuseReason::Unreachable).await;
    };
    let Ok(service) = connect(port, workload).await else {
        return refuse(&mut host, RefuseReason::Unreachable).await;
    };
    sys::set_vsock_buffer(&host, place.window)?;
    wire::io::write(&mut host, &OpenReply::Opened).await?;
    place.relay(service, host, reader.into_rest(), IDLE).await
}

async fn refuse(host: &mut VsockStream, why: RefuseReason) -> io::Result<()> {
    wire::io::write(host, &OpenReply::Refused { why }).await
}

async fn connect(port: u16, workload: &Namespace) -> io::Result<TcpStream> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let socket = workload.within(TcpSocket::new_v4)??;
        match socket.connect((Ipv4Addr::LOCALHOST, port).into()).await {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < give_up =>
            {
                sleep(RETRY).await;
            }
            result => return result,
        }
    }
}
