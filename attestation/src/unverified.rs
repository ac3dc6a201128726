//! Documents for looking at: what they say, whoever made them. The result can be printed and nothing else, so that no program
//! comes to rely on it.

use crate::certificate::Certificate;
use crate::document::{Envelope, Fields, Malformed};
use crate::verify::{authenticate, check_times};
use crate::{Error, Pcrs, Time, TrustAnchor};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// Text and JSON of a document that may be forged.
#[derive(Debug, Serialize)]
pub struct Shown {
    verified: bool,
    /// Whether AWS's root vouches for it at the time that it gives itself. Anybody may have made its enclave, and it may be old.
    origin: String,
    algorithm: i64,
    module_id: String,
    timestamp: Time,
    debug: bool,
    pcrs: Pcrs,
    public_key: Option<String>,
    user_data: Option<String>,
    nonce: Option<String>,
    /// The root first, the enclave's own last.
    certificates: Vec<ShownCertificate>,
}

#[derive(Debug, Serialize)]
struct ShownCertificate {
    sha256: String,
    /// Not there if it is no certificate of this PKI.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Time>,
}

/// Reads a document of any signer, signed or not.
pub fn show(bytes: &[u8]) -> Result<Shown, Malformed> {
    let authentic = authenticate(bytes, &TrustAnchor::aws(), |fields| fields.timestamp, &());
    let valid = authentic
        .and_then(|(fields, chain)| check_times(&fields, &chain, fields.timestamp, Duration::ZERO));
    let origin = match valid {
        Ok(()) => {
            "some enclave, by AWS's signature, at the time that the document gives".to_owned()
        }
        Err(Error::Malformed(malformed)) => return Err(malformed),
        Err(error) => error.to_string(),
    };
    let Envelope {
        algorithm,
        protected: _,
        payload,
        signature: _,
    } = Envelope::parse(bytes)?;
    let Fields {
        module_id,
        timestamp,
        pcrs,
        certificate,
        cabundle,
        public_key,
        user_data,
        nonce,
    } = Fields::parse(payload)?;
    let digits = |bytes: Option<&[u8]>| bytes.map(hex::encode);
    Ok(Shown {
        verified: false,
        origin,
        algorithm,
        module_id: module_id.to_owned(),
        timestamp,
        debug: pcrs.debug(),
        pcrs,
        public_key: digits(public_key),
        user_data: digits(user_data),
        nonce: digits(nonce),
        certificates: cabundle
            .into_iter()
            .chain([certificate])
            .map(ShownCertificate::of)
            .collect(),
    })
}

impl ShownCertificate {
    fn of(der: &[u8]) -> ShownCertificate {
        let parsed = Certificate::parse(der).ok();
        ShownCertificate {
            sha256: hex::encode(Sha256::digest(der)),
            not_before: parsed.as_ref().map(|certificate| certificate.not_before),
            not_after: parsed.as_ref().map(|certificate| certificate.not_after),
        }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shown {
            verified: _,
            origin,
            algorithm,
            module_id,
            timestamp,
            debug,
            pcrs,
            public_key,
            user_data,
            nonce,
            certificates,
        } = self;
        // The name is anybody's: no control characters to a terminal.
        writeln!(f, "module      {}", module_id.escape_debug())?;
        writeln!(f, "made        {timestamp}")?;
        writeln!(f, "origin      {origin}")?;
        writeln!(
            f,
            "algorithm   {algorithm}{}",
            if *algorithm == -35 { " (ES384)" } else { "" }
        )?;
        writeln!(f, "debug mode  {debug}")?;
        for (index, pcr) in pcrs.iter() {
            writeln!(f, "PCR{index:<9}{pcr}")?;
        }
        for (name, value) in [
            ("public key", public_key),
            ("user data", user_data),
            ("nonce", nonce),
        ] {
            let value = value
                .as_ref()
                .map(|value| if value.is_empty() { "empty" } else { value });
            writeln!(f, "{name:<12}{}", value.unwrap_or("none"))?;
        }
        for (
            index,
            ShownCertificate {
                sha256,
                not_before,
                not_after,
            },
        ) in certificates.iter().enumerate()
        {
            let name = match index + 1 == certificates.len() {
                true => "certificate".to_owned(),
                false => format!("cabundle[{index}]"),
            };
            write!(f, "{name:<12}SHA-256 {sha256}")?;
            match (not_before, not_after) {
                (Some(from), Some(until)) => writeln!(f, ", {from} to {until}")?,
                _ => writeln!(f, ", no certificate of this kind")?,
            }
        }
        Ok(())
    }
}
