//! The first byte of an enclave (port 9000), as the AWS agents send it too.

use super::Listener;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use wire::io::Accept as _;

/// Between a connection and its byte.
const BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for the enclave's heartbeat, and answers it. Connections that bring anything else are
/// closed. Waits for ever if none comes; cancelling is safe.
///
/// # Errors
/// Those of accepting, and of writing the answer.
pub async fn heartbeat(listener: &Listener) -> io::Result<()> {
    loop {
        let mut stream = listener.next().await?;
        let byte = timeout(BYTE_TIMEOUT, stream.read_u8()).await;
        if matches!(byte, Ok(Ok(wire::HEARTBEAT))) {
            return stream.write_all(&[wire::HEARTBEAT]).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{UnixListener, UnixStream};

    #[tokio::test]
    async fn only_the_right_byte_is_a_heartbeat() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = Listener::from(UnixListener::bind(&path).unwrap());
        let mut wrong = UnixStream::connect(&path).await.unwrap();
        wrong.write_all(&[0]).await.unwrap();
        let mut right = UnixStream::connect(&path).await.unwrap();
        right.write_all(&[wire::HEARTBEAT]).await.unwrap();
        heartbeat(&listener).await.unwrap();
        assert_eq!(right.read_u8().await.unwrap(), wire::HEARTBEAT);
    }
}
