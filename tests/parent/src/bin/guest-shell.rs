//! In the guest: runs one command for whoever is at the other end of standard input, which is a
//! socket (systemd starts one of these for each connection). `guest-shell forward ADDRESS PORT`
//! shows a service of the host at an address of the guest.

#![allow(
    clippy::indexing_slicing,
    reason = "reads give lengths of their buffers"
)]

use parent::forward;
use parent::shell::{Input, Piece, Request};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What is left in the pipes when the command has ended; what its background processes hold open
/// does not count.
const REST: Duration = Duration::from_millis(500);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, address, port] = arguments.as_slice()
        && verb == "forward"
    {
        return forward::serve(address, port.parse().map_err(io::Error::other)?);
    }
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let request = Request::read(&mut socket)?;
    let mut child = start(&request)?;
    let writer = Arc::new(Mutex::new(socket.try_clone()?));
    let mut readers = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let writer = Arc::clone(&writer);
        readers.push(thread::spawn(move || pump(stdout, &writer, Piece::Stdout)));
    }
    if let Some(stderr) = child.stderr.take() {
        let writer = Arc::clone(&writer);
        readers.push(thread::spawn(move || pump(stderr, &writer, Piece::Stderr)));
    }
    if let Some(mut stdin) = child.stdin.take() {
        // Ends with the connection, or with this process.
        thread::spawn(move || io::copy(&mut socket, &mut stdin).ok());
    }
    let status = child.wait()?;
    let give_up = Instant::now() + REST;
    while readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(5));
    }
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    Piece::Exit(code).write(&mut *writer)
}

fn start(request: &Request) -> io::Result<Child> {
    let mut command = if request.input == Input::Terminal {
        let mut command = Command::new("script");
        command.args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &request.command,
            "/dev/null",
        ]);
        command
    } else {
        let mut command = Command::new("bash");
        command.args(["-c", &request.command]);
        command
    };
    command
        .env("HOME", "/root")
        .env("TERM", "xterm")
        .current_dir("/root")
        .stdin(if request.input == Input::Nothing {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn()
}

fn pump(mut from: impl Read, to: &Mutex<File>, piece: fn(Vec<u8>) -> Piece) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(length) = from.read(&mut bytes)
        && length > 0
    {
        let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
        if piece(bytes[..length].to_vec()).write(&mut *to).is_err() {
            return;
        }
    }
}
