//! `eif-builder build`.

use super::credentials::Login;
use super::progress::ProgressBars;
use super::{output, spec};
use eif_builder::artifacts;
use eif_builder::build::{self, Built, DEFAULT_CMDLINE, Inputs, Parts};
use explain::{CliError, Exit};
use oci::pull::{DEFAULT_MAX_UNPACKED, PullRequest, pull};
use oci::{Digest, Endpoint, Platform, Reference, VerifiedImage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::spec::Spec;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --username and --authfile, credentials come from docker's configuration, \
    $DOCKER_CONFIG/config.json or ~/.docker/config.json, and its credential helpers.\n\n\
    Example:\n  printf %s \"$TOKEN\" | eif-builder build ghcr.io/my-org/app:v1 \\\n    \
    --username me --password-stdin -o app.eif --json"
)]
pub(super) struct Args {
    /// Image to build from: registry-host/namespace/image[:tag][@sha256:digest]
    image: String,
    /// Where to write the enclave image
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Spec of the enclave (enclave.toml) [default: run the image as it is, without a network]
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Kernel, a bzImage [default: searched in $REDOUBT_LIB, beside this program, in
    /// /usr/lib/redoubt and the sandbox]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Statically linked enclave-agent [default: searched in the same places]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Kernel command line; it is measured
    #[arg(long, default_value = DEFAULT_CMDLINE, hide_default_value = true)]
    cmdline: String,
    /// Platform to choose from a multi-platform image
    #[arg(long, default_value = "linux/amd64")]
    platform: Platform,
    #[command(flatten)]
    login: Login,
    /// PEM file of a CA to trust in addition to the system's
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Use HTTP without TLS for this host[:port]; may be repeated
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
    parts: &'a Parts,
    /// The enclave opens a sealed config before its workload starts. For `attest`, which then
    /// requires that one was opened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sealed_config: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cautions: Vec<String>,
}

#[derive(serde::Serialize)]
struct Image {
    reference: String,
    digest: String,
}

/// Pulls and builds, and returns the result, for people or as JSON.
pub(super) async fn run(args: Args) -> Result<String, CliError> {
    let json = args.json;
    let reference = Reference::parse(&args.image)
        .map_err(|e| CliError::new(Exit::Usage, e, "See eif-builder build --help."))?;
    let inputs = inputs(&args)?;
    let request = request(&args, &reference).await?;
    let bars = Arc::new(ProgressBars::new());
    bars.start(&format!("looking up {reference}"));
    let image = pull(request, bars.clone())
        .await
        .inspect_err(|_| bars.finish())?;
    let digest = image.digest();
    let built = build(image, inputs, args.output, bars).await?;
    output::caution(&built.spec.cautions());
    if json {
        to_json(&reference, digest, &built)
    } else {
        Ok(to_text(&reference, digest, &built))
    }
}

async fn build(
    image: VerifiedImage,
    inputs: Inputs,
    output: PathBuf,
    bars: Arc<ProgressBars>,
) -> Result<Built, CliError> {
    let built = tokio::task::spawn_blocking(move || {
        let built = build::build(&image, &inputs, &output, &*bars);
        bars.finish();
        built
    });
    let built = built
        .await
        .map_err(|e| CliError::bug(format!("the build stopped: {e}")))?;
    Ok(built?)
}

fn inputs(args: &Args) -> Result<Inputs, CliError> {
    Ok(Inputs {
        spec: match &args.spec {
            Some(path) => spec::read(path)?,
            None => Spec::default(),
        },
        kernel: artifacts::find(artifacts::KERNEL, args.kernel.as_deref())?,
        agent: artifacts::find(artifacts::AGENT, args.agent.as_deref())?,
        cmdline: args.cmdline.clone(),
        build_time: build_time()?,
    })
}

/// The time that reproducible builds agree on
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn build_time() -> Result<u64, CliError> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else {
        return Ok(0);
    };
    text.parse().map_err(|_| {
        CliError::new(
            Exit::Config,
            "SOURCE_DATE_EPOCH is not a number of seconds",
            "Correct it or unset it.",
        )
    })
}

async fn request(args: &Args, reference: &Reference) -> Result<PullRequest, CliError> {
    let output_directory = args.output.parent();
    let work_dir = output_directory
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Ok(PullRequest {
        reference: reference.clone(),
        platform: args.platform.clone(),
        credentials: args.login.find(reference).await?,
        endpoint: Endpoint {
            plain_http: args.plain_http.iter().cloned().collect(),
            ca_cert: args.ca_cert.as_deref().map(read_ca).transpose()?,
        },
        work_dir: work_dir.to_owned(),
        max_unpacked: DEFAULT_MAX_UNPACKED,
    })
}

fn read_ca(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|e| {
        let message = format!("cannot read {}: {e}", path.display());
        CliError::new(Exit::Config, message, "Check --ca-cert.")
    })
}

fn to_json(reference: &Reference, digest: Digest, built: &Built) -> Result<String, CliError> {
    let cautions = built.spec.cautions();
    let output = Output {
        eif: &built.path,
        image: Image {
            reference: reference.to_string(),
            digest: digest.to_string(),
        },
        measurements: built.measurements,
        parts: &built.parts,
        sealed_config: built.spec.config.is_some(),
        cautions: cautions.iter().map(ToString::to_string).collect(),
    };
    serde_json::to_string(&output).map_err(CliError::bug)
}

fn to_text(reference: &Reference, digest: Digest, built: &Built) -> String {
    let Built {
        path,
        len,
        measurements,
        spec: _,
        parts: _,
    } = built;
    format!(
        "{} ({:.1} MB)\nimage  {reference}\n       {digest}\nPCR0   {}\nPCR1   {}\nPCR2   {}",
        path.display(),
        *len as f64 / 1e6,
        measurements.pcr0,
        measurements.pcr1,
        measurements.pcr2
    )
}
