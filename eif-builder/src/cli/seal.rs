//! `eif-builder seal`. `enclavectl seal` runs this program.

use super::{output, spec};
use eif_builder::seal::{SealError, SealedConfig, SigningKey, seal};
use explain::{CliError, Exit};
use std::io::Read;
use std::path::{Path, PathBuf};
use wire::sealed::MAX_PLAINTEXT;
use zeroize::Zeroizing;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The KMS key, its region and the encryption context are those of [config] in the \
    spec. AWS credentials come from the usual places (environment, profile, role) and need \
    kms:GenerateDataKey.\n\n\
    A key for --sign-key: openssl genpkey -algorithm ed25519 -out sealer.pem\n\n\
    Example:\n  eif-builder seal app.env --spec enclave.toml --version 3 -o app.sealed"
)]
pub(super) struct Args {
    /// Config to seal: a file, or - for standard input; NAME=value lines if the spec delivers it as
    /// environment variables
    config: PathBuf,
    /// Spec of the enclaves that may open it (enclave.toml)
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Version of the config; raise it with every change: enclaves refuse versions below the spec's
    /// minimum_version
    #[arg(long)]
    version: u64,
    /// Private key of the spec's sealer (config.sealer) to sign with: Ed25519, in PEM
    #[arg(long, value_name = "PEM-FILE")]
    sign_key: Option<PathBuf>,
    /// Where to write the sealed config
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Output<'a> {
    sealed: &'a Path,
    name: &'a str,
    version: u64,
    kms_key: &'a str,
    /// Whose signature it carries, if any.
    sealer: Option<String>,
    /// For relying parties: `attest verify --pcr 16=…`.
    pcr16: attestation::Pcr,
    cautions: Vec<String>,
}

/// Seals the config and returns the result, for people or as JSON.
pub(super) async fn run(args: &Args) -> Result<String, CliError> {
    let spec = spec::read(&args.spec)?;
    let plaintext = read(&args.config)?;
    let signing_key = args.sign_key.as_deref().map(signing_key).transpose()?;
    let sealed = seal(&spec, args.version, &plaintext, signing_key.as_ref()).await?;
    output::caution(&sealed.cautions);
    std::fs::write(&args.output, &sealed.bytes).map_err(|e| {
        CliError::new(
            Exit::Unavailable,
            format!("cannot write {}: {e}", args.output.display()),
            "Check --output.",
        )
    })?;
    let pcr16 = sealed.pcr16();
    let SealedConfig {
        header,
        cautions,
        bytes,
    } = sealed;
    let sealer = header.sealer.map(|key| key.to_string());
    let (name, version) = (&header.name, header.version);
    if args.json {
        let output = Output {
            sealed: &args.output,
            name,
            version,
            kms_key: &header.kms_key,
            sealer,
            pcr16,
            cautions: cautions.iter().map(ToString::to_string).collect(),
        };
        return serde_json::to_string(&output).map_err(CliError::bug);
    }
    let signed = sealer.map_or(String::new(), |key| format!("\nsealer {key}"));
    Ok(format!(
        "{} ({} bytes)\nconfig {name}, version {version}\nkey    {}{signed}\nPCR16  {pcr16}",
        args.output.display(),
        bytes.len(),
        header.kms_key
    ))
}

fn signing_key(path: &Path) -> Result<SigningKey, CliError> {
    let pem = std::fs::read(path).map(Zeroizing::new).map_err(|e| {
        CliError::new(
            Exit::Usage,
            format!("cannot read {}: {e}", path.display()),
            "Check --sign-key.",
        )
    })?;
    SigningKey::from_pem(&pem).map_err(|e: SealError| e.into())
}

/// One byte more than fits, so that what is too long is noticed and not cut.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let error = |e: std::io::Error| {
        CliError::new(
            Exit::Usage,
            format!("cannot read {}: {e}", path.display()),
            "Check the path of the config.",
        )
    };
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(error)?)
    };
    let mut plaintext = Zeroizing::new(Vec::with_capacity(MAX_PLAINTEXT + 1));
    source
        .take(MAX_PLAINTEXT as u64 + 1)
        .read_to_end(&mut plaintext)
        .map_err(error)?;
    Ok(plaintext)
}
