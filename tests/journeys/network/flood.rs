//! A stranger who takes what connections they can get.

use crate::deploy::web_image;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command};
use tempfile::TempDir;
use tests::scene::Scene;
use tests::tcp::connect_from;
use tests::wait_for;

const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// More than the enclave takes of all sources together.
const MANY: usize = 2000;

/// Opens connections, says nothing, opens another one for each that ends, and counts those in a
/// file. A process of its own, since it needs thousands of descriptors.
const FLOOD: &str = r#"
import asyncio, sys
source, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ended = 0
async def hold():
    global ended
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            await reader.read(1)
            writer.close()
        except OSError:
            pass
        ended += 1
        await asyncio.sleep(1)
async def main():
    held = [asyncio.create_task(hold()) for _ in range(count)]
    while True:
        await asyncio.sleep(0.2)
        open("ended", "w").write(str(ended))
asyncio.run(main())
"#;

struct Flood {
    process: Child,
    folder: TempDir,
}

impl Flood {
    fn start(address: SocketAddr) -> Flood {
        let folder = tempfile::tempdir().unwrap();
        let script = "ulimit -n $(ulimit -Hn); exec python3 -c \"$@\"";
        let arguments = [
            STRANGER.to_string(),
            address.port().to_string(),
            MANY.to_string(),
        ];
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", FLOOD]).args(arguments);
        let process = shell.current_dir(folder.path()).spawn().unwrap();
        Flood { process, folder }
    }

    /// How many of its connections were ended for it.
    fn turned_away(&self) -> usize {
        let count = std::fs::read_to_string(self.folder.path().join("ended"));
        count.ok().and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What a GET from the other client's address gets, head and body.
fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = connect_from(CLIENT, address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn is_answered(address: SocketAddr, path: &str, times: usize) {
    for n in 0..times {
        let answer = get(address, path);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(" 200 OK\r\n"), "{n}: {text}");
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn one_source_of_thousands_of_connections_leaves_other_clients_theirs() {
    let scene = Scene::new(&web_image(), "org/web:v1");
    let daemon = scene.start(&[]);
    let spec = "[resources]\nmemory_mib = 256\ncpus = 1\n\
        [network]\nattestation = '127.0.0.1:0'\ningress = [{ port = 8080, per_source = 100 }]\n";
    let created = daemon.create("web", &scene.reference, spec);
    assert_eq!(created.code, 0, "{created:?}");
    let record = daemon.show("web");
    let of = |text: &serde_json::Value| text.as_str().unwrap().parse::<SocketAddr>().unwrap();
    let web = of(&record["ingress"][0]["address"]);
    let attestation = of(&record["attestation"]);
    is_answered(web, "/", 1);
    for (address, path, times) in [(web, "/", 100), (attestation, "/healthz", 20)] {
        let flood = Flood::start(address);
        wait_for("the flood", 60, || flood.turned_away() > MANY);
        is_answered(address, path, times);
    }
}
