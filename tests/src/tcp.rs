//! Connections by hand: requests as another make of client writes them, servers of a few lines, and
//! a wire with an ear.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpSocket;

/// Sends a request, and reads until the other side closes; at most a minute between two bytes.
#[must_use]
pub fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same, if there is an answer; it may be anything.
///
/// # Errors
/// Those of the connection.
pub fn try_get(address: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What HTTP/1.0 answers to a GET: head and body.
#[must_use]
pub fn get(address: &str, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.0\r\n\r\n"))
}

/// A service outside of the enclave: answers the first byte of every connection with one line, and
/// counts the connections.
#[must_use]
pub fn outside() -> (u16, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let port = serve(move |mut stream| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() {
            // The client may hang up at any time. A close with bytes that were not read would be a reset.
            stream.write_all(b"from outside\n").ok();
            stream.shutdown(Shutdown::Write).ok();
            stream.set_read_timeout(Some(Duration::from_secs(30))).ok();
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        }
    });
    (port, asked)
}

/// Has `answer` called with each connection to a port of 127.0.0.1, in a thread of its own, for as
/// long as the process lives.
pub fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

async fn dial(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(address).await
}

/// A connection from this address of 127.0.0.0/8, with a minute for each read.
#[must_use]
pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let stream = block_on(async { dial(source, address).await.unwrap().into_std().unwrap() });
    stream.set_nonblocking(false).unwrap();
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).unwrap();
    stream
}

/// Ends a connection by a reset.
pub fn reset(stream: TcpStream) {
    stream.set_nonblocking(true).unwrap();
    block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        stream.set_zero_linger().unwrap();
    });
}

type Tape = Arc<Mutex<Vec<u8>>>;

/// Carries connections to a port of 127.0.0.1, and keeps what passed.
pub struct Recorder {
    pub port: u16,
    requests: Tape,
    replies: Tape,
}

impl Recorder {
    /// In front of the server at `port`.
    #[must_use]
    pub fn before(port: u16) -> Recorder {
        let (requests, replies) = (Tape::default(), Tape::default());
        let tapes = (requests.clone(), replies.clone());
        let port = serve(move |client| {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (request, reply) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let tape = tapes.0.clone();
            std::thread::spawn(move || carry(request, server, &tape));
            carry(reply, client, &tapes.1);
        });
        Recorder {
            port,
            requests,
            replies,
        }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What went to the server.
    #[must_use]
    pub fn requests(&self) -> Vec<u8> {
        self.requests.lock().unwrap().clone()
    }

    /// What came back.
    #[must_use]
    pub fn replies(&self) -> Vec<u8> {
        self.replies.lock().unwrap().clone()
    }

    /// Forgets what passed until now.
    pub fn rewind(&self) {
        self.requests.lock().unwrap().clear();
        self.replies.lock().unwrap().clear();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, tape: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        tape.lock().unwrap().extend_from_slice(&buffer[..len]);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    // The other direction may have ended both already.
    to.shutdown(Shutdown::Write).ok();
}
