//! A loopback address of the workload stands for one destination outside.

use crate::capacity::Capacity;
use crate::egress::{self, ConnectError};
use crate::listen;
use crate::network::Namespace;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use wire::io::Plain as _;
use wire::spec::{Destination, Forward};

/// Listens inside `workload`, in the background. Must be called within the async runtime.
pub(crate) fn serve(rule: &Forward, workload: &Namespace, capacity: &Capacity) -> io::Result<()> {
    let shared = Arc::new((rule.to.clone(), capacity.clone()));
    let listener = workload.within(|| std::net::TcpListener::bind(rule.listen))??;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    listen::spawn(listener, capacity.limit(), move |stream| {
        let shared = shared.clone();
        async move {
            let (destination, capacity) = &*shared;
            // The workload sees a refusal as a reset.
            relay(stream, destination, capacity).await.ok();
        }
    });
    Ok(())
}

async fn relay(inside: TcpStream, to: &Destination, capacity: &Capacity) -> io::Result<()> {
    inside.reset_on_close()?;
    let Some(place) = capacity.take() else {
        return Err(io::Error::other("too many connections"));
    };
    let opened = egress::open(to, Some(place.window)).await;
    let (host, first) = opened.map_err(|error| match error {
        ConnectError::Refused(why) => io::Error::other(why),
        ConnectError::Io(error) => error,
    })?;
    place.relay(inside, host, first, egress::IDLE).await
}
