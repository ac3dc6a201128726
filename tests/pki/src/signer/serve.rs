//! The signer's side of the socket. Both ways: a little-endian 32-bit length, and that many bytes;
//! a reply of length 0 refuses. One connection per virtual machine, any number of documents on it,
//! each answered before the next is read.

use super::Signer;
use attestation::document::MAX_LEN;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tracing::warn;

/// Virtual machines at a time; further connections are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a frame may take that has begun. A connection on which nothing begins may stay forever.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to accept while the system has no descriptors left.
const BACK_OFF: Duration = Duration::from_millis(100);

impl Signer {
    /// Answers what connects, with a thread for each connection, until the process ends. What is
    /// refused, and why a connection is closed, is logged.
    pub fn serve(&self, listener: UnixListener) -> ! {
        // Each thread holds one of these for as long as it lives.
        let slots = Arc::new(());
        thread::scope(|scope| {
            loop {
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        thread::sleep(BACK_OFF);
                        continue;
                    }
                };
                if Arc::strong_count(&slots) > MAX_CONNECTIONS {
                    warn!("{MAX_CONNECTIONS} connections are open; closing another");
                    continue;
                }
                let slot = Arc::clone(&slots);
                let answer = move || {
                    if let Err(error) = self.answer(stream) {
                        warn!(%error, "a connection is closed");
                    }
                    drop(slot);
                };
                if let Err(error) = thread::Builder::new().spawn_scoped(scope, answer) {
                    warn!(%error, "cannot start a thread for a connection");
                }
            }
        })
    }

    fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(FRAME_TIMEOUT))?;
        while let Some(document) = read_frame(&mut stream)? {
            match self.sign(&document) {
                Ok(signed) => write_frame(&mut stream, &signed)?,
                Err(error) => {
                    warn!(%error, "a document is refused");
                    write_frame(&mut stream, &[])?;
                }
            }
        }
        Ok(())
    }
}

/// `None` if the connection ends between frames.
fn read_frame(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    stream.set_read_timeout(None)?;
    let mut len = [0; 4];
    let [first, rest @ ..] = &mut len;
    if stream.read(std::slice::from_mut(first))? == 0 {
        return Ok(None);
    }
    stream.set_read_timeout(Some(FRAME_TIMEOUT))?;
    stream.read_exact(rest)?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_LEN {
        let message = format!("a document of {len} bytes is longer than {MAX_LEN}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut document = vec![0; len];
    stream.read_exact(&mut document)?;
    Ok(Some(document))
}

fn write_frame(stream: &mut UnixStream, document: &[u8]) -> io::Result<()> {
    let len = u32::try_from(document.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_le_bytes(), document].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Plan;
    use attestation::emulated::{read_emulated, read_unsigned};
    use std::path::PathBuf;
    use tempfile::TempDir;

    /// A signer that serves until the test's process ends.
    struct Served {
        directory: TempDir,
    }

    impl Served {
        fn start() -> Served {
            let served = Served {
                directory: tempfile::tempdir().unwrap(),
            };
            let signer = Signer::open(served.directory.path()).unwrap();
            let listener = UnixListener::bind(served.socket()).unwrap();
            thread::spawn(move || signer.serve(listener));
            served
        }

        fn socket(&self) -> PathBuf {
            self.directory.path().join("socket")
        }

        fn connect(&self) -> UnixStream {
            UnixStream::connect(self.socket()).unwrap()
        }
    }

    fn unsigned() -> Vec<u8> {
        Plan::unsigned().mint().document
    }

    /// `None` if the signer closed the connection.
    fn read_reply(stream: &mut UnixStream) -> Option<Vec<u8>> {
        let mut len = [0; 4];
        match stream.read_exact(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
            read => read.unwrap(),
        }
        let mut reply = vec![0; u32::from_le_bytes(len) as usize];
        stream.read_exact(&mut reply).unwrap();
        Some(reply)
    }

    fn ask(stream: &mut UnixStream, document: &[u8]) -> Option<Vec<u8>> {
        write_frame(stream, document).unwrap();
        read_reply(stream)
    }

    #[track_caller]
    fn assert_signs(stream: &mut UnixStream) {
        let reply = ask(stream, &unsigned()).unwrap();
        assert_eq!(
            read_emulated(&reply).unwrap(),
            read_unsigned(&unsigned()).unwrap()
        );
        assert!(read_unsigned(&reply).is_err(), "it is signed");
    }

    #[test]
    fn signs_any_number_of_documents_on_two_connections_at_once() {
        let served = Served::start();
        let (mut first, mut second) = (served.connect(), served.connect());
        for _ in 0..3 {
            // Both are asked before either is heard.
            write_frame(&mut first, &unsigned()).unwrap();
            write_frame(&mut second, &unsigned()).unwrap();
            let replies = [&mut second, &mut first].map(|stream| read_reply(stream).unwrap());
            for reply in replies {
                assert!(read_emulated(&reply).is_ok());
            }
        }
    }

    #[test]
    fn refuses_garbage_and_goes_on() {
        let served = Served::start();
        let mut stream = served.connect();
        let longest = vec![0x84; MAX_LEN];
        for garbage in [b"".as_slice(), b"garbage", &longest] {
            assert_eq!(ask(&mut stream, garbage), Some(vec![]));
        }
        assert_signs(&mut stream);
    }

    #[test]
    fn closes_a_connection_that_announces_too_long_a_document() {
        let served = Served::start();
        let too_long = u32::try_from(MAX_LEN).unwrap() + 1;
        for len in [too_long, u32::MAX] {
            let mut stream = served.connect();
            stream.write_all(&len.to_le_bytes()).unwrap();
            assert_eq!(read_reply(&mut stream), None);
        }
        assert_signs(&mut served.connect());
    }

    #[test]
    fn closes_a_connection_that_ends_within_a_frame() {
        let served = Served::start();
        let frame = [&100_u32.to_le_bytes()[..], &[0; 10]].concat();
        for end in 0..frame.len() {
            let mut stream = served.connect();
            stream.write_all(&frame[..end]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(read_reply(&mut stream), None);
        }
        assert_signs(&mut served.connect());
    }

    #[test]
    fn serves_64_connections_and_not_65() {
        let served = Served::start();
        let mut streams: Vec<UnixStream> = (0..64).map(|_| served.connect()).collect();
        let mut excess = served.connect();
        assert_eq!(read_reply(&mut excess), None);
        streams.iter_mut().for_each(assert_signs);
    }
}
