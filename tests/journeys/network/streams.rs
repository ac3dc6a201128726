//! How streams end: in order at both ends, or by a reset at both.

use super::{DONE, image, start};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use tests::daemon::Daemon;
use tests::tcp::{connect_from, reset, serve};
use tests::wait_for;

/// Says how each of its connections ends. Deaf to SIGTERM, so that a stop takes its time.
const PROGRAM: &str = r#"
import signal, socket, struct, sys, threading, time

signal.signal(signal.SIGTERM, lambda *_: print("stopping", flush=True))

def watch(s, what):
    try:
        while piece := s.recv(100):
            s.sendall(piece)
        print(what, "ended", flush=True)
    except ConnectionResetError:
        print(what, "was reset", flush=True)
    s.close()

def serve(port):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        s, _ = listener.accept()
        if port == 8081:
            header = s.recv(28, socket.MSG_WAITALL)
            _, version, family, length, a, b, p, q = struct.unpack("!12sBBH4s4sHH", header)
            print("proxy:", version, family, length, socket.inet_ntoa(a), p, socket.inet_ntoa(b), q, flush=True)
        threading.Thread(target=watch, args=(s, f"ingress {port}")).start()

def dial(what, word):
    s = socket.create_connection(("outside.test", int(sys.argv[1])) if what == "egress" else ("127.0.0.1", 5432))
    s.sendall(word.encode())
    return s

for port in (8080, 8081):
    threading.Thread(target=serve, args=(port,)).start()
for what in ("egress", "forward"):
    for word in ("end", "cut"):
        watch(dial(what, word), f"{what} {word}")
threading.Thread(target=watch, args=(dial("egress", "hold"), "held")).start()
print("that was all", flush=True)
while True:
    time.sleep(1)
"#;

/// Outside: ends, cuts or holds a connection as it is asked. Gives how held ones ended.
fn outside() -> (u16, Receiver<ErrorKind>) {
    let (sender, held) = channel();
    let sender = Mutex::new(sender);
    let port = serve(move |mut stream| {
        let mut word = [0; 3];
        stream.read_exact(&mut word).unwrap();
        match &word {
            b"cut" => reset(stream),
            b"hol" => {
                let ended = stream.read_to_end(&mut Vec::new());
                let sender = sender.lock().unwrap().clone();
                // The journey may have failed before.
                sender.send(ended.unwrap_err().kind()).ok();
            }
            _ => {}
        }
    });
    (port, held)
}

/// Sends a byte, and gets it back.
fn echo(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn says(daemon: &Daemon, line: &str) {
    wait_for(line, 60, || {
        daemon.logs("net").lines().any(|said| said == line)
    });
}

fn address(daemon: &Daemon, number: usize) -> SocketAddr {
    let text = daemon.show("net")["ingress"][number]["address"].clone();
    text.as_str().unwrap().parse().unwrap()
}

#[test]
#[cfg_attr(not(programs), ignore = "needs the programs: run scripts/test")]
fn a_stream_ends_at_one_end_as_it_did_at_the_other() {
    let (port, held) = outside();
    let program = format!("exec python3 streams.py {port}");
    let image = image(&[("streams.py", PROGRAM)], &program);
    let (scene, _names, daemon) = start(&image, &["outside.test"]);
    let spec = format!(
        "[resources]\nmemory_mib = 1536\ncpus = 1\n[logs]\nforward = true\n[network]\n\
         egress = ['outside.test:{port}']\n\
         forward = [{{ listen = '127.0.0.1:5432', to = 'outside.test:{port}' }}]\n\
         ingress = [{{ port = 8080 }}, {{ port = 8081, proxy_protocol = true, idle_seconds = 2 }}]\n"
    );
    let created = daemon.create("net", &scene.reference, &spec);
    assert_eq!(created.code, 0, "{created:?}");
    wait_for("the workload", 120, || daemon.logs("net").contains(DONE));
    let said = daemon.logs("net");
    for line in [
        "egress end ended",
        "egress cut was reset",
        "forward end ended",
        "forward cut was reset",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    clients_end_as_they_like(&daemon);
    an_idle_client_is_reset_and_was_announced(&daemon);
    a_stop_refuses_clients_and_leaves_those_it_has(&daemon);
    assert_eq!(held.recv().unwrap(), ErrorKind::ConnectionReset);
}

fn clients_end_as_they_like(daemon: &Daemon) {
    let mut client = TcpStream::connect(address(daemon, 0)).unwrap();
    echo(&mut client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    says(daemon, "ingress 8080 ended");
    let mut client = TcpStream::connect(address(daemon, 0)).unwrap();
    echo(&mut client);
    reset(client);
    says(daemon, "ingress 8080 was reset");
}

fn an_idle_client_is_reset_and_was_announced(daemon: &Daemon) {
    let to = address(daemon, 1);
    let mut client = connect_from(Ipv4Addr::new(127, 0, 0, 9), to);
    let from = client.local_addr().unwrap();
    echo(&mut client);
    let (source, own) = (from.port(), to.port());
    says(
        daemon,
        &format!("proxy: 33 17 12 127.0.0.9 {source} 127.0.0.1 {own}"),
    );
    is_reset(&mut client);
    says(daemon, "ingress 8081 was reset");
}

fn a_stop_refuses_clients_and_leaves_those_it_has(daemon: &Daemon) {
    let to = address(daemon, 0);
    let mut client = TcpStream::connect(to).unwrap();
    echo(&mut client);
    std::thread::scope(|scope| {
        let terminated = scope.spawn(|| daemon.ctl(&["terminate", "net"], ""));
        says(daemon, "stopping");
        let refused = TcpStream::connect(to).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        echo(&mut client);
        is_reset(&mut client);
        assert_eq!(terminated.join().unwrap().code, 0);
    });
}

fn is_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
