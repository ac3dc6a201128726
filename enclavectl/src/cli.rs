//! The command line as `--help` shows it.

use crate::{
    audit, configure, create, doctor, document, events, logs, orders, registry, seal, show,
};
use explain::Exit;
use std::fmt::Write as _;
use std::path::PathBuf;

const GLOBAL: &str = "Global options";
const EXAMPLES: &str = "Examples:
  enclavectl create --name web --image docker.io/library/httpd:2.4 --spec enclave.toml
  enclavectl list
  enclavectl logs web --follow
  enclavectl --json show web
  enclavectl terminate web";

/// Create, watch and terminate enclaves
#[derive(Debug, clap::Parser)]
#[command(version, after_help = format!("{EXAMPLES}\n\n{}", exit_codes()))]
pub(crate) struct Cli {
    /// The daemon's socket
    #[arg(
        long,
        env = "REDOUBT_SOCKET",
        default_value = "/run/redoubt/api.sock",
        global = true,
        help_heading = GLOBAL
    )]
    pub(crate) socket: PathBuf,
    /// Print JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run an image in a new enclave; prompts for missing values
    Create(Box<create::Args>),
    /// List all enclaves
    List,
    /// Show one enclave
    Show(show::Args),
    /// Show what happened to an enclave
    Events(events::Args),
    /// Print the workload's output (needs [logs] forward = true in the spec)
    Logs(logs::Args),
    /// Resolve the image's tag again, build, attest and swap; a deployed enclave keeps serving until
    /// then
    Redeploy(orders::RedeployArgs),
    /// Go back to what was attested before the last redeploy, from the EIF that was kept
    Rollback(orders::Args),
    /// Replace an enclave's sealed config; a deployed enclave keeps serving until the next one is
    /// attested
    Configure(configure::Args),
    /// Encrypt a config so that only the attested enclave of a spec can open it (runs eif-builder)
    Seal(seal::Args),
    /// End an enclave, and delete its credentials and files
    Terminate(orders::Args),
    /// Use registry credentials of a broker with docker, podman, skopeo and kubelets
    Registry(registry::Args),
    /// Fetch a fresh attestation document and compare it with the build, without verifying its
    /// signature
    Attestation(document::Args),
    /// Print the audit log of this machine, or check it
    Audit(audit::Args),
    /// Check what the daemon needs to run enclaves, and that it answers
    Doctor(doctor::Args),
}

/// Those of `attest` alone are left out.
fn exit_codes() -> String {
    let mut text = "Exit codes:".to_owned();
    for exit in Exit::ALL.iter().filter(|exit| **exit != Exit::Unreadable) {
        write!(text, "\n  {:<2}  {}", exit.number(), exit.meaning()).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn help_lists_examples_and_exit_codes() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.render_help().to_string();
        for expected in [
            "enclavectl logs web --follow",
            "  0   success",
            "  69  something needed is unavailable",
            "  78  configuration error",
        ] {
            assert!(help.contains(expected), "{expected} is not in {help}");
        }
        assert!(!help.contains("attest only"), "{help}");
    }
}
