//! `eif-builder build`.

use super::progress::Bars;
use eif_builder::artifacts::{self, ArtifactError};
use eif_builder::build::{self, BuildError, Built, DEFAULT_CMDLINE, Inputs};
use eif_builder::rootfs::RootfsError;
use explain::{CliError, Exit};
use oci::pull::{DEFAULT_MAX_UNPACKED, PullRequest};
use oci::{Credentials, Digest, Endpoint, Platform, Reference, Secret, credentials, pull};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::spec::Spec;
use zeroize::Zeroizing;

/// The longest password that is read from standard input, in bytes. A cloud's JSON key has some thousand.
const MAX_PASSWORD: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    printf %s \"$TOKEN\" | eif-builder build ghcr.io/my-org/app:v1 --username me --password-stdin -o app.eif --json\n\n\
    Without credentials on the command line, docker's own configuration is used: $DOCKER_CONFIG/config.json or \
    ~/.docker/config.json, with its credential helpers.")]
pub(super) struct Args {
    /// Image to build from: registry-host/namespace/image[:tag][@sha256:digest]
    image: String,
    /// Where to write the enclave image
    #[arg(short, long)]
    output: PathBuf,
    /// What to run and what may go in and out (enclave.toml); without it the image runs as it is, with no network
    #[arg(long)]
    spec: Option<PathBuf>,
    /// Kernel, a bzImage [default: looked for in $REDOUBT_LIB, beside this program, /usr/lib/redoubt, the sandbox]
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Statically linked enclave-agent [default: looked for in the same places]
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Kernel command line; measured
    #[arg(long, default_value = DEFAULT_CMDLINE, hide_default_value = true)]
    cmdline: String,
    #[arg(long, default_value = "linux/amd64")]
    platform: Platform,
    /// User name at the registry
    #[arg(long, requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from standard input, up to a line end
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Docker config.json or podman auth.json to take credentials from
    #[arg(long, conflicts_with = "username")]
    authfile: Option<PathBuf>,
    /// PEM file of a certificate authority to trust beside the system's
    #[arg(long)]
    ca_cert: Option<PathBuf>,
    /// Speak HTTP without TLS to this host[:port]; may be given more than once
    #[arg(long, value_name = "HOST")]
    plain_http: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result as pipelines read it.
#[derive(serde::Serialize)]
struct Output<'a> {
    eif: &'a Path,
    image: Image,
    measurements: attestation::Measurements,
}

#[derive(serde::Serialize)]
struct Image {
    reference: String,
    digest: String,
}

pub(super) fn run(args: Args) -> Result<String, CliError> {
    let json = args.json;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|e| CliError::new(Exit::Unavailable, format!("cannot start: {e}"), "try again"))?;
    let (reference, digest, built) = runtime.block_on(build_image(args))?;
    let Built {
        path,
        len,
        measurements,
        spec: _,
    } = &built;
    if json {
        let image = Image {
            reference: reference.to_string(),
            digest: digest.to_string(),
        };
        let output = Output {
            eif: path,
            image,
            measurements: *measurements,
        };
        return serde_json::to_string(&output)
            .map_err(|e| CliError::new(Exit::Bug, e, "please report this"));
    }
    Ok(format!(
        "{} ({:.1} MB)\nimage  {reference}\n       {digest}\nPCR0   {}\nPCR1   {}\nPCR2   {}",
        path.display(),
        *len as f64 / 1e6,
        measurements.pcr0,
        measurements.pcr1,
        measurements.pcr2
    ))
}

async fn build_image(args: Args) -> Result<(Reference, Digest, Built), CliError> {
    let reference = Reference::parse(&args.image)
        .map_err(|e| CliError::new(Exit::Usage, e, "see eif-builder build --help"))?;
    let manifest = read_manifest(args.spec.as_deref())?;
    let kernel =
        artifacts::find(artifacts::KERNEL, args.kernel.as_deref()).map_err(artifact_failure)?;
    let agent =
        artifacts::find(artifacts::AGENT, args.agent.as_deref()).map_err(artifact_failure)?;
    let build_time = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| {
            CliError::new(
                Exit::Config,
                "SOURCE_DATE_EPOCH is not a number of seconds",
                "correct or unset it",
            )
        })?,
        Err(_) => 0,
    };
    let credentials = find_credentials(&args, &reference).await?;
    let ca_cert = match &args.ca_cert {
        Some(path) => Some(std::fs::read(path).map_err(|e| {
            CliError::new(
                Exit::Config,
                format!("{}: {e}", path.display()),
                "check --ca-cert",
            )
        })?),
        None => None,
    };
    let work_dir = args
        .output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let request = PullRequest {
        reference: reference.clone(),
        platform: args.platform.clone(),
        credentials,
        endpoint: Endpoint {
            plain_http: args.plain_http.iter().cloned().collect(),
            ca_cert,
        },
        work_dir: work_dir.to_owned(),
        max_unpacked: DEFAULT_MAX_UNPACKED,
    };
    let bars = Arc::new(Bars::new());
    bars.start(&format!("looking up {reference}"));
    let image = pull::pull(request, bars.clone()).await;
    let image = image
        .inspect_err(|_| bars.finish())
        .map_err(CliError::from)?;
    let digest = image.digest();
    let inputs = Inputs {
        kernel,
        agent,
        cmdline: args.cmdline,
        manifest,
        build_time,
    };
    let (output, building) = (args.output.clone(), bars.clone());
    let built =
        tokio::task::spawn_blocking(move || build::build(&image, &inputs, &output, &*building))
            .await;
    bars.finish();
    match built {
        Ok(Ok(built)) => Ok((reference, digest, built)),
        Ok(Err(error)) => Err(build_failure(&error)),
        Err(error) => Err(CliError::new(
            Exit::Bug,
            format!("the build stopped: {error}"),
            "please report this",
        )),
    }
}

fn read_manifest(path: Option<&Path>) -> Result<Spec, CliError> {
    let Some(path) = path else {
        return Ok(Spec::default());
    };
    let fail = |e: &dyn std::fmt::Display| {
        CliError::new(
            Exit::Config,
            format!("{}: {e}", path.display()),
            "correct enclave.toml",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
    Spec::parse(&text).map_err(|e| fail(&e))
}

async fn find_credentials(
    args: &Args,
    reference: &Reference,
) -> Result<Option<Credentials>, CliError> {
    if let Some(username) = &args.username {
        let password = read_password().map_err(|e| {
            CliError::new(
                Exit::Usage,
                format!("cannot read the password: {e}"),
                "pipe it into standard input",
            )
        })?;
        return Ok(Some(Credentials::Password {
            username: username.clone(),
            password,
        }));
    }
    if let Some(path) = &args.authfile {
        let found = credentials::from_auth_file(path, reference)
            .await
            .map_err(CliError::from)?;
        let missing = || {
            CliError::new(
                Exit::Config,
                format!(
                    "{} has no credentials for {}",
                    path.display(),
                    reference.host()
                ),
                "log in to that registry first",
            )
        };
        return found.map(Some).ok_or_else(missing);
    }
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder =
        folder.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    match folder
        .map(|folder| folder.join("config.json"))
        .filter(|path| path.is_file())
    {
        Some(path) => credentials::from_auth_file(&path, reference)
            .await
            .map_err(CliError::from),
        None => Ok(None),
    }
}

fn read_password() -> std::io::Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .take(MAX_PASSWORD)
        .read_to_string(&mut text)?;
    let password = text.trim_end_matches(['\n', '\r']);
    match password.is_empty() {
        true => Err(std::io::Error::other("standard input is empty")),
        false => Ok(Secret::new(password)),
    }
}

fn artifact_failure(error: ArtifactError) -> CliError {
    CliError::new(Exit::Config, &error, error.hint())
}

fn build_failure(error: &BuildError) -> CliError {
    let code = match error {
        BuildError::Artifact(_) | BuildError::Spec(_) | BuildError::Cmdline => Exit::Config,
        BuildError::Write { .. } | BuildError::Rootfs(RootfsError::Write(_)) => Exit::Unavailable,
        BuildError::Rootfs(_) | BuildError::Eif(_) => Exit::Data,
    };
    CliError::new(code, error, error.hint())
}
