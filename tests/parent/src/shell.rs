//! Commands of this machine that run in the guest, over its vsock port 1024.
//!
//! The host sends one byte (0: without input, 1: with input, 2: on a terminal), a little-endian
//! length and the command for `bash -c`; what follows is its standard input. The guest sends frames: a byte
//! (1 standard output, 2 standard error, 3 exit code), a length, and so many bytes.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where the guest listens.
pub const PORT: u32 = 1024;
const MAX_FRAME: usize = 64 << 10;
const MAX_COMMAND: usize = 1 << 20;

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub code: u8,
    pub stdout: String,
    pub stderr: String,
}

/// A piece of what a command says.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit(u8),
}

/// What a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Nothing,
    /// What follows the request.
    Stream,
    /// What follows the request, from a terminal that it has for itself.
    Terminal,
}

/// What is to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub command: String,
    pub input: Input,
}

impl Request {
    /// # Errors
    /// It cannot be sent.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.command.len()).map_err(io::Error::other)?;
        let input = match self.input {
            Input::Nothing => 0,
            Input::Stream => 1,
            Input::Terminal => 2,
        };
        let mut bytes = vec![input];
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(self.command.as_bytes());
        to.write_all(&bytes)
    }

    /// # Errors
    /// The connection ends, or what comes is no command.
    pub fn read(from: &mut impl Read) -> io::Result<Request> {
        let mut input = [0];
        from.read_exact(&mut input)?;
        let command = bytes(from, MAX_COMMAND)?;
        Ok(Request {
            command: String::from_utf8(command).map_err(io::Error::other)?,
            input: match input[0] {
                0 => Input::Nothing,
                1 => Input::Stream,
                _ => Input::Terminal,
            },
        })
    }
}

impl Piece {
    /// # Errors
    /// It cannot be sent.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, bytes) = match self {
            Piece::Stdout(bytes) => (1, bytes.as_slice()),
            Piece::Stderr(bytes) => (2, bytes.as_slice()),
            Piece::Exit(code) => (3, std::slice::from_ref(code)),
        };
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut frame = vec![kind];
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(bytes);
        to.write_all(&frame)
    }

    /// # Errors
    /// The connection ends, or what comes is no frame.
    pub fn read(from: &mut impl Read) -> io::Result<Piece> {
        let mut kind = [0];
        from.read_exact(&mut kind)?;
        let bytes = bytes(from, MAX_FRAME)?;
        match (kind[0], bytes.as_slice()) {
            (1, _) => Ok(Piece::Stdout(bytes)),
            (2, _) => Ok(Piece::Stderr(bytes)),
            (3, [code]) => Ok(Piece::Exit(*code)),
            _ => Err(io::Error::other("the guest sent an unknown frame")),
        }
    }
}

fn bytes(from: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        return Err(io::Error::other("a frame is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Connects to a port of the guest, by the unix socket that the switch made for it.
///
/// # Errors
/// Nothing listens in the guest, or the machine is gone.
pub fn connect(host: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Runs a command, on this input if there is any, and collects what it says.
///
/// # Errors
/// The connection ends before the command does, or nothing is said for so long.
pub fn run(
    host: &Path,
    command: &str,
    input: Option<&[u8]>,
    limit: Duration,
) -> io::Result<Output> {
    let mut stream = connect(host, PORT)?;
    stream.set_read_timeout(Some(limit))?;
    let request = Request {
        command: command.to_owned(),
        input: match input {
            Some(_) => Input::Stream,
            None => Input::Nothing,
        },
    };
    request.write(&mut stream)?;
    if let Some(input) = input {
        stream.write_all(input)?;
        stream.shutdown(Shutdown::Write)?;
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match Piece::read(&mut stream)? {
            Piece::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Piece::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            Piece::Exit(code) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Ok(Output {
                    code,
                    stdout: text(&stdout),
                    stderr: text(&stderr),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut line = Vec::new();
        let request = Request {
            command: "echo 'ä'".to_owned(),
            input: Input::Terminal,
        };
        request.write(&mut line).unwrap();
        assert_eq!(Request::read(&mut line.as_slice()).unwrap(), request);
        for piece in [
            Piece::Stdout(vec![1; 300]),
            Piece::Stderr(vec![]),
            Piece::Exit(7),
        ] {
            let mut line = Vec::new();
            piece.write(&mut line).unwrap();
            assert_eq!(Piece::read(&mut line.as_slice()).unwrap(), piece);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            Piece::read(&mut bytes.as_slice()).ok();
            Request::read(&mut bytes.as_slice()).ok();
        }
    }
}
