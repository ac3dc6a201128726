//! `eif-builder seal` and `enclavectl seal`: one command for pipelines and operators.

use super::{SealError, SealedConfig, seal};
use explain::{CliError, Exit};
use std::io::Read;
use std::path::{Path, PathBuf};
use wire::sealed::MAX_PLAINTEXT;
use wire::spec::Spec;
use zeroize::Zeroizing;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The key, its region and the encryption context are those of [config] in the spec. AWS credentials come from \
    the usual places and need kms:GenerateDataKey.\n\n\
    Example:\n  enclavectl seal app.env --spec enclave.toml --version 3 -o app.sealed"
)]
pub struct Args {
    /// The config to seal: a file, or - for standard input. NAME=value lines if the spec delivers it as environment
    config: PathBuf,
    /// The spec of the enclave that may open it (enclave.toml)
    #[arg(long)]
    spec: PathBuf,
    /// Counts up with every change; the spec's minimum_version keeps older ones out
    #[arg(long)]
    version: u64,
    /// Where to write the sealed config
    #[arg(short, long)]
    output: PathBuf,
}

#[derive(serde::Serialize)]
struct Output<'a> {
    sealed: &'a Path,
    name: &'a str,
    version: u64,
    kms_key: &'a str,
    /// For relying parties: `attest verify --pcr 16=…`.
    pcr16: attestation::Pcr,
}

/// The result, for people or as JSON.
pub async fn run(args: &Args, json: bool) -> Result<String, CliError> {
    let spec = |e: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Config,
            format!("{}: {e}", args.spec.display()),
            "correct enclave.toml",
        )
    };
    let text = std::fs::read_to_string(&args.spec).map_err(|e| spec(&e))?;
    let manifest = Spec::parse(&text).map_err(|e| spec(&e))?;
    let plaintext = read(&args.config)?;
    let sealed = seal(&manifest, args.version, &plaintext)
        .await
        .map_err(|e| failure(&e))?;
    std::fs::write(&args.output, &sealed.bytes).map_err(|e| {
        CliError::new(
            Exit::Unavailable,
            format!("{}: {e}", args.output.display()),
            "choose another place with --output",
        )
    })?;
    let pcr16 = sealed.pcr16();
    let SealedConfig { header, bytes } = sealed;
    let (name, version) = (&header.name, header.version);
    if json {
        let output = Output {
            sealed: &args.output,
            name,
            version,
            kms_key: &header.kms_key,
            pcr16,
        };
        return serde_json::to_string(&output)
            .map_err(|e| CliError::new(Exit::Bug, e, "please report this"));
    }
    Ok(format!(
        "{} ({} bytes)\nconfig {name}, version {version}\nkey    {}\nPCR16  {pcr16}",
        args.output.display(),
        bytes.len(),
        header.kms_key
    ))
}

/// One byte more than fits, so that what is too long is noticed and not cut.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let fail = |e: std::io::Error| {
        CliError::new(
            Exit::Usage,
            format!("{}: {e}", path.display()),
            "check the path",
        )
    };
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(fail)?),
    };
    let mut plaintext = Zeroizing::new(Vec::with_capacity(MAX_PLAINTEXT + 1));
    source
        .take(MAX_PLAINTEXT as u64 + 1)
        .read_to_end(&mut plaintext)
        .map_err(fail)?;
    Ok(plaintext)
}

fn failure(error: &SealError) -> CliError {
    match error {
        SealError::NoConfig | SealError::Spec(_) => {
            CliError::new(Exit::Config, error, "correct [config] in enclave.toml")
        }
        SealError::Length(_) | SealError::Environment(_) | SealError::NotText => CliError::new(
            Exit::Data,
            error,
            "correct the config; what is no NAME=value can be delivered as a file (config.deliver)",
        ),
        SealError::BelowMinimum { .. } => {
            CliError::new(Exit::Usage, error, "seal it as a higher --version")
        }
        SealError::Kms(_) => CliError::new(
            Exit::Unavailable,
            error,
            "check the AWS credentials (AWS_ACCESS_KEY_ID, a profile, or a role), the key's policy (kms:GenerateDataKey) and config.endpoint",
        ),
        SealError::Crypto => CliError::new(Exit::Bug, error, "please report this"),
    }
}
