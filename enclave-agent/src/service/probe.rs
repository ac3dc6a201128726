//! Asks the workload over its own loopback whether it works.

use crate::network::Namespace;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use wire::spec::HttpTarget;

/// The longest status line, in bytes.
const MAX_STATUS_LINE: usize = 1024;

/// What a check found, for a person; as an error if it failed.
pub(super) type Finding = Result<String, String>;

pub(super) async fn tcp(port: u16, workload: &Namespace) -> Finding {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = connect(address, workload).await;
    connected.map(|_| format!("connected to port {port}"))
}

/// A redirect is a success: it is not followed, since it could lead anywhere.
pub(super) async fn http(target: &HttpTarget, workload: &Namespace) -> Finding {
    let mut stream = connect(target.address, workload).await?;
    let HttpTarget { address, path } = target;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: redoubt-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let answer = async {
        stream.write_all(request.as_bytes()).await?;
        status_line(&mut stream).await
    };
    let line = answer
        .await
        .map_err(|error| format!("no answer from {address}: {error}"))?;
    match status(&line) {
        Some(status @ 200..=399) => Ok(format!("status {status}")),
        Some(status) => Err(format!("status {status}")),
        None => Err(format!("what answers on {address} does not speak HTTP")),
    }
}

async fn connect(address: SocketAddr, workload: &Namespace) -> Result<TcpStream, String> {
    let connecting = async {
        let socket = if address.is_ipv4() {
            workload.within(TcpSocket::new_v4)??
        } else {
            workload.within(TcpSocket::new_v6)??
        };
        socket.connect(address).await
    };
    let failed = |error: io::Error| format!("cannot connect to {address}: {error}");
    connecting.await.map_err(failed)
}

async fn status_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut piece = [0; 256];
    while !line.contains(&b'\n') && line.len() < MAX_STATUS_LINE {
        let n = stream.read(&mut piece).await?;
        match piece.get(..n).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => line.extend_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(line)
}

/// `HTTP/1.1 200 OK` (RFC 9112, section 4).
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (status, end) = rest.get(1..)?.strip_prefix(b" ")?.split_at_checked(3)?;
    let is_over = end.first().is_some_and(u8::is_ascii_whitespace);
    let digits = status.iter().all(u8::is_ascii_digit) && is_over;
    digits.then(|| std::str::from_utf8(status).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_status_is_read_and_nothing_else_taken_for_one() {
        for (line, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\nX: y", Some(503)),
            ("HTTP/2 200 OK\r\n", None),
            ("HTTP/1.1 2000 \r\n", None),
            ("HTTP/1.1 +20 \r\n", None),
            ("HTTP/1.1 20", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(line.as_bytes()), expected, "{line}");
        }
    }

    /// Answers one connection with this.
    async fn serve(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /up HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    /// Entering a namespace needs root, even one's own.
    #[tokio::test]
    async fn success_is_a_status_below_400() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let own = Namespace::current().unwrap();
        for (answer, expected) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok("status 204")),
            ("HTTP/1.1 302 Found\r\n\r\n", Ok("status 302")),
            ("HTTP/1.1 500 Oops\r\n\r\n", Err("status 500")),
        ] {
            let address = serve(answer).await;
            let path = "/up".to_owned();
            let found = http(&HttpTarget { address, path }, &own).await;
            let found = found.as_ref().map(String::as_str).map_err(String::as_str);
            assert_eq!(found, expected);
        }
        let address = serve("").await;
        let path = "/up".to_owned();
        let silent = http(&HttpTarget { address, path }, &own).await.unwrap_err();
        assert!(silent.starts_with("no answer from 127.0.0.1:"), "{silent}");
        let closed = tests_port().await;
        let refused = tcp(closed, &own).await.unwrap_err();
        assert!(refused.contains("Connection refused"), "{refused}");
    }

    /// A port that nothing listens on.
    async fn tests_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }
}
