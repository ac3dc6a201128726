//! The broker's certificate.

use super::DOCKER;
use pki::{Server, pem, pem_of, server};
use std::path::Path;
use std::process::Command;
use tests::broker::Broker;
use tests::wait_for;

/// Asks over TLS with curl, and gives its exit code.
fn curl(port: u16, authority: &Path) -> Option<i32> {
    let url = format!("https://broker.example:{port}/healthz");
    Command::new("curl")
        .args([
            "-sSf",
            "--resolve",
            &format!("broker.example:{port}:127.0.0.1"),
            "--cacert",
        ])
        .arg(authority)
        .arg(url)
        .output()
        .unwrap()
        .status
        .code()
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_new_certificate_serves_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |Server {
                     authority,
                     certificate,
                     key,
                 }: &Server,
                 n: u8| {
        std::fs::write(path(&format!("ca{n}")), pem(authority)).unwrap();
        std::fs::write(path("cert"), pem(certificate)).unwrap();
        std::fs::write(path("key"), pem_of("PRIVATE KEY", key)).unwrap();
    };
    let (first, second) = (server("broker.example"), server("broker.example"));
    write(&first, 1);
    let (cert, key) = (
        path("cert").display().to_string(),
        path("key").display().to_string(),
    );
    let tls = [
        ("HOST_PROXY_BROKER__TLS_CERT", cert.as_str()),
        ("HOST_PROXY_BROKER__TLS_KEY", &key),
    ];
    let broker = Broker::start(&[&DOCKER[..], &tls].concat());
    assert_eq!(curl(broker.port, &path("ca1")), Some(0));
    // Half of it is written: the one before serves.
    std::fs::write(path("cert"), pem(&second.certificate)).unwrap();
    wait_for("the broker to notice", 30, || {
        assert_eq!(curl(broker.port, &path("ca1")), Some(0));
        broker
            .daemon
            .log()
            .contains("the previous one stays in effect")
    });
    assert_eq!(curl(broker.port, &path("ca1")), Some(0));
    write(&second, 2);
    wait_for("the new certificate", 30, || {
        curl(broker.port, &path("ca2")) == Some(0)
    });
    assert_ne!(
        curl(broker.port, &path("ca1")),
        Some(0),
        "the first authority did not sign this one"
    );
}
