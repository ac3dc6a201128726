//! Connections out of the enclave: a loopback address inside stands for one destination outside, which the host opens.
//! What leaves is in the measured spec; the host checks its own copy of the list too.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_vsock::{VsockAddr, VsockStream};
use wire::frame::Reader;
use wire::relay::{Answer, Connect};
use wire::spec::{Destination, Forward};

const MAX_CONNECTIONS: usize = 1024;
/// The host resolves and connects within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The host gives up sooner.
const IDLE: Duration = Duration::from_secs(20 * 60);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

pub(crate) async fn serve(parent: u32, rule: &Forward) -> io::Result<()> {
    let listener = TcpListener::bind(rule.listen).await?;
    let destination = rule.to.clone();
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(PAUSE_AFTER_ERROR).await;
                continue;
            };
            let destination = destination.clone();
            tokio::spawn(async move {
                // The workload sees a refusal as a connection that closes.
                let _ = relay(parent, stream, destination).await;
                drop(slot);
            });
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
