//! A loopback address of the workload stands for one destination outside.

use crate::egress::{self, ConnectError};
use crate::listen;
use crate::network::Namespace;
use std::io;
use tokio::net::{TcpListener, TcpStream};
use wire::spec::{Destination, Forward};

const MAX_CONNECTIONS: usize = 1024;

/// Listens inside `workload`, in the background. Must be called within the async runtime.
pub(crate) fn serve(rule: &Forward, workload: &Namespace) -> io::Result<()> {
    let destination = rule.to.clone();
    let listener = workload.within(|| std::net::TcpListener::bind(rule.listen))??;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    listen::spawn(listener, MAX_CONNECTIONS, move |stream| {
        let destination = destination.clone();
        async move {
            // The workload sees a refusal as a connection that closes.
            relay(stream, destination).await.ok();
        }
    });
    Ok(())
}

async fn relay(inside: TcpStream, to: Destination) -> io::Result<()> {
    let (host, first) = egress::open(&to).await.map_err(|error| match error {
        ConnectError::Refused(why) => io::Error::other(why),
        ConnectError::Io(error) => error,
    })?;
    wire::io::relay(inside, host, first, egress::IDLE).await?;
    Ok(())
}
