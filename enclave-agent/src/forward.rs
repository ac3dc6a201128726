//! Connections out of the enclave: a loopback address inside stands for one destination outside, which the host opens.
//! What leaves is in the measured spec; the host checks its own copy of the list too.

use crate::frames;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
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

async fn relay(parent: u32, mut inside: TcpStream, to: Destination) -> io::Result<()> {
    let opening = async {
        let mut host = VsockStream::connect(VsockAddr::new(parent, wire::EGRESS_PORT.0)).await?;
        frames::write(&mut host, &Connect { host: to.host, port: to.port }).await?;
        let mut reader = Reader::default();
        match frames::read(&mut host, &mut reader).await? {
            Answer::Opened => Ok((host, reader.into_rest())),
            Answer::Refused { why } => Err(io::Error::other(why)),
        }
    };
    let (mut host, first) = timeout(CONNECT_TIMEOUT, opening).await??;
    inside.write_all(&first).await?;
    copy_bidirectional(&mut inside, &mut host).await?;
    Ok(())
}
