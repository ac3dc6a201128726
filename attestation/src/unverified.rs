//! The content of a document, without verification. The result can only be printed, so that no
//! program comes to rely on it.

use crate::authenticate::{ClockSource, authenticate};
use crate::cache::NoCache;
use crate::certificate::Certificate;
use crate::chain::TrustAnchor;
use crate::document::{Envelope, Fields};
use crate::error::{Error, Malformed};
use crate::origin::Origin;
use crate::pcr::Pcrs;
use crate::time::Time;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// The content of a document that may be forged, as text ([`Display`](std::fmt::Display)) or JSON.
/// Byte strings are in hexadecimal.
#[derive(Debug, Serialize)]
pub struct UnverifiedDocument {
    verified: bool,
    /// Whether the document chains to AWS's root at the time that it gives itself. Even then it may
    /// come from any enclave, and be old.
    signature: String,
    /// For whom the document says that Redoubt's agent had it made.
    origin: Option<Origin>,
    algorithm: i64,
    module_id: String,
    timestamp: Time,
    debug: bool,
    pcrs: Pcrs,
    public_key: Option<String>,
    user_data: Option<String>,
    nonce: Option<String>,
    /// The root first, the enclave's own last.
    certificates: Vec<CertificateSummary>,
}

#[derive(Debug, Serialize)]
struct CertificateSummary {
    sha256: String,
    /// `None` if it is not a certificate of this PKI.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Time>,
}

/// Reads a document of any origin, signed or not.
///
/// # Errors
///
/// [`Malformed`] if `bytes` are not an attestation document.
pub fn describe(bytes: &[u8]) -> Result<UnverifiedDocument, Malformed> {
    let signature = signature(bytes)?;
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
    Ok(UnverifiedDocument {
        verified: false,
        signature,
        origin: user_data.and_then(Origin::of).map(|(origin, _)| origin),
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
            .map(CertificateSummary::of)
            .collect(),
    })
}

/// Whether an enclave signed the document, in words.
fn signature(bytes: &[u8]) -> Result<String, Malformed> {
    let authentic = authenticate(bytes, &TrustAnchor::aws(), ClockSource::Document, &NoCache);
    match authentic.and_then(|authentic| authentic.check_times(Duration::ZERO)) {
        Ok(()) => Ok("signed by an enclave that chains to AWS's root, at its own time".to_owned()),
        Err(Error::Malformed(malformed)) => Err(malformed),
        Err(error) => Ok(error.to_string()),
    }
}

impl CertificateSummary {
    fn of(der: &[u8]) -> CertificateSummary {
        let parsed = Certificate::parse(der).ok();
        CertificateSummary {
            sha256: hex::encode(Sha256::digest(der)),
            not_before: parsed.as_ref().map(|certificate| certificate.not_before),
            not_after: parsed.as_ref().map(|certificate| certificate.not_after),
        }
    }
}

impl std::fmt::Display for UnverifiedDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The name is of any origin: no control characters to a terminal.
        writeln!(f, "module      {}", self.module_id.escape_debug())?;
        writeln!(f, "made        {}", self.timestamp)?;
        writeln!(f, "signature   {}", self.signature)?;
        if let Some(origin) = self.origin {
            writeln!(f, "origin      {origin}")?;
        }
        let name = if self.algorithm == -35 {
            " (ES384)"
        } else {
            ""
        };
        writeln!(f, "algorithm   {}{name}", self.algorithm)?;
        writeln!(f, "debug mode  {}", self.debug)?;
        for (index, pcr) in self.pcrs.iter() {
            writeln!(f, "PCR{index:<9}{pcr}")?;
        }
        for (name, value) in [
            ("public key", &self.public_key),
            ("user data", &self.user_data),
            ("nonce", &self.nonce),
        ] {
            let value = match value.as_deref() {
                None => "none",
                Some("") => "empty",
                Some(digits) => digits,
            };
            writeln!(f, "{name:<12}{value}")?;
        }
        let leaf = self.certificates.len().saturating_sub(1);
        for (index, certificate) in self.certificates.iter().enumerate() {
            let name = if index == leaf {
                "certificate".to_owned()
            } else {
                format!("cabundle[{index}]")
            };
            writeln!(f, "{name:<12}{certificate}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SHA-256 {}", self.sha256)?;
        match (self.not_before, self.not_after) {
            (Some(from), Some(until)) => write!(f, ", {from} to {until}"),
            _ => write!(f, ", not a certificate of this PKI"),
        }
    }
}
