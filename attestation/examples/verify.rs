//! A relying party: is this document from an enclave that runs my image, and made for my request?
//!
//! ```text
//! cargo run --example verify -- DOCUMENT PCR0 NONCE
//! ```
//!
//! `DOCUMENT` is a file with the bytes that the enclave's NSM returned, `PCR0` the value that
//! `eif-builder build` printed, and `NONCE` the random bytes that were sent to the enclave; both in
//! hexadecimal.

use attestation::{Conditions, MaxAge, Policy, Time, TrustAnchor, Verified, verify};
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::SystemTime;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (text, code) = match check(&arguments) {
        Ok(verified) => (trusted(&verified), ExitCode::SUCCESS),
        Err(error) => (error.to_string(), ExitCode::FAILURE),
    };
    writeln!(std::io::stdout(), "{text}").map_or(ExitCode::FAILURE, |()| code)
}

fn check(arguments: &[String]) -> Result<Verified, Box<dyn Error>> {
    let [document, pcr0, nonce] = arguments else {
        return Err("usage: verify DOCUMENT PCR0 NONCE".into());
    };
    let policy = Policy::new(Conditions {
        pcrs: [(0, [pcr0.parse()?].into())].into(),
        nonce: Some(hex::decode(nonce)?),
        max_age: MaxAge::Seconds(300),
        ..Conditions::default()
    })?;
    let now = Time::from(SystemTime::now());
    let document = std::fs::read(document)?;
    Ok(verify(&document, &TrustAnchor::aws(), now, &policy)?)
}

/// The enclave holds the private key to `public_key`: encrypt to it, or compare it with that of a
/// TLS connection.
fn trusted(verified: &Verified) -> String {
    let key = verified.public_key.as_deref().map(hex::encode);
    let key = key.as_deref().unwrap_or("none");
    format!("{} runs this image; public key: {key}", verified.module_id)
}
