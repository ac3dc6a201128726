//! Programs as Debian ships them, which know of no proxy and no forward.

use super::{image, said};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tests::programs::run;
use tests::{free_port, tcp, wait_for};

/// A directory over HTTPS, on a port of 127.0.0.1; its certificate is for `web.test`.
struct Web {
    process: Child,
    port: u16,
    certificate: String,
}

const SERVER: &str = r#"
import http.server, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

impl Web {
    fn start(folder: &Path) -> Web {
        let subject = [
            "-subj",
            "/CN=web.test",
            "-addext",
            "subjectAltName=DNS:web.test",
        ];
        let key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem"];
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-days", "2", "-out", "cert.pem"]);
        run(openssl.args(key).args(subject).current_dir(folder));
        let port = free_port();
        let process = Command::new("python3")
            .args(["-c", SERVER, &port.to_string()])
            .current_dir(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the web server", 30, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let certificate = std::fs::read_to_string(folder.join("cert.pem")).unwrap();
        Web {
            process,
            port,
            certificate,
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A repository that any web server can serve, and a page.
fn fill(folder: &Path) {
    std::fs::write(folder.join("page"), "a page from outside\n").unwrap();
    let script = "git init -q work && cd work && echo 'a file from outside' > file && git add file \
        && git -c user.name=t -c user.email=t@example.com commit -qm one && cd .. \
        && git clone -q --bare work repository.git && git -C repository.git update-server-info";
    run(Command::new("sh").args(["-c", script]).current_dir(folder));
}

/// As much of PostgreSQL's protocol as one question of psql needs (PostgreSQL 15, chapter 55).
fn database(mut client: TcpStream) {
    let message = |client: &mut TcpStream, tagged: bool| -> Option<Vec<u8>> {
        let mut head = vec![0; if tagged { 5 } else { 4 }];
        client.read_exact(&mut head).ok()?;
        let len = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
        let mut body = vec![0; len as usize - 4];
        client.read_exact(&mut body).ok()?;
        Some(body)
    };
    let answer = |tag: u8, body: &[u8]| {
        [
            &[tag],
            &(u32::try_from(body.len()).unwrap() + 4).to_be_bytes()[..],
            body,
        ]
        .concat()
    };
    // SSLRequest and GSSENCRequest have four bytes, the startup message more.
    while message(&mut client, false).is_some_and(|body| body.len() == 4) {
        client.write_all(b"N").unwrap();
    }
    let ready = [answer(b'R', &[0; 4]), answer(b'Z', b"I")].concat();
    client.write_all(&ready).unwrap();
    let Some(_question) = message(&mut client, true) else {
        return;
    };
    let column = b"\0\x01answer\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    let row = b"\0\x01\0\0\0\x12a row from outside";
    let parts = [
        (b'T', &column[..]),
        (b'D', row),
        (b'C', b"SELECT 1\0"),
        (b'Z', b"I"),
    ];
    let parts: Vec<u8> = parts
        .iter()
        .flat_map(|(tag, body)| answer(*tag, body))
        .collect();
    client.write_all(&parts).unwrap();
    while message(&mut client, true).is_some() {}
}

const JAVA: &str = r#"
import java.net.*; import java.io.*;
public class Fetch { public static void main(String[] a) throws Exception {
  try (Socket s = new Socket(a[0], Integer.parseInt(a[1]))) {
    s.getOutputStream().write('x');
    System.out.println(new BufferedReader(new InputStreamReader(s.getInputStream())).readLine());
} } }
"#;

#[test]
#[cfg_attr(not(programs), ignore = "needs the programs: run scripts/test")]
fn programs_that_know_no_proxy_reach_what_the_spec_names() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let web = Web::start(folder.path());
    let (postgres, (line, _)) = (tcp::serve(database), tcp::outside());
    let url = format!("https://web.test:{}", web.port);
    let start = format!(
        "export GODEBUG=netdns=go HOME=/root
        say() {{ printf '%s: %s\\n' \"$1\" \"$(shift; \"$@\" 2>&1 | tr '\\n' ' ')\"; }}
        say curl-4 curl -sS -4 --cacert ca.pem {url}/page
        say curl-6 curl -sS -6 --cacert ca.pem {url}/page
        say git git -c http.sslCAInfo=/test/ca.pem clone -q {url}/repository.git /root/clone
        say cloned cat /root/clone/file
        say psql psql -h db.test -p {postgres} -U someone -d any -Atc 'select 1'
        say python python3 -c 'import ssl, urllib.request as u; print(u.urlopen(\"{url}/page\", context=ssl.create_default_context(cafile=\"ca.pem\")).read())'
        say go hey -n 20 -c 2 {url}/page
        say java /usr/lib/jvm/java-17-openjdk-amd64/bin/java -Xint -Xshare:auto -XX:+UseSerialGC Fetch.java line.test {line}
        say refused curl -sS http://elsewhere.example/"
    );
    let files = [("ca.pem", web.certificate.as_str()), ("Fetch.java", JAVA)];
    let image = image(&files, &start);
    let egress = [
        format!("web.test:{}", web.port),
        format!("*.test:{postgres}"),
        format!("line.test:{line}"),
    ];
    let said = said(&image, &["web.test", "db.test", "line.test"], &egress, 300);
    for wanted in [
        "curl-4: a page from outside \n",
        "curl-6: a page from outside \n",
        "git: \n",
        "cloned: a file from outside \n",
        "psql: a row from outside \n",
        "python: b'a page from outside\\n' \n",
        "[200]\t20 responses",
        "java: from outside \n",
        "refused: curl: (6) Could not resolve host: elsewhere.example \n",
    ] {
        assert!(
            said.contains(wanted),
            "{wanted}\n--- was not in ---\n{said}"
        );
    }
}
