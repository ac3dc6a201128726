//! Many connections at once, and one after the other.

use super::{image, said};
use std::process::{Child, Command};
use tests::programs::run;
use tests::{free_port, wait_for};

/// Fewer if this machine's hard limit of descriptors is low: the host needs two for each.
const OPEN: usize = 10_000;
const SHORT: usize = 3_000;

/// Opens all, then speaks on each; then opens and ends some more. Says how many got their answer.
const PROGRAM: &str = r#"
import resource, socket, sys
port, many, short = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (many + 100, many + 100))
where = socket.getaddrinfo("many.test", port, socket.AF_INET, socket.SOCK_STREAM)[0][4]

def answer(s):
    s.sendall(b"x")
    got = b""
    while piece := s.recv(100):
        got += piece
    s.close()
    return got == b"from outside\n"

held = [socket.create_connection(where, 60) for _ in range(many)]
print("open:", len(held), flush=True)
print("held:", sum(map(answer, held)), flush=True)
print("short:", sum(answer(socket.create_connection(where, 60)) for _ in range(short)), flush=True)
"#;

/// Answers every connection's first byte, and counts them in a file. A process of its own, since it
/// needs ten thousand descriptors.
const SERVER: &str = r#"
import asyncio, sys
count = 0
async def answer(reader, writer):
    global count
    await reader.read(1)
    count += 1
    writer.write(b"from outside\n")
    writer.close()
    open("count", "w").write(str(count))
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()
asyncio.run(main())
"#;

struct Server(Child);

impl Server {
    fn start(folder: &std::path::Path, port: u16) -> Server {
        let script = "ulimit -n $(ulimit -Hn); exec python3 -c \"$1\" $2";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", SERVER, &port.to_string()]);
        let server = Server(shell.current_dir(folder).spawn().unwrap());
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_for("the server", 30, listens);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[cfg_attr(not(programs), ignore = "needs the programs: run scripts/test")]
fn ten_thousand_connections_are_open_at_once_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = Server::start(folder.path(), port);
    let limit = run(Command::new("sh").args(["-c", "ulimit -Hn"]));
    let limit: usize = limit.trim().parse().unwrap_or(usize::MAX);
    let open = OPEN.min((limit - 500) / 2);
    let start = format!("python3 many.py {port} {open} {SHORT}");
    let image = image(&[("many.py", PROGRAM)], &start);
    let said = said(&image, &["many.test"], &[format!("many.test:{port}")], 600);
    for line in [
        format!("open: {open}\n"),
        format!("held: {open}\n"),
        format!("short: {SHORT}\n"),
    ] {
        assert!(said.contains(&line), "{said}");
    }
    // The first connection was ours: it saw whether the server listens.
    let count = std::fs::read_to_string(folder.path().join("count")).unwrap();
    assert_eq!(count, (1 + open + SHORT).to_string());
}
