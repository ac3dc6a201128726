//! A loopback address inside the enclave stands for one destination outside.

use crate::egress::{self, ConnectError};
use crate::listen;
use std::io;
use tokio::net::{TcpListener, TcpStream};
use wire::spec::{Destination, Forward};

const MAX_CONNECTIONS: usize = 1024;

pub(crate) async fn serve(rule: &Forward) -> io::Result<()> {
    let destination = rule.to.clone();
    let listener = TcpListener::bind(rule.listen).await?;
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
