//! Connections out of the enclave, which the host opens. What may leave is in the measured spec;
//! the host checks its own copy too.

use crate::parent;
use crate::sys;
use std::io;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::time::timeout;
use tokio_vsock::VsockStream;
use wire::frame::Reader;
use wire::relay::{ConnectRequest, MAX_CHUNK, OpenReply, RefuseReason};
use wire::spec::Destination;

/// The host resolves and connects within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The host gives up sooner.
pub(crate) const IDLE: Duration = Duration::from_secs(20 * 60);

#[derive(Debug)]
pub(crate) enum ConnectError {
    Refused(RefuseReason),
    Io(io::Error),
}

/// A stream to the host that stands for one to `to`, chunked, and what already came on it. The kernel
/// keeps `window` bytes of what is not read, or as many as it likes.
pub(crate) async fn open(
    to: &Destination,
    window: Option<u64>,
) -> Result<(VsockStream, Vec<u8>), ConnectError> {
    let opening = async {
        let mut host = parent::connect(wire::EGRESS_PORT).await?;
        if let Some(window) = window {
            sys::set_vsock_buffer(&host, window)?;
        }
        let request = ConnectRequest {
            host: to.host.clone(),
            port: to.port,
        };
        wire::io::write(&mut host, &request).await?;
        let mut reader = Reader::default();
        match wire::io::read(&mut host, &mut reader).await? {
            Some(OpenReply::Opened) => Ok(Ok((host, reader.into_rest()))),
            Some(OpenReply::Refused { why }) => Ok(Err(why)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let timed_out = |_| ConnectError::Io(io::ErrorKind::TimedOut.into());
    timeout(CONNECT_TIMEOUT, opening)
        .await
        .map_err(timed_out)?
        .map_err(ConnectError::Io)?
        .map_err(ConnectError::Refused)
}

/// A plain stream to `to` for the agent itself.
pub(crate) async fn connect(to: &Destination) -> Result<DuplexStream, ConnectError> {
    let (host, first) = open(to, None).await?;
    let (ours, relayed) = tokio::io::duplex(MAX_CHUNK);
    tokio::spawn(async move { wire::io::relay(relayed, host, first, IDLE).await });
    Ok(ours)
}
