//! What the command line can do. Exit codes: 0 trusted, 1 rejected, 2 malformed or unusable.

mod conditions;
mod document;
mod fetch;
mod report;
mod show;

use attestation::{Error, Policy, TrustAnchor, ValidityTime, verify};
use clap::Parser as _;
use conditions::Arguments;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

const REJECTED: u8 = 1;
const UNUSABLE: u8 = 2;

/// Checks attestation documents of AWS Nitro Enclaves: genuine, fresh, and from the code you expect?
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 trusted, 1 rejected, 2 malformed or unusable.

Examples:
  attest fetch https://orders.example.com/attestation --measurements built.json
  attest verify document.cbor --policy policy.toml --nonce 8f1b…
  attest verify document.cbor --pcr 0=3d2a… --at 2026-01-03T20:41:07Z

DOC is a file, or - for standard input; raw CBOR, base64 and hexadecimal digits are understood."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Verify a document against a policy
    Verify(Box<Verify>),
    /// Make a random nonce, get a document from an enclave's endpoint, and verify it
    Fetch(Box<Fetch>),
    /// Print what a document says, whoever made it: proves nothing
    Show {
        /// The document: a file, or - for standard input
        doc: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The document: a file, or - for standard input
    doc: PathBuf,
    /// The nonce that the enclave was asked with
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    #[command(flatten)]
    arguments: Arguments,
}

#[derive(Debug, clap::Args)]
struct Fetch {
    /// Where the enclave answers: http://HOST[:PORT][/PATH] or https://…; the path is /attestation if left out
    url: String,
    /// Keep the document here
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    arguments: Arguments,
}

/// Why there is no verdict, with the next step.
#[derive(Debug)]
struct Failure {
    message: String,
    hint: &'static str,
}

impl Failure {
    fn new(message: impl std::fmt::Display, hint: &'static str) -> Failure {
        Failure {
            message: message.to_string(),
            hint,
        }
    }
}

pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(UNUSABLE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match cli.command {
        Command::Verify(verify) => run_verify(*verify),
        Command::Fetch(fetch) => run_fetch(*fetch),
        Command::Show { doc, json } => show::run(&doc, json).map(|text| (text, ExitCode::SUCCESS)),
    };
    match outcome {
        Ok((text, code)) => match print(&text) {
            true => code,
            false => ExitCode::from(UNUSABLE),
        },
        Err(Failure { message, hint }) => {
            warn(&format!("error: {message}\n  {hint}"));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn run_verify(
    Verify {
        doc,
        nonce,
        arguments,
    }: Verify,
) -> Result<(String, ExitCode), Failure> {
    let nonce = nonce
        .map(|digits| conditions::hexadecimal("--nonce", &digits))
        .transpose()?;
    let case = arguments.case(nonce)?;
    Ok(judge(&document::read(&doc)?, &case))
}

fn run_fetch(
    Fetch {
        url,
        output,
        arguments,
    }: Fetch,
) -> Result<(String, ExitCode), Failure> {
    let nonce = fetch::nonce()?;
    let case = arguments.case(Some(nonce.clone()))?;
    let document = fetch::document(&url, &nonce)?;
    if let Some(path) = output {
        std::fs::write(&path, &document).map_err(|e| {
            Failure::new(
                format!("{}: {e}", path.display()),
                "choose another place with --output",
            )
        })?;
    }
    // The clock is read after the answer: a slow enclave does not make a document from the future.
    Ok(judge(&document, &case))
}

/// Everything a verdict depends on but the document.
#[derive(Debug)]
struct Case {
    anchor: TrustAnchor,
    policy: Policy,
    at: conditions::At,
    cautions: Vec<String>,
    json: bool,
}

fn judge(document: &[u8], case: &Case) -> (String, ExitCode) {
    let now = case.at.now();
    let verdict = verify(document, &case.anchor, now, &case.policy);
    let code = match &verdict {
        Ok(_) => ExitCode::SUCCESS,
        Err(Error::Malformed(_)) => ExitCode::from(UNUSABLE),
        Err(_) => ExitCode::from(REJECTED),
    };
    // Under the document's own time that is the time of the verdict, once there is one.
    let at = match (&verdict, case.policy.validity_time()) {
        (Ok(verified), ValidityTime::Document) => verified.timestamp,
        _ => now,
    };
    let report = Report::new(&verdict, at, &case.cautions);
    (
        if case.json {
            report.json()
        } else {
            report.table()
        },
        code,
    )
}

/// A closed pipe at the other end is no reason to panic.
fn print(text: &str) -> bool {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", text.trim_end()).is_ok()
}

fn warn(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
