//! `enclavectl attestation`: fetches a document through the daemon and compares it with the build.
//!
//! The document is read for display: its signature is not verified here, so this tells an operator
//! whether the enclave reports what was built, and proves it to nobody. Relying parties use
//! `attest`.

use crate::ui;
use api::Record;
use api::client::Client;
use attestation::{Malformed, Measurements, Pcr, PcrMismatch, unverified};
use explain::{CliError, Exit};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What QEMU's NSM gives as the signature algorithm of a document that it does not sign.
const UNSIGNED: i64 = -1;
/// Of a nonce that is made here, in bytes.
const NONCE_LEN: usize = 32;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The signature is not verified here. A relying party verifies documents with \
    'attest fetch' or 'attest verify'.\n\n\
    Exit code 77: the document does not match the build, or carries another nonce."
)]
pub(crate) struct Args {
    /// Name or id
    name: String,
    /// Nonce for the document to carry, in hexadecimal [default: 32 random bytes]
    #[arg(long)]
    nonce: Option<String>,
    /// Also write the document to this file
    #[arg(short, long)]
    output: Option<PathBuf>,
}

pub(crate) async fn run(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    let nonce = args
        .nonce
        .as_deref()
        .map_or_else(random_nonce, parse_nonce)?;
    let path = ui::path(&args.name, "")?;
    let record: Record = client.json(Method::GET, &path, Vec::new()).await?;
    let query = format!("/attestation?nonce={}", hex::encode(&nonce));
    let path = ui::path(&args.name, &query)?;
    let bytes = client.bytes(Method::GET, &path, Vec::new()).await?;
    if let Some(output) = &args.output {
        std::fs::write(output, &bytes).map_err(|e| {
            let message = format!("{}: {e}", output.display());
            CliError::new(
                Exit::Unavailable,
                message,
                "Choose another file with --output.",
            )
        })?;
    }
    let document = read(&bytes)?;
    let measurements = record.measurements.ok_or_else(|| {
        CliError::new(
            Exit::Refused,
            "nothing has been built for this enclave yet",
            "Wait until it is DEPLOYED.",
        )
    })?;
    let comparison = Comparison {
        mismatch: mismatch(&document.pcrs, &measurements),
        is_fresh: document.nonce.as_deref() == Some(hex::encode(&nonce).as_str()),
        document,
        measurements,
        nonce,
    };
    if json {
        ui::print_json(&comparison.json())?;
    } else {
        ui::print(&comparison.text())?;
    }
    comparison.verdict()
}

fn random_nonce() -> Result<Vec<u8>, CliError> {
    let mut bytes = vec![0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        CliError::new(
            Exit::Unavailable,
            "the system provides no randomness",
            "Try again.",
        )
    })?;
    Ok(bytes)
}

fn parse_nonce(text: &str) -> Result<Vec<u8>, CliError> {
    hex::decode(text).map_err(|e| {
        let message = format!("--nonce: {e}");
        CliError::new(Exit::Usage, message, "Write the nonce in hexadecimal.")
    })
}

/// What a document says. Nothing vouches for it.
#[derive(Debug, Deserialize)]
struct Document {
    algorithm: i64,
    module_id: String,
    timestamp: String,
    pcrs: BTreeMap<u8, Pcr>,
    /// In hexadecimal.
    nonce: Option<String>,
}

/// Through the JSON of `attestation::unverified`, whose fields are not public so that no program
/// relies on them.
fn read(bytes: &[u8]) -> Result<Document, CliError> {
    let shown = unverified::describe(bytes).map_err(|e: Malformed| {
        CliError::new(
            Exit::Data,
            format!("the enclave's document is malformed: {e}"),
            "Redeploy; if it happens again, check the enclave's kernel for its NSM driver.",
        )
    })?;
    let value = serde_json::to_value(shown).map_err(CliError::bug)?;
    serde_json::from_value(value).map_err(CliError::bug)
}

/// The first register that is not what was built.
fn mismatch(pcrs: &BTreeMap<u8, Pcr>, measurements: &Measurements) -> Option<PcrMismatch> {
    let mismatches = measurements
        .registers()
        .map(|(index, expected)| PcrMismatch {
            index,
            expected,
            found: pcrs.get(&index).copied(),
        });
    let mut wrong = mismatches.filter(|register| register.found != Some(register.expected));
    wrong.next()
}

/// A document beside what was built and asked.
#[derive(Debug)]
struct Comparison {
    document: Document,
    measurements: Measurements,
    nonce: Vec<u8>,
    mismatch: Option<PcrMismatch>,
    is_fresh: bool,
}

impl Comparison {
    /// Whether the document claims a signature.
    fn is_signed(&self) -> bool {
        self.document.algorithm != UNSIGNED
    }

    fn json(&self) -> serde_json::Value {
        let Document {
            module_id,
            timestamp,
            pcrs,
            ..
        } = &self.document;
        let pcrs: BTreeMap<String, String> = pcrs
            .iter()
            .map(|(index, pcr)| (format!("PCR{index}"), pcr.to_string()))
            .collect();
        json!({
            "module_id": module_id, "timestamp": timestamp, "pcrs": pcrs, "fresh": self.is_fresh,
            "matches": self.mismatch.is_none(), "signed": self.is_signed(),
        })
    }

    fn text(&self) -> String {
        let Measurements {
            pcr0, pcr1, pcr2, ..
        } = self.measurements;
        let mark = |is_right: bool| if is_right { "✓" } else { "✗" };
        let mut lines = Vec::new();
        for (index, expected) in [(0, pcr0), (1, pcr1), (2, pcr2)] {
            let found = self.document.pcrs.get(&index);
            let shown = found.map_or("missing".to_owned(), ToString::to_string);
            lines.push(format!(
                "{} PCR{index}   {shown}",
                mark(found == Some(&expected))
            ));
        }
        let nonce = hex::encode(&self.nonce);
        lines.push(format!("{} nonce  {nonce}", mark(self.is_fresh)));
        let signature = if self.is_signed() {
            "- signature: present, not verified here; 'attest verify' verifies it"
        } else {
            "- signature: none; QEMU's NSM signs nothing, so the \
             document proves nothing to other machines"
        };
        lines.push(signature.to_owned());
        lines.join("\n")
    }

    fn verdict(self) -> Result<(), CliError> {
        if let Some(mismatch) = self.mismatch {
            return Err(CliError::new(
                Exit::Refused,
                mismatch,
                "Redeploy the enclave, and find out why it is not what was built.",
            ));
        }
        if self.is_fresh {
            return Ok(());
        }
        Err(CliError::new(
            Exit::Refused,
            "the document carries another nonce",
            "Try again; if it happens again, find out who replays documents.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CBOR: a head of this major type.
    fn head(major: u8, len: usize) -> Vec<u8> {
        match u8::try_from(len) {
            Ok(len @ 0..24) => vec![major << 5 | len],
            Ok(len) => vec![major << 5 | 24, len],
            Err(_) => [
                &[major << 5 | 25][..],
                &u16::try_from(len).unwrap().to_be_bytes(),
            ]
            .concat(),
        }
    }

    fn bytes(bytes: &[u8]) -> Vec<u8> {
        [head(2, bytes.len()), bytes.to_vec()].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [head(3, text.len()), text.as_bytes().to_vec()].concat()
    }

    /// A document as an NSM writes it; `algorithm` is its CBOR.
    fn document(algorithm: &[u8], pcrs: &[[u8; 48]], nonce: &[u8]) -> Vec<u8> {
        let mut registers = head(5, pcrs.len());
        for (index, pcr) in pcrs.iter().enumerate() {
            registers.extend(head(0, index));
            registers.extend(bytes(pcr));
        }
        let payload = [
            head(5, 9),
            text("module_id"),
            text("i-1-enc1"),
            text("digest"),
            text("SHA384"),
            text("timestamp"),
            [vec![0x1b], 1_700_000_000_000_u64.to_be_bytes().to_vec()].concat(),
            text("pcrs"),
            registers,
            text("certificate"),
            bytes(&[0; 64]),
            text("cabundle"),
            [head(4, 1), bytes(&[0; 64])].concat(),
            text("public_key"),
            vec![0xf6],
            text("user_data"),
            vec![0xf6],
            text("nonce"),
            bytes(nonce),
        ];
        let protected = [&[0xa1, 1], algorithm].concat();
        [
            head(4, 4),
            bytes(&protected),
            head(5, 0),
            bytes(&payload.concat()),
            bytes(&[0; 96]),
        ]
        .concat()
    }

    const QEMU: &[u8] = &[0x20];
    const ES384: &[u8] = &[0x38, 34];

    fn compare(algorithm: &[u8], built: u8, nonce: &[u8]) -> Comparison {
        let document = read(&document(algorithm, &[[7; 48]; 3], &[1, 2])).unwrap();
        let pcr = Pcr::try_from([built; 48].as_slice()).unwrap();
        let measurements = Measurements {
            hash_algorithm: attestation::HashAlgorithm::Sha384,
            pcr0: pcr,
            pcr1: pcr,
            pcr2: pcr,
            pcr8: None,
        };
        Comparison {
            mismatch: mismatch(&document.pcrs, &measurements),
            is_fresh: document.nonce == Some(hex::encode(nonce)),
            document,
            measurements,
            nonce: nonce.to_vec(),
        }
    }

    #[test]
    fn a_document_of_the_build_is_shown_as_such_and_as_unsigned() {
        let comparison = compare(QEMU, 7, &[1, 2]);
        let json = comparison.json();
        assert_eq!(json["module_id"], "i-1-enc1");
        assert_eq!(json["timestamp"], "2023-11-14T22:13:20Z");
        assert_eq!(json["pcrs"]["PCR2"], "07".repeat(48));
        for (field, expected) in [("fresh", true), ("matches", true), ("signed", false)] {
            assert_eq!(json[field], expected, "{field}");
        }
        let text = comparison.text();
        assert_eq!(text.matches('✓').count(), 4, "{text}");
        assert!(text.contains("signature: none"), "{text}");
        assert_eq!(comparison.verdict(), Ok(()));
    }

    #[test]
    fn a_document_that_claims_a_signature_is_shown_as_unverified() {
        let comparison = compare(ES384, 7, &[1, 2]);
        assert_eq!(comparison.json()["signed"], true);
        assert!(comparison.text().contains("not verified here"));
    }

    #[test]
    fn other_registers_and_another_nonce_are_refused() {
        let other = compare(QEMU, 8, &[1, 2]);
        assert_eq!(other.json()["matches"], false);
        let error = other.verdict().unwrap_err();
        assert_eq!(error.exit, Exit::Refused);
        assert!(error.message.starts_with("PCR0 is 0707"), "{error}");
        let stale = compare(QEMU, 7, &[9]);
        assert_eq!(stale.json()["fresh"], false);
        let error = stale.verdict().unwrap_err();
        assert_eq!(
            (error.exit, error.message.as_str()),
            (Exit::Refused, "the document carries another nonce")
        );
    }

    #[test]
    fn what_is_no_document_is_bad_data() {
        assert_eq!(read(b"x").unwrap_err().exit, Exit::Data);
    }
}
