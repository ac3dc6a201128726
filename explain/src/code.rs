//! Every code that an error can have: the list that `docs/errors.md` is generated from.

use crate::Class;
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($variant:ident $name:literal $class:ident $status:literal $meaning:literal $next:literal,)*) => {
        /// The stable name of what went wrong. In JSON it is written like `IMAGE_NOT_FOUND`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(
                #[doc = $meaning]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        impl Code {
            /// All of them, in the order of a deploy.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// As it is written in JSON and shown to people.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            /// The class that errors of this code have unless they say otherwise.
            pub fn class(self) -> Class {
                match self { $(Code::$variant => Class::$class),* }
            }

            /// The status of the API's answer.
            pub fn http_status(self) -> u16 {
                match self { $(Code::$variant => $status),* }
            }

            /// One sentence: what it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning),* }
            }

            /// General advice; an error that knows more gives better.
            pub fn next_step(self) -> &'static str {
                match self { $(Code::$variant => $next),* }
            }
        }
    };
}

codes! {
    RequestInvalid "REQUEST_INVALID" Usage 400
        "The request or the command line is malformed."
        "Correct it; --help and the API reference list what is accepted.",
    RequestTimeout "REQUEST_TIMEOUT" Usage 408
        "The request did not arrive in time."
        "Send it in one go.",
    MethodNotAllowed "METHOD_NOT_ALLOWED" Usage 405
        "The API has this path, but not this method."
        "Look up the method in the API reference.",
    NotFound "NOT_FOUND" Usage 404
        "There is nothing at this path."
        "Look up the path in the API reference.",
    EnclaveNotFound "ENCLAVE_NOT_FOUND" Refused 404
        "No enclave has this name or id."
        "List the enclaves with 'enclavectl list'.",
    NameTaken "NAME_TAKEN" Refused 409
        "Another enclave has this name."
        "Choose another name, or terminate that enclave first.",
    StateConflict "STATE_CONFLICT" Refused 409
        "The enclave's status does not allow this."
        "Wait until it has settled; 'enclavectl events NAME --follow' shows when.",
    DaemonStopping "DAEMON_STOPPING" Unavailable 503
        "The daemon is shutting down, or the enclave is gone."
        "Try again.",
    DaemonUnreachable "DAEMON_UNREACHABLE" Unavailable 503
        "The daemon's socket does not answer."
        "Start it with 'systemctl start host-proxy' or 'host-proxy serve', or name its socket with --socket.",
    SpecInvalid "SPEC_INVALID" Config 400
        "enclave.toml is invalid, or does not fit the image."
        "Correct enclave.toml.",
    ConfigurationInvalid "CONFIGURATION_INVALID" Config 500
        "The daemon's configuration, or a file that it names, is invalid."
        "Correct it, and check it with 'host-proxy check-config'.",
    CredentialsInvalid "CREDENTIALS_INVALID" Config 400
        "The file or helper that holds the registry credentials cannot be used."
        "Check the file that holds them.",
    CaInvalid "CA_INVALID" Config 400
        "The CA certificate cannot be used."
        "Provide a PEM file with CA certificates.",
    SecretUnavailable "SECRET_UNAVAILABLE" Unavailable 502
        "The stored registry credentials cannot be read or written."
        "Check that the daemon may use its secret store; if the secret is gone, terminate the enclave and create it again.",
    RegistryUnauthorized "REGISTRY_UNAUTHORIZED" Refused 502
        "The registry rejected the credentials, or requires some."
        "Check the user name and password, and that the account may pull this repository.",
    ImageNotFound "IMAGE_NOT_FOUND" Unavailable 502
        "The registry has no such repository, tag or digest."
        "Check namespace, name and tag (they are case-sensitive), and that the account may see it.",
    NoSuchPlatform "NO_SUCH_PLATFORM" Data 502
        "The image does not exist for this platform."
        "Choose an offered platform, or push an image for this one.",
    RegistryUnreachable "REGISTRY_UNREACHABLE" Unavailable 502
        "The registry does not answer."
        "Check that the registry is running and that its host name and port are right; a registry without TLS needs plain_http.",
    RegistryRefused "REGISTRY_REFUSED" Unavailable 502
        "The registry answered with an error, or with something that would be unsafe to follow."
        "Read the registry's log, or try again later.",
    ImageInvalid "IMAGE_INVALID" Data 502
        "The image is damaged, malformed, or holds something that cannot be carried over exactly."
        "Push the image again; if that does not help, the registry or a proxy on the way alters data.",
    OutOfDisk "OUT_OF_DISK" Unavailable 507
        "The disk is full."
        "Free disk space; a build needs the unpacked size of the image twice.",
    DiskFailed "DISK_FAILED" Unavailable 500
        "A file or directory cannot be read or written."
        "Check that it exists, that it is writable, and that the disk has room.",
    AuditUnavailable "AUDIT_UNAVAILABLE" Unavailable 503
        "The audit log cannot be written, so the order was refused and nothing was changed."
        "Free disk space, or correct owner and mode of the directory audit in state_dir; then try again.",
    AuditBroken "AUDIT_BROKEN" Data 500
        "A line of the audit log was changed, removed, inserted, moved or cut."
        "Compare the file with a copy that is kept elsewhere, and find out who could write to it.",
    KernelMissing "KERNEL_MISSING" Config 500
        "No enclave kernel was found on this machine."
        "Build one with scripts/sandbox, or name AWS's, /usr/share/nitro_enclaves/blobs/bzImage: with --kernel, or build.kernel in the daemon's configuration.",
    AgentMissing "AGENT_MISSING" Config 500
        "No usable enclave-agent was found on this machine."
        "Build it with scripts/build, and put it into $REDOUBT_LIB or /usr/lib/redoubt; or name it with --agent, or build.agent in the daemon's configuration.",
    BuildFailed "BUILD_FAILED" Data 500
        "The enclave image could not be assembled."
        "Build again; if it happens twice, please report it.",
    MeasurementsChanged "MEASUREMENTS_CHANGED" Refused 409
        "The image was built again and measures to something else than before: kernel, agent or Redoubt itself changed."
        "Compare with 'enclavectl redeploy NAME --dry-run', tell relying parties and the owner of the KMS key, then redeploy; or install the version before.",
    LauncherMissing "LAUNCHER_MISSING" Config 500
        "What starts enclaves on this machine is missing."
        "Build the sandbox with scripts/sandbox, or set qemu.directory in the configuration.",
    OutOfMemory "OUT_OF_MEMORY" Unavailable 503
        "This machine has too little free memory for the enclave."
        "Lower [resources] memory_mib, or stop another enclave.",
    OutOfCpus "OUT_OF_CPUS" Unavailable 503
        "Too few CPUs are left for the enclave."
        "Lower [resources] cpus, or stop another enclave.",
    NitroUnavailable "NITRO_UNAVAILABLE" Config 500
        "The Nitro Enclaves driver of this machine cannot be used."
        "Check that the instance was launched with enclave options enabled, that the driver is loaded, and that the daemon's user is in the group 'ne'.",
    LaunchFailed "LAUNCH_FAILED" Unavailable 500
        "The enclave could not be started."
        "Read the daemon's journal; 'enclavectl doctor' checks what a launch needs.",
    HeartbeatMissing "HEARTBEAT_MISSING" Unavailable 500
        "The enclave started, and its agent sent no heartbeat."
        "Check that kernel and agent belong together and that memory_mib is enough for the image.",
    BootFailed "BOOT_FAILED" Unavailable 500
        "The enclave's agent failed before the workload ran."
        "Check that memory_mib is enough for the image, and that kernel and agent are Redoubt's own.",
    DebugRefused "DEBUG_REFUSED" Usage 400
        "The enclave was started in debug mode, and its spec does not allow that."
        "Leave --debug out, or build with [security] allow_debug = true to debug it.",
    CmdlineChanged "CMDLINE_CHANGED" Unavailable 500
        "The enclave's kernel was started with another command line than the measured one."
        "Build the image again with eif-builder; if that does not help, this machine's launcher is not to be trusted.",
    RngUntrusted "RNG_UNTRUSTED" Unavailable 500
        "The enclave's random numbers do not come from the Nitro Security Module."
        "Use a kernel with the driver nsm, such as Redoubt's own.",
    ClockUntrusted "CLOCK_UNTRUSTED" Unavailable 500
        "The enclave's clock cannot be set from the hypervisor's time."
        "Redeploy; if it happens again, use Redoubt's own kernel and its default command line.",
    AwsCredentialsMissing "AWS_CREDENTIALS_MISSING" Unavailable 502
        "The daemon has no AWS credentials to sign an enclave's request to KMS with."
        "Give the instance a role, and the daemon access to the metadata service; 'aws sts get-caller-identity' shows who it is. A role in kms.role_arn must trust it.",
    ConfigMissing "CONFIG_MISSING" Refused 500
        "The sealed config is missing or cannot be read."
        "Provide it again with 'enclavectl configure'.",
    ConfigRefused "CONFIG_REFUSED" Refused 400
        "The enclave refused the sealed config."
        "Seal the config for this spec, and provide it with 'enclavectl configure'.",
    KmsRefused "KMS_REFUSED" Refused 502
        "KMS refused to decrypt for this enclave."
        "Allow kms:Decrypt in the key's policy for this image's PCR0.",
    KmsUnreachable "KMS_UNREACHABLE" Unavailable 502
        "KMS did not answer."
        "Check that network.egress allows KMS, and that this machine can reach it.",
    WorkloadNotFound "WORKLOAD_NOT_FOUND" Data 500
        "The image has no such program."
        "Check the image's Entrypoint and Cmd, or [run] command in enclave.toml.",
    WorkloadNotExecutable "WORKLOAD_NOT_EXECUTABLE" Data 500
        "The program cannot be started."
        "Check that the program is executable, for this platform, and that its libraries are in the image.",
    UserNotFound "USER_NOT_FOUND" Data 500
        "The image has no such user."
        "Check the image's User, or [run] user in enclave.toml.",
    WorkloadExited "WORKLOAD_EXITED" Data 500
        "The workload ended by itself."
        "Read 'enclavectl logs NAME' (needs [logs] forward = true); a service must stay in the foreground.",
    AttestationFailed "ATTESTATION_FAILED" Refused 502
        "The enclave produced no usable attestation document."
        "Redeploy; if it happens again, check the enclave's kernel for its NSM driver.",
    MeasurementMismatch "MEASUREMENT_MISMATCH" Refused 502
        "The running enclave is not what was built."
        "Check that the enclave does not run in debug mode, and find out who changed the image between build and launch; then redeploy.",
    EnclaveLost "ENCLAVE_LOST" Unavailable 502
        "A running enclave ended without giving a reason."
        "Redeploy it.",
    TokenInvalid "TOKEN_INVALID" Refused 401
        "The broker does not accept this token."
        "Check that the token has not expired and is meant for this broker (aud, iss).",
    ProjectUnknown "PROJECT_UNKNOWN" Refused 404
        "There is no such project, or it belongs to others."
        "Check the project's name, and the projects that the token or a rule names.",
    RateLimited "RATE_LIMITED" Unavailable 429
        "Too many requests."
        "Wait, and try again.",
    ProviderRefused "PROVIDER_REFUSED" Refused 502
        "The registry's service refused to issue credentials."
        "Check [registry] in the daemon's configuration, and the permissions of its role or account.",
    ProviderUnavailable "PROVIDER_UNAVAILABLE" Unavailable 503
        "The registry's service, or the issuer of tokens, does not answer."
        "Try again later.",
    BrokerUnreachable "BROKER_UNREACHABLE" Unavailable 502
        "The credential broker does not answer."
        "Check the broker's address, and that it is running.",
    AnswerUnreadable "ANSWER_UNREADABLE" Bug 502
        "The other side's answer cannot be read."
        "Check that both sides have the same version.",
    Internal "INTERNAL" Bug 500
        "A defect of Redoubt."
        "Read the daemon's journal, and please report this.",
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_says_what_it_means_and_what_to_do() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            for sentence in [code.meaning(), code.next_step()] {
                assert!(
                    sentence.ends_with('.') && sentence.len() > 8,
                    "{code}: {sentence}"
                );
            }
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
    }
}
