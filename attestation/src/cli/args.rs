//! The commands and their arguments.

use super::conditions::PolicyArgs;
use std::path::PathBuf;

/// Verify attestation documents of AWS Nitro Enclaves: genuine, fresh, and from the code you
/// expect?
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 trusted, 1 rejected, 2 malformed document or usage error.

Examples:
  attest fetch https://orders.example.com/attestation --measurements built.json
  attest verify document.cbor --policy policy.toml --nonce 8f1b…
  attest verify document.cbor --pcr 0=3d2a… --at 2026-01-03T20:41:07Z

DOC is a file, or - for standard input, in raw CBOR, base64 or hexadecimal."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Verify a document against a policy
    Verify(Box<VerifyArgs>),
    /// Fetch a document from an enclave's endpoint with a fresh random nonce, and verify it
    Fetch(Box<FetchArgs>),
    /// Print a document without verifying it; proves nothing
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The document: a file, or - for standard input
    pub(super) doc: PathBuf,
    /// The nonce that was sent to the enclave
    #[arg(long, value_name = "HEX")]
    pub(super) nonce: Option<String>,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct FetchArgs {
    /// The URL of the enclave's endpoint, http or https; the default path is
    /// /attestation
    pub(super) url: String,
    /// Save the document to this file
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The document: a file, or - for standard input
    pub(super) doc: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}
