//! Unix sockets without waiting: connecting, and the line that says where a stream wants to.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// `CONNECT`, a port and a line feed.
const MAX_LINE: usize = 32;

/// The socket of one port of the host.
pub(crate) fn path_of(path: &Path, port: u32) -> PathBuf {
    let mut text = OsString::from(path);
    text.push(format!("_{port}"));
    text.into()
}

/// Connects, and never waits: a socket whose backlog is full refuses.
pub(crate) fn dial(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

/// Reads the line `CONNECT <port>`, and nothing after it. None if it is not complete yet; `line`
/// holds what there is.
pub(crate) fn port_asked(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<Option<u32>> {
    let invalid = || io::Error::new(ErrorKind::InvalidData, "the line is not CONNECT and a port");
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if line.len() > MAX_LINE {
            return Err(invalid());
        }
    }
    let text = std::str::from_utf8(line).map_err(|_| invalid())?;
    let port = text.strip_prefix("CONNECT ").ok_or_else(invalid)?;
    port.trim_end_matches('\r')
        .parse()
        .map(Some)
        .map_err(|_| invalid())
}
