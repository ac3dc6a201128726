//! `eif-builder policy`: writes the policy of a spec's KMS key, or checks one.

use super::spec;
use attestation::Measurements;
use eif_builder::key_policy::{
    ExpectedImages, KeyPolicy, KeyPolicyFinding, KeyPolicyReport, Principals, SealingKey,
};
use explain::{CliError, Exit};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --admin, --sealer or --host the key's account stands there: its IAM \
    policies decide. An admin can always open the key, by changing its policy.\n\n\
    Exit code 1: --check found something.\n\n\
    Examples:\n  eif-builder policy --spec enclave.toml --measurements built.json > key-policy.json\n  \
    aws kms put-key-policy --key-id KEY --policy file://key-policy.json\n  \
    eif-builder policy --check key-policy.json"
)]
pub(super) struct Args {
    /// Spec of the enclaves that open configs with the key (enclave.toml)
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    spec: Option<PathBuf>,
    /// Output of eif-builder build --json for an image that may open configs; repeat it while a new
    /// version rolls out
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    measurements: Vec<PathBuf>,
    /// IAM role, user or account that administers the key; may be repeated
    #[arg(long, value_name = "ARN", conflicts_with = "check")]
    admin: Vec<String>,
    /// IAM role, user or account that seals configs; may be repeated
    #[arg(long, value_name = "ARN", conflicts_with = "check")]
    sealer: Vec<String>,
    /// IAM role of a parent instance; may be repeated
    #[arg(long, value_name = "ARN", conflicts_with = "check")]
    host: Vec<String>,
    /// Check this policy instead, and name each statement that opens the key. With --spec and
    /// --measurements, other images and enclaves that are locked out are named too
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Print the result of --check as JSON
    #[arg(long, requires = "check")]
    json: bool,
}

/// The policy in JSON, or what is wrong with one.
pub(super) fn run(args: &Args) -> Result<(String, Exit), CliError> {
    let subject = args.spec.as_deref().map(subject).transpose()?;
    let measurements: Vec<Measurements> = args
        .measurements
        .iter()
        .map(|path| measurements(path))
        .collect::<Result<_, _>>()?;
    let Some(path) = &args.check else {
        let subject = subject.ok_or_else(|| CliError::bug("clap requires --spec"))?;
        let principals = Principals {
            admins: args.admin.clone(),
            sealers: args.sealer.clone(),
            hosts: args.host.clone(),
        };
        let policy = KeyPolicy::generate(&subject, &measurements, &principals)?;
        return Ok((policy.to_string(), Exit::Success));
    };
    let expected = match (&subject, measurements.as_slice()) {
        (None, []) => None,
        (Some(subject), [_, ..]) => Some(ExpectedImages {
            subject,
            measurements: &measurements,
        }),
        _ => {
            let message = "--spec and --measurements are given together";
            return Err(CliError::new(Exit::Usage, message, "Give both or none."));
        }
    };
    let report = KeyPolicy::parse(&text(path, "--check")?)?.check(expected);
    let exit = if report.findings.is_empty() {
        Exit::Success
    } else {
        Exit::Negative
    };
    let shown = if args.json {
        to_json(&report)?
    } else {
        to_text(&report)
    };
    Ok((shown, exit))
}

fn subject(path: &Path) -> Result<SealingKey, CliError> {
    Ok(SealingKey::of(&spec::read(path)?)?)
}

/// Builders print more keys; those mean nothing here.
#[derive(Deserialize)]
struct Built {
    #[serde(alias = "Measurements")]
    measurements: Measurements,
}

fn measurements(path: &Path) -> Result<Measurements, CliError> {
    let built: Built = serde_json::from_str(&text(path, "--measurements")?).map_err(|e| {
        let message = format!("{}: {e}", path.display());
        let hint =
            "Give the output of eif-builder build --json, eif-builder describe or nitro-cli.";
        CliError::new(Exit::Data, message, hint)
    })?;
    Ok(built.measurements)
}

fn text(path: &Path, flag: &str) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|e| {
        let message = format!("cannot read {}: {e}", path.display());
        CliError::new(Exit::Config, message, format!("Check {flag}."))
    })
}

#[derive(serde::Serialize)]
struct Output<'a> {
    findings: Vec<Explained<'a>>,
    administrators: &'a BTreeSet<String>,
}

#[derive(serde::Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    finding: &'a KeyPolicyFinding,
    text: String,
}

fn to_json(report: &KeyPolicyReport) -> Result<String, CliError> {
    let KeyPolicyReport {
        findings,
        administrators,
    } = report;
    let explained = findings.iter().map(|finding| Explained {
        finding,
        text: finding.to_string(),
    });
    let output = Output {
        findings: explained.collect(),
        administrators,
    };
    serde_json::to_string(&output).map_err(CliError::bug)
}

fn to_text(report: &KeyPolicyReport) -> String {
    let KeyPolicyReport {
        findings,
        administrators,
    } = report;
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        lines.push("nothing in this policy opens the key to others than attested enclaves".into());
    }
    let administrators: Vec<String> = administrators
        .iter()
        .map(|name| name.escape_debug().to_string())
        .collect();
    if !administrators.is_empty() {
        lines.push(format!(
            "note: these may change the policy, and so open the key: {}",
            administrators.join(", ")
        ));
    }
    lines.join("\n")
}
