//! A relying party: is this document from an enclave that runs my image, and made for my request?
//!
//! ```text
//! cargo run --example verify -- DOCUMENT PCR0 NONCE
//! ```
//!
//! `DOCUMENT` is a file with the bytes that the enclave's NSM returned, `PCR0` the value that
//! `eif-builder build` printed, and `NONCE` the random bytes that were sent to the enclave; both in
//! hexadecimal.

use attestation::{Conditions, Policy, Time, TrustAnchor, Verified, verify};
use std::error::Error;
use std::io::Write as _;
use std::time::SystemTime;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [document, pcr0, nonce] = arguments.as_slice() else {
        return Err("usage: verify DOCUMENT PCR0 NONCE".into());
    };
    let verified = check(&std::fs::read(document)?, pcr0, nonce)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{} runs this image", verified.module_id)?;
    // Whoever holds the private key to this one is that enclave: encrypt to it, or compare it with
    // the key of a connection.
    let key = verified.public_key.as_deref().map(hex::encode);
    writeln!(stdout, "public key: {}", key.as_deref().unwrap_or("none"))?;
    Ok(())
}

fn check(document: &[u8], pcr0: &str, nonce: &str) -> Result<Verified, Box<dyn Error>> {
    let policy = Policy::new(Conditions {
        pcrs: [(0, [pcr0.parse()?].into())].into(),
        nonce: Some(hex::decode(nonce)?),
        max_age_seconds: Some(300),
        ..Conditions::default()
    })?;
    let now = Time::from(SystemTime::now());
    Ok(verify(document, &TrustAnchor::aws(), now, &policy)?)
}
