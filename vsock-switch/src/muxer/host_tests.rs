//! Guests and the host.

use super::fake::{Name, World};
use super::*;
use crate::connection::BUFFER;
use crate::packet::{Closed, Op};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

const PORT: u32 = 9000;

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

impl World {
    fn listen(&self, cid: u32) -> UnixListener {
        UnixListener::bind(crate::unix::path_of(&self.path(cid), PORT)).unwrap()
    }

    /// A connection of the guest with the host, from both ends.
    fn pair(&mut self, listener: &UnixListener) -> (Name, UnixStream) {
        let name = self.guest(16).connect(3, PORT);
        self.settle();
        let (stream, _) = listener.accept().unwrap();
        assert!(self.guest(16).socket(name).open);
        stream.set_nonblocking(true).unwrap();
        (name, stream)
    }

    /// A connection of the host with the guest, from both ends.
    fn dial(&mut self) -> (Name, UnixStream) {
        let mut stream = UnixStream::connect(self.path(16)).unwrap();
        stream.write_all(b"CONNECT 7\n").unwrap();
        stream.set_nonblocking(true).unwrap();
        self.settle();
        let name = *self.guest(16).sockets.last_key_value().unwrap().0;
        let line = format!("OK {}\n", name.2);
        assert_eq!(read(&mut stream), (line.into_bytes(), false));
        (name, stream)
    }
}

/// What is there to read, and whether it is the end.
fn read(stream: &mut UnixStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => (bytes, false),
        Err(error) => panic!("{error}"),
    }
}

/// A host that echoes each connection until its end.
fn echo(listener: UnixListener, connections: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let echo = |mut stream: UnixStream| {
            let mut sink = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                std::io::copy(&mut stream, &mut sink).unwrap();
                sink.shutdown(Shutdown::Write).unwrap();
            })
        };
        let accepted: Vec<_> = listener.incoming().take(connections).collect();
        let threads: Vec<_> = accepted
            .into_iter()
            .map(|stream| echo(stream.unwrap()))
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    })
}

#[test]
fn one_write_of_a_mebibyte_is_echoed_by_the_host_and_both_ends_half_close() {
    let mut world = World::new(&[16]);
    let host = echo(world.listen(16), 1);
    let name = world.guest(16).connect(3, PORT);
    world.guest(16).write(name, &pattern(1 << 20));
    world.guest(16).close(name, Closed::SEND);
    world.until(|world| world.guest(16).socket(name).peer_closed.send);
    assert!(world.guest(16).socket(name).received == pattern(1 << 20));
    host.join().unwrap();
    // The host closed its end for good meanwhile.
    world.until(|world| world.guest(16).socket(name).reset);
    world.assert_empty();
}

#[test]
fn a_thousand_connections_with_the_host_all_echo() {
    // Two descriptors each.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(8192).min(hard), hard).unwrap();
    let mut world = World::new(&[16]);
    let listener = world.listen(16);
    let mut pairs: Vec<_> = (0..1000).map(|_| world.pair(&listener)).collect();
    for (i, (name, _)) in pairs.iter().enumerate() {
        world.guest(16).write(*name, &i.to_le_bytes());
    }
    world.settle();
    for (i, (_, stream)) in pairs.iter_mut().enumerate() {
        let (bytes, is_end) = read(stream);
        assert_eq!((&bytes[..], is_end), (&i.to_le_bytes()[..], false));
        stream.write_all(&bytes).unwrap();
    }
    world.settle();
    for (i, (name, _)) in pairs.iter().enumerate() {
        assert_eq!(world.guest(16).socket(*name).received, i.to_le_bytes());
    }
    drop(pairs);
    world.assert_empty();
}

#[test]
fn ten_thousand_short_connections_of_the_host_leave_nothing() {
    let mut world = World::new(&[16]);
    for _ in 0..10_000 {
        let (name, mut stream) = world.dial();
        stream.write_all(b"ping").unwrap();
        world.settle();
        assert_eq!(read(&mut stream), (b"ping".to_vec(), false));
        drop(stream);
        world.settle();
        assert!(world.guest(16).socket(name).reset);
        world.guest(16).sockets.clear();
    }
    world.assert_empty();
}

#[test]
fn a_half_close_of_the_host_leaves_the_other_direction_open() {
    let mut world = World::new(&[16]);
    let (name, mut stream) = world.dial();
    stream.write_all(&pattern(5000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    world.guest(16).socket(name).echoes = false;
    world.settle();
    let socket = world.guest(16).socket(name);
    assert_eq!(socket.received, pattern(5000));
    assert_eq!((socket.peer_closed, socket.reset), (Closed::SEND, false));
    world.guest(16).write(name, b"the answer");
    world.guest(16).close(name, Closed::BOTH);
    world.settle();
    assert_eq!(read(&mut stream), (b"the answer".to_vec(), true));
    world.assert_empty();
}

#[test]
fn a_half_close_of_the_guest_leaves_the_other_direction_open() {
    let mut world = World::new(&[16]);
    let listener = world.listen(16);
    let (name, mut stream) = world.pair(&listener);
    world.guest(16).write(name, b"the question");
    world.guest(16).close(name, Closed::SEND);
    world.settle();
    assert_eq!(read(&mut stream), (b"the question".to_vec(), true));
    stream.write_all(b"the answer").unwrap();
    world.settle();
    assert_eq!(world.guest(16).socket(name).received, b"the answer");
    assert!(!world.guest(16).socket(name).reset);
    drop(stream);
    world.settle();
    assert_eq!(world.guest(16).socket(name).peer_closed, Closed::BOTH);
    world.assert_empty();
}

#[test]
fn a_guest_that_reads_no_more_ends_the_hosts_writing() {
    let mut world = World::new(&[16]);
    let listener = world.listen(16);
    let (name, mut stream) = world.pair(&listener);
    world.guest(16).close(name, Closed::RECEIVE);
    world.settle();
    let error = stream.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    world.guest(16).write(name, b"still here");
    world.settle();
    assert_eq!(read(&mut stream), (b"still here".to_vec(), false));
    drop(stream);
    world.assert_empty();
}

#[test]
fn what_the_host_wrote_before_it_closed_arrives_whole() {
    let mut world = World::new(&[16]);
    let (name, stream) = world.dial();
    world.guest(16).socket(name).reads = false;
    let writer = std::thread::spawn(move || {
        stream.set_nonblocking(false).unwrap();
        (&stream).write_all(&pattern(1 << 20)).unwrap();
    });
    // It does not fit into the guest's buffer: the guest reads piece by piece.
    let mut taken = 0;
    world.until(|world| {
        let socket = world.guest(16).socket(name);
        let more = socket.received.len() - taken;
        taken += more;
        socket.take(more);
        if more > 0 {
            world.guest(16).send(name, Op::CreditUpdate);
        }
        world.guest(16).socket(name).peer_closed == Closed::BOTH
    });
    writer.join().unwrap();
    assert!(world.guest(16).socket(name).received == pattern(1 << 20));
    world.assert_empty();
}

#[test]
fn what_the_guest_sent_before_its_end_reaches_a_slow_host() {
    let mut world = World::new(&[16]);
    let listener = world.listen(16);
    let (name, mut stream) = world.pair(&listener);
    world.guest(16).write(name, &pattern(1 << 20));
    world.settle();
    let waiting = world.guest(16).socket(name).unsent.len();
    let now = world.now;
    world.muxer.unplug(16, now);
    let mut bytes = Vec::new();
    world.until(|_| {
        let (more, is_end) = read(&mut stream);
        bytes.extend(more);
        is_end
    });
    assert!(waiting > 0 && bytes == pattern((1 << 20) - waiting));
    assert_eq!(world.muxer.members[&16].links.len(), 0);
}

#[test]
fn a_guest_that_asks_again_too_early_is_refused_and_the_host_loses_nothing() {
    let mut world = World::new(&[16]);
    let listener = world.listen(16);
    let (name, mut stream) = world.pair(&listener);
    world.guest(16).write(name, &pattern(1 << 20));
    world.settle();
    let sent = (1 << 20) - world.guest(16).socket(name).unsent.len();
    world.guest(16).send(name, Op::Reset);
    world.guest(16).socket(name).unsent.clear();
    world.guest(16).send(name, Op::Request);
    world.settle();
    assert!(world.guest(16).socket(name).reset);
    let mut bytes = Vec::new();
    world.until(|_| {
        let (more, is_end) = read(&mut stream);
        bytes.extend(more);
        is_end
    });
    assert!(bytes == pattern(sent));
    world.assert_empty();
}

#[test]
fn a_slow_host_is_waited_for_and_nothing_else_is() {
    let mut world = World::new(&[16, 17]);
    let listener = world.listen(16);
    let (slow, mut stream) = world.pair(&listener);
    let (other, mut quick) = world.pair(&listener);
    world.guest(16).write(slow, &pattern(1 << 20));
    world.settle();
    world.guest(16).write(other, b"quick");
    let sibling = world.guest(16).connect(17, 7);
    world.guest(16).write(sibling, b"sibling");
    world.settle();
    assert_eq!(read(&mut quick), (b"quick".to_vec(), false));
    assert_eq!(world.guest(16).socket(sibling).received, b"sibling");
    let mut bytes = Vec::new();
    world.until(|_| {
        bytes.extend(read(&mut stream).0);
        bytes.len() == 1 << 20
    });
    assert!(bytes == pattern(1 << 20));
}

#[test]
fn a_guest_that_exceeds_the_hosts_credit_is_reset_and_one_that_uses_it_up_is_not() {
    for (excess, is_reset) in [(0, false), (1, true)] {
        let mut world = World::new(&[16]);
        let listener = world.listen(16);
        let (name, mut stream) = world.pair(&listener);
        // Fills what the kernel holds; what the guest sends now stays in the switch.
        world.guest(16).write(name, &pattern(4 << 20));
        world.settle();
        let in_flight = 4 * 1024 * 1024 - world.guest(16).socket(name).unsent.len();
        world.guest(16).socket(name).unsent.clear();
        let header = world.guest(16).header(name, Op::Data);
        if excess > 0 {
            world.guest(16).send_raw(header, &vec![0; excess]);
        }
        world.settle();
        assert_eq!(world.guest(16).socket(name).reset, is_reset);
        let (bytes, is_end) = read(&mut stream);
        assert_eq!(is_end, is_reset);
        assert!(bytes.len() + BUFFER as usize >= in_flight);
    }
}

#[test]
fn a_guest_that_refuses_closes_the_stream_without_a_line() {
    let mut world = World::new(&[16]);
    for line in [
        "CONNECT 8\n",
        "CONNECT\n",
        "CONNECT x\n",
        "GET /\n",
        "CONNECT 4294967296\n",
    ] {
        let mut stream = UnixStream::connect(world.path(16)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        world.settle();
        assert_eq!(read(&mut stream), (Vec::new(), true), "{line:?}");
    }
    world.assert_empty();
}

#[test]
fn a_line_may_come_in_pieces_and_not_without_end() {
    let mut world = World::new(&[16]);
    let mut stream = UnixStream::connect(world.path(16)).unwrap();
    stream.set_nonblocking(true).unwrap();
    for piece in ["CONNECT", " ", "7\nhello"] {
        world.settle();
        stream.write_all(piece.as_bytes()).unwrap();
    }
    world.settle();
    let (bytes, _) = read(&mut stream);
    assert_eq!(bytes, b"OK 1073741825\nhello");
    let mut long = UnixStream::connect(world.path(16)).unwrap();
    long.write_all(&[b'x'; 33]).unwrap();
    world.settle();
    assert_eq!(long.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_host_that_gives_up_asking_leaves_nothing() {
    let mut world = World::new(&[16]);
    world.guest(16).wires.borrow_mut().buffers = 0;
    let mut stream = UnixStream::connect(world.path(16)).unwrap();
    stream.write_all(b"CONNECT 7\n").unwrap();
    world.settle();
    assert_eq!(world.muxer.members[&16].links.len(), 1);
    drop(stream);
    world.settle();
    world.guest(16).wires.borrow_mut().buffers = 128;
    world.assert_empty();
    assert_eq!(world.guest(16).sockets.len(), 0, "it never heard of it");
}

#[test]
fn a_guest_that_does_not_agree_to_a_close_is_reset_after_ten_seconds() {
    let mut world = World::new(&[16]);
    let (name, stream) = world.dial();
    world.guest(16).refills = false;
    world.guest(16).wires.borrow_mut().buffers = 1;
    world.guest(16).sockets.clear();
    drop(stream);
    // The guest takes the shutdown, and its answer is lost.
    world.settle();
    world.guest(16).wires.borrow_mut().sent.clear();
    assert!(name.0 == 7);
    world.now += Duration::from_secs(10);
    world.guest(16).wires.borrow_mut().buffers = 128;
    world.assert_empty();
}

#[test]
fn a_detached_guest_closes_the_hosts_streams() {
    let mut world = World::new(&[16]);
    let listener = world.listen(16);
    let (_, mut stream) = world.pair(&listener);
    let now = world.now;
    world.muxer.detach(16, now);
    assert_eq!(read(&mut stream), (Vec::new(), true));
    let refused = UnixStream::connect(world.path(16)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(world.muxer.tokens.is_empty());
}
