//! `enclavectl seal`: becomes `eif-builder seal`, which has the code that speaks to KMS. Only the
//! flags are known here, so that `--help` teaches them where eif-builder is not installed.

use explain::{CliError, Exit};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "eif-builder";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "This runs 'eif-builder seal': install eif-builder beside enclavectl, or on the \
    PATH.\n\n\
    The key, its region and the encryption context are those of [config] in the spec. AWS \
    credentials come from the usual places and need kms:GenerateDataKey.\n\n\
    Example:\n  enclavectl seal app.env --spec enclave.toml --version 3 -o app.sealed"
)]
pub(crate) struct Args {
    /// The config to seal: a file, or - for standard input. NAME=value lines if the spec delivers
    /// it as environment
    config: PathBuf,
    /// The spec of the enclave that may open it (enclave.toml)
    #[arg(long)]
    spec: PathBuf,
    /// Version of the config, higher with every change; the spec's minimum_version rejects older
    /// ones
    #[arg(long)]
    version: u64,
    /// Private key of the spec's sealer (config.sealer) to sign with: Ed25519, in PEM
    #[arg(long, value_name = "PEM-FILE")]
    sign_key: Option<PathBuf>,
    /// Where to write the sealed config
    #[arg(short, long)]
    output: PathBuf,
}

/// Does not return if eif-builder starts: this process becomes it, with its output and exit code.
pub(crate) fn run(args: &Args, json: bool) -> Result<(), CliError> {
    let own = std::env::current_exe().ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = find(own.as_deref(), &path).ok_or_else(|| {
        CliError::new(
            Exit::Unavailable,
            "eif-builder, which seals configs, was not found",
            "Install eif-builder beside enclavectl, or in a directory on the PATH.",
        )
    })?;
    let error = Command::new(&program).args(arguments(args, json)).exec();
    Err(CliError::new(
        Exit::Unavailable,
        format!("cannot run {}: {error}", program.display()),
        "Install eif-builder again.",
    ))
}

/// Beside this program, or else on the PATH.
fn find(own: Option<&Path>, path: &OsStr) -> Option<PathBuf> {
    let beside = own.and_then(Path::parent).map(Path::to_owned);
    let mut candidates = beside
        .into_iter()
        .chain(std::env::split_paths(path).filter(|directory| !directory.as_os_str().is_empty()))
        .map(|directory| directory.join(PROGRAM));
    candidates.find(|candidate| candidate.is_file())
}

/// The same command line for eif-builder. A value that starts with `-` stays a value.
fn arguments(args: &Args, json: bool) -> Vec<OsString> {
    let Args {
        config,
        spec,
        version,
        sign_key,
        output,
    } = args;
    let flag = |name: &str, value: &OsStr| {
        let mut flag = OsString::from(name);
        flag.push("=");
        flag.push(value);
        flag
    };
    let mut arguments = vec![
        "seal".into(),
        flag("--spec", spec.as_os_str()),
        flag("--version", version.to_string().as_ref()),
        flag("--output", output.as_os_str()),
    ];
    let sign_key = sign_key.as_ref();
    arguments.extend(sign_key.map(|path| flag("--sign-key", path.as_os_str())));
    arguments.extend(json.then(|| "--json".into()));
    arguments.extend(["--".into(), config.into()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_passed_on() {
        let mut args = Args {
            config: "-".into(),
            spec: "enclave.toml".into(),
            version: 3,
            sign_key: None,
            output: "-x".into(),
        };
        let own = ["seal", "--spec=enclave.toml", "--version=3", "--output=-x"];
        assert_eq!(arguments(&args, false), [&own[..], &["--", "-"]].concat());
        assert_eq!(
            arguments(&args, true),
            [&own[..], &["--json", "--", "-"]].concat()
        );
        args.sign_key = Some("-k".into());
        assert_eq!(
            arguments(&args, false),
            [&own[..], &["--sign-key=-k", "--", "-"]].concat()
        );
    }

    #[test]
    fn eif_builder_is_looked_for_beside_this_program_and_then_on_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let (beside, on_path) = (directory.path().join("a"), directory.path().join("b"));
        for directory in [&beside, &on_path] {
            std::fs::create_dir(directory).unwrap();
        }
        let own = beside.join("enclavectl");
        let found = || find(Some(&own), on_path.as_os_str());
        assert_eq!(found(), None);
        std::fs::write(on_path.join(PROGRAM), "").unwrap();
        assert_eq!(found(), Some(on_path.join(PROGRAM)));
        std::fs::write(beside.join(PROGRAM), "").unwrap();
        assert_eq!(found(), Some(beside.join(PROGRAM)));
    }
}
