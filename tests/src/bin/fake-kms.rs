//! The fake KMS as a program, for `scripts/demo`: `fake-kms DIRECTORY [ROOT]` puts the CA's PEM and
//! its port into the directory; a new file `policy.json` there becomes the policy of its one key,
//! whose ARN is in `key`. With a root, in PEM, attestation documents must be signed below it.
#![allow(
    clippy::unwrap_used,
    reason = "a fake for the demo: what goes wrong here is to end it"
)]

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::PathBuf;
use std::time::Duration;
use tests::kms::Kms;

fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap());
    let kms = Kms::start();
    if let Some(root) = std::env::args_os().nth(2) {
        kms.trust(&CertificateDer::from_pem_file(PathBuf::from(root)).unwrap());
    }
    let key = kms.key(&tests::kms::attested_policy("none"));
    std::fs::write(directory.join("ca.pem"), kms.ca()).unwrap();
    std::fs::write(directory.join("key"), key.as_bytes()).unwrap();
    // Last: who waits for it finds the others.
    std::fs::write(directory.join("port.new"), kms.port.to_string()).unwrap();
    std::fs::rename(directory.join("port.new"), directory.join("port")).unwrap();
    let policy = directory.join("policy.json");
    loop {
        if let Ok(text) = std::fs::read_to_string(&policy) {
            kms.set_policy(&key, &serde_json::from_str(&text).unwrap());
            std::fs::remove_file(&policy).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
