//! One deploy, from credentials to an attested enclave. Straight down; each stage is announced before it begins.
//! Cancelling at any point leaves nothing: processes die and unnamed files vanish with the values that own them.

mod progress;

use self::progress::Progress;
use crate::attest;
use crate::broker::Issuer;
use crate::broker::provider::{Action, ProviderError};
use crate::config::Config;
use crate::control::{self, Control, Report};
use crate::egress::{self, Policy};
use crate::fault::{Code, Fault};
use crate::ingress::{self, Gate};
use crate::launch::{Listeners, Qemu, Running, Vsock};
use crate::lifecycle::Stage;
use crate::logs::Logs;
use crate::record::{ConfigRecord, EnclaveId, SourceType};
use crate::role;
use crate::sealed::Configs;
use crate::secrets::{SecretError, SecretStore};
use attestation::Measurements;
use eif_builder::artifacts;
use eif_builder::build::{self, Built, DEFAULT_CMDLINE, Inputs};
use oci::pull::{self, DEFAULT_MAX_UNPACKED, Request};
use oci::{
    Credentials, Digest, Endpoint, Platform, PullError, Reference, VerifiedImage,
};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::control::{Failure, FromHost};
use wire::spec::Spec;

/// From the heartbeat to a workload that was started: mounting and starting take well under a second, slow machines more, and KMS
/// may take half a minute.
const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(90);
/// A workload that ends within this was never deployed.
const SETTLE: Duration = Duration::from_secs(1);

/// What every deploy of this daemon shares.
#[derive(Debug)]
pub struct Context {
    pub config: Config,
    pub secrets: SecretStore,
    pub configs: Configs,
    /// Makes credentials for the configured registry.
    pub issuer: Option<Arc<Issuer>>,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub id: EnclaveId,
    pub image: Reference,
    pub manifest: Spec,
    pub source_type: SourceType,
    pub credentials_arn: Option<String>,
    pub config: Option<ConfigRecord>,
    /// What the deploy before measured to.
    pub measured_before: Option<Measurements>,
    /// What an earlier deploy built of the same image and spec: it is launched again as it is.
    pub built: Option<Built>,
    /// Where the image may be spooled and the EIF is written.
    pub folder: PathBuf,
}

/// What a deploy tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    Entered(Stage),
    Progress { stage: Stage, done: u64, total: u64 },
    Resolved(Digest),
    Measured(Measurements),
}

/// A deployed enclave and all that serves it. Dropping it kills the enclave.
#[derive(Debug)]
pub struct Live {
    pub running: Running,
    pub control: Control,
    pub gate: Gate,
    pub built: Built,
    pub(crate) egress: JoinSet<()>,
}

/// An enclave that is attested, and that nobody reaches yet.
#[derive(Debug)]
pub struct Candidate {
    pub(crate) running: Running,
    pub(crate) control: Control,
    pub(crate) built: Built,
    pub(crate) egress: JoinSet<()>,
}

impl Candidate {
    /// Lets the world in.
    pub async fn open(self, manifest: &Spec) -> Result<Live, Fault> {
        let Candidate {
            running,
            control,
            built,
            egress,
        } = self;
        let gate = ingress::open(&manifest.network, running.vsock())
            .await
            .map_err(|e| {
                Fault::new(
                    Code::LaunchFailed,
                    e.to_string(),
                    "choose another 'listen' address in enclave.toml, or leave it out",
                )
            })?;
        Ok(Live {
            running,
            control,
            gate,
            built,
            egress,
        })
    }
}

pub async fn run(
    context: Arc<Context>,
    order: Order,
    logs: Logs,
    notes: mpsc::Sender<Note>,
) -> Result<Live, Fault> {
    let mut stages = Stages {
        notes: notes.clone(),
        current: Stage::Credentials,
    };
    let result = async {
        let candidate = walk(&context, &order, &logs, &mut stages).await?;
        candidate.open(&order.manifest).await
    };
    let result = result.await;
    result.map_err(|fault| stages.name(fault))
}

/// Launches what was built once more, with another config, beside the enclave that runs.
pub async fn replace(context: Arc<Context>, order: Order, logs: Logs) -> Result<Candidate, Fault> {
    // Nobody follows these stages: the enclave that runs is deployed all the while.
    let (notes, _) = mpsc::channel(1);
    let mut stages = Stages {
        notes,
        current: Stage::Allocate,
    };
    let result = walk(&context, &order, &logs, &mut stages).await;
    result.map_err(|fault| stages.name(fault))
}

struct Stages {
    notes: mpsc::Sender<Note>,
    current: Stage,
}

impl Stages {
    fn name(&self, fault: Fault) -> Fault {
        match fault.stage {
            Some(_) => fault,
            None => fault.at(self.current),
        }
    }

    async fn enter(&mut self, stage: Stage) {
        self.current = stage;
        let _ = self.notes.send(Note::Entered(stage)).await;
    }
}

async fn walk(
    context: &Context,
    order: &Order,
    logs: &Logs,
    stages: &mut Stages,
) -> Result<Candidate, Fault> {
    // What is missing on this machine is said before anything is downloaded.
    let parts = order.built.is_none().then(Parts::find).transpose()?;
    let qemu = Qemu::find(&context.config.qemu).map_err(|e| Fault::from(e).at(Stage::Launch))?;
    let config = order
        .config
        .as_ref()
        .map(|config| load_config(context, &order.id, config))
        .transpose()?;
    let built = match (&order.built, parts) {
        (Some(built), _) => built.clone(),
        (None, Some(parts)) => make(context, order, parts, stages).await?,
        (None, None) => return Err(Fault::internal("there is nothing to build from")),
    };

    stages.enter(Stage::Allocate).await;
    let resources = order.manifest.resources;
    Qemu::check_memory(resources)?;
    stages.enter(Stage::Launch).await;
    let credentials = match &config {
        Some(_) => Some(role::credentials().await?),
        None => None,
    };
    let (mut running, listeners) = qemu
        .launch(&order.id, &built.path, resources, &context.config.run_dir)
        .await?;
    let Listeners {
        heartbeat,
        control,
        egress,
    } = listeners;
    let policy = Policy {
        network: built.spec.network.clone(),
        allow_networks: context.config.egress.allow_networks.clone(),
    };
    let mut serving = JoinSet::new();
    serving.spawn(egress::serve(egress, policy));

    stages.enter(Stage::Heartbeat).await;
    let limit = Duration::from_secs(context.config.qemu.heartbeat_timeout_seconds);
    alive(&mut running, timeout(limit, control::heartbeat(&heartbeat)))
        .await?
        .map_err(|_| no_heartbeat(limit, &running))?
        .map_err(Fault::internal)?;
    stages.enter(Stage::Configure).await;
    let pcr16 = config.as_ref().map(|(pcr16, _)| *pcr16);
    let boot = FromHost::Boot {
        config: config.map(|(_, bytes)| bytes),
        credentials,
    };
    let accepted = alive(&mut running, Control::accept(&control, boot, logs.clone())).await?;
    let mut control =
        accepted.map_err(|e| boot_failed(format!("the agent did not come up: {e}")))?;
    started(&mut control, &mut running, logs)
        .await
        .map_err(|fault| explain_refusal(fault, &built, order.measured_before))?;

    stages.enter(Stage::Attest).await;
    let vsock: Vsock = running.vsock().clone();
    alive(
        &mut running,
        attest::gate(&vsock, &built.measurements, pcr16),
    )
    .await??;
    Ok(Candidate {
        running,
        control,
        built,
        egress: serving,
    })
}

/// What an enclave image is made of beside the container image.
struct Parts {
    kernel: PathBuf,
    agent: PathBuf,
}

impl Parts {
    fn find() -> Result<Parts, Fault> {
        let found = |name| artifacts::find(name, None).map_err(|e| Fault::from(e).at(Stage::Build));
        Ok(Parts {
            kernel: found(artifacts::KERNEL)?,
            agent: found(artifacts::AGENT)?,
        })
    }
}

/// From the registry to an enclave image.
async fn make(
    context: &Context,
    order: &Order,
    Parts { kernel, agent }: Parts,
    stages: &mut Stages,
) -> Result<Built, Fault> {
    stages.enter(Stage::Credentials).await;
    let credentials = fetch_credentials(context, order).await?;
    stages.enter(Stage::Resolve).await;
    let image = pull_image(context, order, credentials, stages).await?;
    stages.enter(Stage::Build).await;
    let inputs = Inputs {
        kernel,
        agent,
        cmdline: DEFAULT_CMDLINE.to_owned(),
        manifest: order.manifest.clone(),
        build_time: 0,
    };
    let built = build_image(image, inputs, order.folder.join("image.eif"), stages).await?;
    let _ = stages.notes.send(Note::Measured(built.measurements)).await;
    Ok(built)
}

/// The sealed config, and what PCR16 of an enclave is that opened it.
fn load_config(
    context: &Context,
    id: &EnclaveId,
    config: &ConfigRecord,
) -> Result<(attestation::Pcr, Vec<u8>), Fault> {
    let missing = |problem: &dyn std::fmt::Display| {
        Fault::new(
            Code::ConfigMissing,
            format!("the sealed config cannot be read: {problem}"),
            "give it again with 'enclavectl configure'",
        )
    };
    let bytes = context.configs.load(id, config).map_err(|e| missing(&e))?;
    Ok((eif_builder::seal::pcr16(&bytes), bytes))
}

/// KMS does not say which condition failed. What can be told is what this enclave measures to, and what changed since the last deploy.
fn explain_refusal(fault: Fault, built: &Built, before: Option<Measurements>) -> Fault {
    if fault.code != Code::KmsRefused {
        return fault;
    }
    let pcr0 = built.measurements.pcr0;
    let changed = match before.filter(|before| before.pcr0 != pcr0) {
        Some(before) => format!("; at the deploy before it was {}", before.pcr0),
        None => String::new(),
    };
    let hint = format!(
        "the key's policy must allow kms:Decrypt for kms:RecipientAttestation:ImageSha384 = {pcr0}, PCR0 of this image{changed}; compare it with \
         your own build before you allow it"
    );
    Fault { hint, ..fault }
}

async fn fetch_credentials(context: &Context, order: &Order) -> Result<Option<Credentials>, Fault> {
    if order.source_type == SourceType::ConfiguredRegistry {
        return make_credentials(context, order).await;
    }
    let Some(arn) = &order.credentials_arn else {
        return Ok(None);
    };
    let fetched = context.secrets.fetch(arn).await.map_err(|error| {
        let retryable = matches!(error, SecretError::Failed { .. });
        let hint = "check that the daemon may read its secrets; if this one is gone, terminate the enclave and create it again";
        Fault { retryable, ..Fault::new(Code::SecretUnavailable, error.to_string(), hint) }
    })?;
    Ok(Some(fetched.into()))
}

/// Credentials that are good for this pull and a few hours, and are kept nowhere.
async fn make_credentials(context: &Context, order: &Order) -> Result<Option<Credentials>, Fault> {
    let gone = || {
        Fault::new(
            Code::SecretUnavailable,
            "[registry] of the daemon's configuration has no credentials for this image any more",
            "put it back, or terminate the enclave and create it again with credentials",
        )
    };
    let issuer = context.issuer.as_ref().ok_or_else(gone)?;
    let mut last = gone();
    for project in issuer.projects_of(&order.image) {
        match issuer.credentials(&project, Action::Pull).await {
            Ok(issued) => {
                let (enclave, project, expires_at) = (&order.id, project.as_str(), issued.ends());
                tracing::info!(target: "audit", %enclave, project, action = "pull", expires_at, "credentials issued for a deploy");
                return Ok(issued
                    .login
                    .map(|(username, password)| Credentials::Password { username, password }));
            }
            // Perhaps the name goes on below a project.
            Err(error @ ProviderError::NoProject(_)) => last = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last)
}

async fn pull_image(
    context: &Context,
    order: &Order,
    credentials: Option<Credentials>,
    stages: &mut Stages,
) -> Result<VerifiedImage, Fault> {
    let config = &context.config.pull;
    let ca_cert = match config.ca_cert.as_os_str().is_empty() {
        true => None,
        false => Some(tokio::fs::read(&config.ca_cert).await.map_err(|e| {
            Fault::new(
                Code::Internal,
                format!("{}: {e}", config.ca_cert.display()),
                "correct pull.ca_cert in the configuration",
            )
        })?),
    };
    let request = Request {
        reference: order.image.clone(),
        platform: Platform::linux_amd64(),
        credentials,
        endpoint: Endpoint {
            plain_http: config.plain_http.clone(),
            ca_cert,
        },
        work_dir: order.folder.clone(),
        max_unpacked: DEFAULT_MAX_UNPACKED,
    };
    let progress = Arc::new(Progress::new(stages.notes.clone()));
    let pulled = pull::pull(request, progress.clone()).await;
    stages.current = progress.stage();
    if let (
        Err(error @ PullError::Unauthorized { .. }),
        Some(issuer),
        SourceType::ConfiguredRegistry,
    ) = (&pulled, &context.issuer, order.source_type)
    {
        // They were revoked, or ended on the way: the next deploy gets others.
        issuer
            .projects_of(&order.image)
            .iter()
            .for_each(|project| issuer.forget_one(project, Action::Pull));
        let hint = "redeploy: the daemon makes new credentials; if they are refused too, look at what its role or account may do there";
        return Err(Fault::new(Code::RegistryUnauthorized, error.to_string(), hint).retryable());
    }
    Ok(pulled?)
}

async fn build_image(
    image: VerifiedImage,
    inputs: Inputs,
    output: PathBuf,
    stages: &Stages,
) -> Result<Built, Fault> {
    let progress = Progress::new(stages.notes.clone());
    let building =
        tokio::task::spawn_blocking(move || build::build(&image, &inputs, &output, &progress));
    Ok(building.await.map_err(Fault::internal)??)
}

/// Waits for something that only a living enclave can bring.
async fn alive<T>(running: &mut Running, wanted: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::select! {
        biased;
        value = wanted => Ok(value),
        _ = running.ended() => Err(boot_failed(format!("the enclave ended while booting: {}", running.console()))),
    }
}

fn no_heartbeat(limit: Duration, running: &Running) -> Fault {
    Fault::new(
        Code::HeartbeatMissing,
        format!(
            "the enclave sent no heartbeat within {} seconds; its console ends with: {}",
            limit.as_secs(),
            running.console()
        ),
        "check that kernel and agent belong together and that memory_mib is enough for the image",
    )
}

fn boot_failed(message: String) -> Fault {
    Fault::new(
        Code::BootFailed,
        message,
        "check that memory_mib is enough for the image, and that kernel and agent are Redoubt's own",
    )
}

/// Waits until the workload runs, and a moment longer: one that ends at once was never there.
async fn started(control: &mut Control, running: &mut Running, logs: &Logs) -> Result<(), Fault> {
    let first = timeout(CONFIGURE_TIMEOUT, control.report()).await;
    match first.map_err(|_| {
        boot_failed("the agent did not start the workload within 90 seconds".to_owned())
    })? {
        Report::Started => {}
        other => return Err(ended(&other, running, logs)),
    }
    match timeout(SETTLE, control.report()).await {
        Err(_) => Ok(()),
        Ok(report) => Err(ended(&report, running, logs)),
    }
}

/// The fault that a last report means.
pub(crate) fn ended(report: &Report, running: &Running, logs: &Logs) -> Fault {
    match report {
        Report::Failed { failure, detail } => workload_fault(*failure, detail),
        Report::Exited(exit) => {
            let line = logs.last_line();
            let said = if line.is_empty() {
                String::new()
            } else {
                format!("; its last line: {line}")
            };
            Fault::new(
                Code::WorkloadExited,
                format!("the workload ended with {exit}{said}"),
                "read 'enclavectl logs' (the spec needs [logs] forward = true); a service must stay in the foreground",
            )
        }
        Report::Started => Fault::internal("the agent started the workload twice"),
        Report::Lost(reason) => Fault::new(
            Code::EnclaveLost,
            format!(
                "the enclave was lost: {reason}; its console ends with: {}",
                running.console()
            ),
            "redeploy it",
        )
        .retryable(),
    }
}

fn workload_fault(failure: Failure, detail: &str) -> Fault {
    let (code, hint) = match failure {
        Failure::NotFound => (
            Code::WorkloadNotFound,
            "check the image's Entrypoint and Cmd, or [run] command in enclave.toml",
        ),
        Failure::NotExecutable => (
            Code::WorkloadNotExecutable,
            "check that the program is executable, for this platform, and that its libraries are in the image",
        ),
        Failure::User => (
            Code::UserNotFound,
            "check the image's User, or [run] user in enclave.toml",
        ),
        Failure::WorkingDir => (
            Code::WorkloadNotExecutable,
            "check the image's WorkingDir, or [run] working_dir in enclave.toml",
        ),
        Failure::ConfigMissing => (
            Code::ConfigMissing,
            "give it with 'enclavectl configure'; 'enclavectl seal' makes one",
        ),
        Failure::ConfigDamaged
        | Failure::ConfigForeign
        | Failure::ConfigTooOld
        | Failure::ConfigUnusable => (
            Code::ConfigRefused,
            "seal it again for this spec, and give it with 'enclavectl configure'",
        ),
        Failure::KmsRefused => (
            Code::KmsRefused,
            "check the key's policy and the instance's role",
        ),
        Failure::KmsAnswer => (
            Code::KmsRefused,
            "ask a KMS that knows attested requests (Recipient); emulators of it do not",
        ),
        Failure::KmsUnreachable => (
            Code::KmsUnreachable,
            "check that this machine reaches the KMS endpoint of the spec; redeploy",
        ),
        Failure::KmsTls => (
            Code::KmsUnreachable,
            "check the spec's config.endpoint and config.ca; if they are right, somebody stands in between",
        ),
        Failure::EgressRefused => (
            Code::KmsUnreachable,
            "a private KMS endpoint must be exempted with egress.allow_networks in the daemon's configuration",
        ),
        Failure::Clock => (Code::BootFailed, "check this machine's clock, and redeploy"),
        Failure::Spec | Failure::RootFs | Failure::Network | Failure::Nsm => (
            Code::BootFailed,
            "check that kernel and agent are Redoubt's own, and that memory_mib is enough for the image",
        ),
    };
    Fault::new(code, format!("the enclave gave up: {detail}"), hint)
}
