//! How fast streams are, beside socat through the same vsock device, and beside a flood; and what
//! idle ones cost.
//!
//! ```text
//! proxy FILES ROUNDS IDLE    run by `scripts/bench proxy`
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark: what goes wrong is to end it, and its result is printed"
)]

use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::daemon::Daemon;
use tests::image::{Compression, Image, Layer};
use tests::names::Names;
use tests::scene::Scene;
use tests::{free_port, tcp, wait_for};

/// Bytes of one measurement, and vsock ports of socat.
const LEN: usize = 32 << 20;
const SOCAT_OUT: u32 = 7777;
const SOCAT_IN: u32 = 7778;
const PATIENCE: Duration = Duration::from_secs(120);

/// Serves zeros, and fetches when it is told to.
const PROGRAM: &str = r#"
import socket, sys, threading, time
port, idle_port, length = map(int, sys.argv[1:])
zeros, held = bytes(1 << 20), []

def send(s):
    try:
        s.recv(1)
        for _ in range(length >> 20):
            s.sendall(zeros)
    except OSError:
        pass
    s.close()

def serve():
    listener = socket.create_server(("127.0.0.1", 8080), backlog=4096)
    while True:
        threading.Thread(target=send, args=(listener.accept()[0],)).start()

def fetch(address):
    s, buffer, got, began = socket.create_connection(address), bytearray(1 << 20), 0, time.monotonic()
    while n := s.recv_into(buffer):
        got += n
    assert got == length, got
    return got / (1 << 20) / (time.monotonic() - began)

def available():
    return next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable"))

def obey():
    listener = socket.create_server(("127.0.0.1", 8081))
    while True:
        s = listener.accept()[0]
        order = s.recv(100).decode().split()
        if order[0] == "idle":
            before, where = available(), (socket.gethostbyname("outside.test"), idle_port)
            held.extend(socket.create_connection(where) for _ in range(int(order[1])))
            time.sleep(2)
            s.sendall(b"%d" % (before - available()))
        else:
            where = {"transparent": ("outside.test", port), "forward": ("127.0.0.1", 5432), "socat": ("127.0.0.1", 7001)}
            s.sendall(b"%f" % fetch(where[order[0]]))
        s.close()

threading.Thread(target=serve).start()
threading.Thread(target=obey).start()
print("ready", flush=True)
"#;

/// Opens connections from 127.0.0.2, and another one for each that ends.
const FLOOD: &str = r#"
import asyncio, sys
async def hold():
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]), local_addr=("127.0.0.2", 0))
            await reader.read(1)
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(2)
async def main():
    await asyncio.gather(*(hold() for _ in range(2000)))
asyncio.run(main())
"#;

/// Resets what connects: what a flood costs this machine by itself.
const RESET: &str = r#"
import asyncio, socket, struct, sys
def reset(reader, writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
async def main():
    await (await asyncio.start_server(reset, "127.0.0.1", int(sys.argv[1]), backlog=4096)).serve_forever()
asyncio.run(main())
"#;

/// Holds what connects.
const HOLD: &str = r#"
import asyncio, sys
async def main():
    await (await asyncio.start_server(lambda r, w: r.read(1), "127.0.0.1", int(sys.argv[1]), backlog=4096)).serve_forever()
asyncio.run(main())
"#;

/// A program beside the enclave, until it is dropped.
struct Beside(Child);

impl Beside {
    fn start(command: &mut Command) -> Beside {
        Beside(command.spawn().unwrap())
    }

    fn python(program: &str, port: u16) -> Beside {
        let script = "ulimit -n $(ulimit -Hn); exec python3 -c \"$@\"";
        let mut shell = Command::new("sh");
        // It says much about resets, which are meant.
        shell.stderr(Stdio::null());
        Beside::start(shell.args(["-c", script, "sh", program, &port.to_string()]))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An enclave with everything in it, and the host's side of socat.
struct Bench {
    daemon: Daemon,
    ingress: SocketAddr,
    orders: SocketAddr,
    attestation: SocketAddr,
    vsock: PathBuf,
    _keep: (Scene, Names, Vec<Beside>),
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [files, rounds, idle, ..] = arguments.as_slice() else {
        // `cargo test --all-targets` runs it too, and has nothing to compare.
        return println!("usage: proxy FILES ROUNDS IDLE; see scripts/bench proxy");
    };
    let bench = Bench::start(Path::new(files));
    let rounds = rounds.parse().unwrap();
    let elsewhere = free_port();
    let _reset = Beside::python(RESET, elsewhere);
    let ordered = |what: &'static str| (what, bench.order(what));
    let mut results: Vec<(&str, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        add(&mut results, ordered("transparent"));
        add(&mut results, ordered("forward"));
        add(&mut results, ordered("socat"));
        add(&mut results, ("ingress", bench.fetch()));
        add(&mut results, ("socat, in", bench.fetch_by_socat()));
        for (what, port) in [
            ("ingress, flooded", bench.ingress.port()),
            ("ingress, attestation flooded", bench.attestation.port()),
            ("ingress, flood elsewhere", elsewhere),
        ] {
            let _flood = Beside::python(FLOOD, port);
            std::thread::sleep(Duration::from_secs(5));
            add(&mut results, (what, bench.fetch()));
        }
    }
    println!("MiB/s, median of {rounds} rounds of {} MiB:", LEN >> 20);
    for (what, mut rates) in results {
        rates.sort_by(f64::total_cmp);
        println!("{what:<30} {:>8.1}   {rates:.1?}", rates[rates.len() / 2]);
    }
    bench.idle(idle);
}

fn add(results: &mut Vec<(&'static str, Vec<f64>)>, (what, rate): (&'static str, f64)) {
    match results.iter_mut().find(|(known, _)| *known == what) {
        Some((_, rates)) => rates.push(rate),
        None => results.push((what, vec![rate])),
    }
}

impl Bench {
    fn start(files: &Path) -> Bench {
        let port = tcp::serve(|mut stream| {
            // A client that has gone is no matter.
            stream.write_all(&vec![0; LEN]).ok();
        });
        let idle = free_port();
        let mut keep = vec![Beside::python(HOLD, idle)];
        wait_for("the server", 30, || {
            TcpStream::connect(("127.0.0.1", idle)).is_ok()
        });
        let start = format!(
            "socat -b 65536 TCP-LISTEN:7001,fork,reuseaddr VSOCK-CONNECT:3:{SOCAT_OUT} &\n\
             socat -b 65536 VSOCK-LISTEN:{SOCAT_IN},fork TCP:127.0.0.1:8080 &\n\
             exec python3 /test/program.py {port} {idle} {LEN}"
        );
        let own = Layer::default()
            .dir("test", 0o755)
            .file("test/program.py", 0o644, 0, PROGRAM)
            .file("test/start", 0o644, 0, start);
        let mut image = Image::new(json!({ "Entrypoint": ["/bin/sh", "/test/start"] }));
        image
            .layers
            .push((std::fs::read(files).unwrap(), Compression::None));
        let scene = Scene::new(&image.layer(own, Compression::Gzip), "org/bench:v1");
        let names = Names::of_this_machine(&["outside.test"]);
        let daemon = scene.start_with(&names);
        // Privileged, for socat's sake: no other workload may open a vsock.
        let spec = format!(
            "[resources]\nmemory_mib = 1536\ncpus = 1\n[logs]\nforward = true\n[security]\nprivileged = true\n[network]\n\
             egress = ['outside.test:{port}', 'outside.test:{idle}']\n\
             forward = [{{ listen = '127.0.0.1:5432', to = 'outside.test:{port}' }}]\n\
             ingress = [{{ port = 8080, per_source = 100 }}, {{ port = 8081 }}]\nattestation = '127.0.0.1:0'\n"
        );
        let created = daemon.create("bench", &scene.reference, &spec);
        assert_eq!(created.code, 0, "{created:?}");
        wait_for("the workload", 120, || {
            daemon.logs("bench").contains("ready")
        });
        let vsock = std::fs::read_dir(daemon.folder().join("run"))
            .unwrap()
            .flatten();
        let mut vsock = vsock.map(|entry| entry.path().join("v"));
        let vsock = vsock.find(|path| path.exists()).unwrap();
        let listen = format!("UNIX-LISTEN:{}_{SOCAT_OUT},fork", vsock.display());
        let outside = format!("TCP:127.0.0.1:{port}");
        keep.push(Beside::start(
            Command::new("socat").args(["-b", "65536", &listen, &outside]),
        ));
        let record = daemon.show("bench");
        let of = |text: &serde_json::Value| text.as_str().unwrap().parse::<SocketAddr>().unwrap();
        Bench {
            ingress: of(&record["ingress"][0]["address"]),
            orders: of(&record["ingress"][1]["address"]),
            attestation: of(&record["attestation"]),
            vsock,
            daemon,
            _keep: (scene, names, keep),
        }
    }

    fn order(&self, order: &str) -> f64 {
        let mut stream = TcpStream::connect(self.orders).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(order.as_bytes()).unwrap();
        let mut answer = String::new();
        let answered = stream.read_to_string(&mut answer);
        let said = || self.daemon.logs("bench");
        answered.unwrap_or_else(|error| panic!("{order}: {error}\n{}", said()));
        let number = answer.parse();
        number.unwrap_or_else(|_| panic!("{order}: '{answer}'\n{}", said()))
    }

    fn fetch(&self) -> f64 {
        rate(TcpStream::connect(self.ingress).unwrap())
    }

    /// Without a socat of the host's: the reader speaks with the switch itself.
    fn fetch_by_socat(&self) -> f64 {
        let mut stream = UnixStream::connect(&self.vsock).unwrap();
        stream
            .write_all(format!("CONNECT {SOCAT_IN}\n").as_bytes())
            .unwrap();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
        }
        rate(stream)
    }

    /// What connections out cost that do nothing.
    fn idle(&self, count: &str) {
        let before = (self.host(), self.agent());
        let enclave = self.order(&format!("idle {count}"));
        let after = (self.host(), self.agent());
        let count: f64 = count.parse().unwrap();
        println!("{count} idle connections out, KiB each:");
        println!(
            "host-proxy, resident            {:.1}",
            (after.0 - before.0) / count
        );
        println!(
            "enclave-agent, resident         {:.1}",
            (after.1 - before.1) / count
        );
        println!("the enclave, with all sockets   {:.1}", enclave / count);
    }

    /// Resident, in KiB.
    fn host(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.pid()));
        number_after(&status.unwrap(), "VmRSS:")
    }

    fn agent(&self) -> f64 {
        number_after(
            &tcp::get(&self.attestation.to_string(), "/healthz"),
            "agent:",
        )
    }
}

fn number_after(text: &str, key: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// MiB each second, to the end.
fn rate(mut stream: impl Read + Write) -> f64 {
    stream.write_all(b"x").unwrap();
    let (mut buffer, mut got, began) = (vec![0; 1 << 20], 0, Instant::now());
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, LEN);
    (got >> 20) as f64 / began.elapsed().as_secs_f64()
}
