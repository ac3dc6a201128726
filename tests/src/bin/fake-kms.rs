//! The fake KMS as a program, for `scripts/demo`: `fake-kms FOLDER` puts the authority's PEM and
//! its port there; a new file `policy.json` in the folder becomes the policy of its one key, whose
//! ARN is in `key`.
#![allow(
    clippy::unwrap_used,
    reason = "a fake for the demo: what goes wrong here is to end it"
)]

use std::path::PathBuf;
use std::time::Duration;
use tests::kms::Kms;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap());
    let kms = Kms::start();
    let key = kms.key(&tests::kms::attested_policy("none"));
    std::fs::write(folder.join("ca.pem"), kms.ca()).unwrap();
    std::fs::write(folder.join("key"), key.as_bytes()).unwrap();
    // Last: who waits for it finds the others.
    std::fs::write(folder.join("port.new"), kms.port.to_string()).unwrap();
    std::fs::rename(folder.join("port.new"), folder.join("port")).unwrap();
    let policy = folder.join("policy.json");
    loop {
        if let Ok(text) = std::fs::read_to_string(&policy) {
            kms.set_policy(&key, &serde_json::from_str(&text).unwrap());
            std::fs::remove_file(&policy).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
