//! What the last report of an enclave means, for the person who has to act. Pure.

use api::DeployError;
use explain::Code;
use launch::Logs;
use relay::control::Report;
use std::time::Duration;
use wire::control::AbortReason;

/// The failure that a last report means.
pub(crate) fn exit_error(report: &Report, console: &str, logs: &Logs) -> DeployError {
    match report {
        Report::Failed { reason, detail } => aborted(*reason, detail),
        Report::Exited(exit) => {
            let line = logs.last_line();
            let said = if line.is_empty() {
                line
            } else {
                format!("; its last line: {line}")
            };
            let message = format!("the workload ended with {exit}{said}");
            DeployError::new(
                Code::WorkloadExited,
                message,
                Code::WorkloadExited.next_step(),
            )
        }
        Report::Started => DeployError::internal("the agent started the workload twice"),
        Report::Lost(reason) => {
            let message =
                format!("the enclave was lost: {reason}; its console ends with: {console}");
            DeployError::new(Code::EnclaveLost, message, Code::EnclaveLost.next_step()).retryable()
        }
    }
}

/// The enclave did not come as far as its workload.
pub(super) fn boot_failed(message: String) -> DeployError {
    DeployError::new(Code::BootFailed, message, Code::BootFailed.next_step())
}

/// The enclave did not come as far as its agent.
pub(super) fn no_heartbeat(limit: Duration, console: &str) -> DeployError {
    let seconds = limit.as_secs();
    let message = format!(
        "the enclave sent no heartbeat within {seconds} seconds; its console ends with: {console}"
    );
    DeployError::new(
        Code::HeartbeatMissing,
        message,
        Code::HeartbeatMissing.next_step(),
    )
}

/// The agent gave up, and says why.
fn aborted(reason: AbortReason, detail: &str) -> DeployError {
    let own = |code: Code| (code, code.next_step());
    let (code, next_step) = match reason {
        AbortReason::NotFound => (
            Code::WorkloadNotFound,
            "Check the image's Entrypoint and Cmd, or [run] command in enclave.toml.",
        ),
        AbortReason::NotExecutable => (
            Code::WorkloadNotExecutable,
            "Check that the program is executable, for this platform, and that its libraries are in the image.",
        ),
        AbortReason::User => (
            Code::UserNotFound,
            "Check the image's User, or [run] user in enclave.toml.",
        ),
        AbortReason::WorkingDir => (
            Code::WorkloadNotExecutable,
            "Check the image's WorkingDir, or [run] working_dir in enclave.toml.",
        ),
        AbortReason::ConfigMissing => (
            Code::ConfigMissing,
            "Provide it with 'enclavectl configure'; 'enclavectl seal' makes one.",
        ),
        AbortReason::ConfigDamaged
        | AbortReason::ConfigForeign
        | AbortReason::ConfigTooOld
        | AbortReason::ConfigUnusable => (
            Code::ConfigRefused,
            "Seal it again for this spec, and provide it with 'enclavectl configure'.",
        ),
        AbortReason::ConfigUnsigned => (
            Code::ConfigRefused,
            "Sign it with the key of config.sealer ('enclavectl seal --sign-key'), and provide it with 'enclavectl configure'.",
        ),
        AbortReason::ConfigDebug => (
            Code::ConfigRefused,
            "Create the enclave without --debug; for tests, set allow_debug in [config] of the spec.",
        ),
        AbortReason::KmsRefused => (
            Code::KmsRefused,
            "Check the key's policy and the instance's role.",
        ),
        AbortReason::KmsAnswer => (
            Code::KmsRefused,
            "Use a KMS that answers attested requests (Recipient); emulators of it do not.",
        ),
        AbortReason::KmsUnreachable => (
            Code::KmsUnreachable,
            "Check that this machine reaches the KMS endpoint of the spec, then redeploy.",
        ),
        AbortReason::KmsTls => (
            Code::KmsUnreachable,
            "Check config.endpoint and config.ca in the spec; if they are right, the connection is being intercepted.",
        ),
        AbortReason::EgressRefused => (
            Code::KmsUnreachable,
            "Exempt a private KMS endpoint with egress.allow_networks in the daemon's configuration.",
        ),
        AbortReason::SignatureUnavailable => own(Code::AwsCredentialsMissing),
        AbortReason::SignatureRefused => (
            Code::BootFailed,
            "Check that the agent is Redoubt's own, and that the config was sealed for this spec.",
        ),
        AbortReason::Debug => own(Code::DebugRefused),
        AbortReason::Cmdline => own(Code::CmdlineChanged),
        AbortReason::Rng => own(Code::RngUntrusted),
        AbortReason::Clock => own(Code::ClockUntrusted),
        AbortReason::Spec | AbortReason::RootFs | AbortReason::Network | AbortReason::Nsm => (
            Code::BootFailed,
            "Check that kernel and agent are Redoubt's own, and that memory_mib is enough for the image.",
        ),
    };
    DeployError::new(code, format!("the enclave aborted: {detail}"), next_step)
}
