//! Connections out of the enclave: a loopback address inside stands for one destination outside, which the host opens.
//! What leaves is in the measured spec; the host checks its own copy of the list too.

use crate::accept;
use std::io;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};
use wire::frame::Reader;
use wire::relay::{Answer, Connect};
use wire::spec::{Destination, Forward};

const MAX_CONNECTIONS: usize = 1024;
/// The host resolves and connects within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The host gives up sooner.
const IDLE: Duration = Duration::from_secs(20 * 60);

pub(crate) async fn serve(parent: u32, rule: &Forward) -> io::Result<()> {
    let destination = rule.to.clone();
    accept::serve(TcpListener::bind(rule.listen).await?, MAX_CONNECTIONS, move |stream| {
        let destination = destination.clone();
        async move {
            // The workload sees a refusal as a connection that closes.
            let _ = relay(parent, stream, destination).await;
        }
    });
    Ok(())
}

async fn relay(parent: u32, inside: TcpStream, to: Destination) -> io::Result<()> {
    let opening = async {
        let mut host = VsockStream::connect(VsockAddr::new(parent, wire::EGRESS_PORT.0)).await?;
        wire::io::write(&mut host, &Connect { host: to.host, port: to.port }).await?;
        let mut reader = Reader::default();
        match wire::io::read(&mut host, &mut reader).await? {
            Some(Answer::Opened) => Ok((host, reader.into_rest())),
            Some(Answer::Refused { why }) => Err(io::Error::other(why)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let (host, first) = timeout(CONNECT_TIMEOUT, opening).await??;
    wire::io::relay(inside, host, first, IDLE).await?;
    Ok(())
}
