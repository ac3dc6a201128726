//! The guide's example of attested TLS, as it stands in the guide.

use super::Enclave;
use std::process::{Child, Command, Stdio};
use tests::daemon::{CommandOutput, exchange};
use tests::programs::{ours, run};
use tests::{free_port, wait_for};

const GUIDE: &str = include_str!("../../../docs/guides/attested-tls.md");

/// Between client and enclave: a key of its own, the enclave's documents, and its own answers.
const RELAY: &str = r#"
import http.server, ssl, sys, urllib.request
anyone = ssl._create_unverified_context()
class Relay(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from the relay\n"
        if self.path.startswith("/.well-known/"):
            body = urllib.request.urlopen(sys.argv[2] + self.path, context=anyone).read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Relay)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("relay.pem", "relay.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
#[cfg_attr(not(programs), ignore = "needs the programs: run scripts/test")]
fn a_connection_ends_in_the_verified_enclave_or_fails() {
    let spec = file("enclave.toml").replace("0.0.0.0:8443", "127.0.0.1:0");
    let spec = spec.replace("[network]\n", "[network]\nattestation = '127.0.0.1:0'\n");
    let spec = format!("{spec}[resources]\nmemory_mib = 512\ncpus = 2\n[logs]\nforward = true\n");
    let enclave = Enclave::start(&file("serve.py"), &spec);
    std::fs::write(enclave.path("client.sh"), file("client.sh")).unwrap();
    let record = enclave.daemon.show("app");
    let address = record["ingress"][0]["address"].as_str().unwrap();
    let direct = format!("https://{address}");
    wait_for("the service", 60, || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--insecure", &direct]);
        exchange(&mut curl, "").code == 0
    });

    let trusted = client(&enclave, &direct);
    assert_eq!(trusted.code, 0, "{trusted:?}");
    assert_eq!(trusted.stdout, "hello from the enclave\n");

    let relay = Relay::before(&enclave, &direct);
    let relayed = client(&enclave, &relay.url);
    // CURLE_SSL_PINNEDPUBKEYNOTMATCH
    assert_eq!((relayed.code, relayed.stdout.as_str()), (90, ""));
    // The document itself was genuine: only the key gave the relay away.
    let verdict = std::fs::read_to_string(enclave.path("verdict.json")).unwrap();
    assert!(verdict.contains(r#""verdict": "trusted""#), "{verdict}");

    let url = format!("http://{}", enclave.endpoint());
    let endpoint = enclave.attest(&["fetch", &url, "--origin", "workload"]);
    assert_eq!(endpoint.code, 1, "{endpoint:?}");
    a_nonce_is_nothing_else(&direct);
}

/// A client cannot slip fields of its own into the request for the document.
fn a_nonce_is_nothing_else(direct: &str) {
    for nonce in ["00&user_data=00", "00&public_key=00", "zz"] {
        let url = format!("{direct}/.well-known/attestation?nonce={nonce}");
        let mut curl = Command::new("curl");
        curl.args(["-s", "--insecure", "-o", "/dev/null", "-w", "%{http_code}"]);
        assert_eq!(exchange(curl.arg(url), "").stdout, "400", "{nonce}");
    }
}

/// A file of the guide: the fenced block that names it in its first line.
fn file(name: &str) -> String {
    let first = format!("\n# {name}");
    let start = GUIDE.find(&first).unwrap_or_else(|| panic!("no {name}")) + 1;
    let block = &GUIDE[start..];
    block[..block.find("```").unwrap()].to_owned()
}

/// The guide's client.
fn client(enclave: &Enclave, url: &str) -> CommandOutput {
    let programs = ours("attest");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", programs.parent().unwrap().display());
    let mut client = Command::new("sh");
    client
        .args(["client.sh", url, "--measurements", "built.json"])
        // In AWS's place, since this is QEMU.
        .args(["--root", "root.pem"])
        .env("PATH", path)
        .current_dir(enclave.scene.folder());
    exchange(&mut client, "")
}

struct Relay {
    process: Child,
    url: String,
}

impl Relay {
    fn before(enclave: &Enclave, direct: &str) -> Relay {
        let folder = enclave.scene.folder();
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=relay",
        ]);
        openssl.args(["-keyout", "relay.key", "-out", "relay.pem"]);
        run(openssl.current_dir(folder));
        let port = free_port();
        let process = Command::new("python3")
            .args(["-c", RELAY, &port.to_string(), direct])
            .current_dir(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the relay", 30, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let url = format!("https://127.0.0.1:{port}");
        Relay { process, url }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
