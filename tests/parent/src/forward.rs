//! A service of the host, seen in the guest: TCP in the guest, vsock to the host, TCP again.

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, VsockAddr};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;

/// `VMADDR_CID_HOST` of linux/vm_sockets.h.
const HOST: u32 = 2;

/// In the guest: listens at an address, and connects each connection to a port of the host. Tells
/// systemd when it listens.
///
/// # Errors
/// Something else listens there.
pub fn serve(address: &str, port: u32) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", path)?;
    }
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            if let Ok(host) = connect(port) {
                both_ways(stream.into(), host);
            }
        });
    }
    Ok(())
}

fn connect(port: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    socket::connect(fd.as_raw_fd(), &VsockAddr::new(HOST, port))?;
    Ok(fd)
}

/// Carries bytes between two sockets until both directions have ended.
pub fn both_ways(one: OwnedFd, other: OwnedFd) {
    let (Ok(one_too), Ok(other_too)) = (one.try_clone(), other.try_clone()) else {
        return;
    };
    let back = thread::spawn(move || one_way(other_too, one_too));
    one_way(one, other);
    // A panic there would have been an end, too.
    back.join().ok();
}

/// The end of one side's bytes becomes the end of the other's; a side that is gone ends both.
fn one_way(from: OwnedFd, to: OwnedFd) {
    let (mut from, mut to) = (File::from(from), File::from(to));
    let mut bytes = vec![0; 64 << 10];
    let ended = loop {
        match from.read(&mut bytes) {
            Ok(0) => break Shutdown::Write,
            Ok(length) if to.write_all(&bytes[..length]).is_ok() => {}
            _ => break Shutdown::Both,
        }
    };
    // Which kind of socket it is does not matter to shutdown(2); one that is gone needs none.
    UnixStream::from(OwnedFd::from(to)).shutdown(ended).ok();
    if ended == Shutdown::Both {
        UnixStream::from(OwnedFd::from(from)).shutdown(ended).ok();
    }
}
