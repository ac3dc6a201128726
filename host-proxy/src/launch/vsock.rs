//! The enclave's vsock as vhost-device-vsock shows it to the host: one unix socket to connect in, and one for each port that the
//! enclave connects out to (its README, "hybrid vsock").

use super::LaunchError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use wire::Port;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// `OK` and a port number.
const MAX_ANSWER: usize = 32;

/// The way into one enclave. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vsock {
    path: PathBuf,
}

/// What must listen before the enclave starts.
#[derive(Debug)]
pub struct Listeners {
    pub heartbeat: UnixListener,
    pub control: UnixListener,
    pub egress: UnixListener,
}

impl Vsock {
    pub(super) fn new(path: PathBuf) -> Vsock {
        Vsock { path }
    }

    pub(super) fn listen(&self) -> Result<Listeners, LaunchError> {
        let bind = |port: Port| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!("_{}", port.0));
            let path = PathBuf::from(path);
            UnixListener::bind(&path).map_err(|source| LaunchError::Socket { path, source })
        };
        Ok(Listeners {
            heartbeat: bind(wire::HEARTBEAT_PORT)?,
            control: bind(wire::CONTROL_PORT)?,
            egress: bind(wire::EGRESS_PORT)?,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Connects to a port inside the enclave.
    pub async fn connect(&self, port: Port) -> io::Result<UnixStream> {
        let connecting = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            stream
                .write_all(format!("CONNECT {}\n", port.0).as_bytes())
                .await?;
            // Byte by byte: what follows the line belongs to the stream.
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                if line.len() == MAX_ANSWER {
                    return Err(io::Error::other(
                        "the vsock device answered with something else",
                    ));
                }
                match stream.read_u8().await {
                    Ok(byte) => line.push(byte),
                    Err(_) => return Err(io::ErrorKind::ConnectionRefused.into()),
                }
            }
            match line.starts_with(b"OK ") {
                true => Ok(stream),
                false => Err(io::Error::other(
                    "the vsock device answered with something else",
                )),
            }
        };
        timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }
}
