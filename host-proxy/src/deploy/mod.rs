//! One deploy, from credentials to an attested enclave. Straight down; each stage is announced before it begins.
//! Cancelling at any point leaves nothing: processes die and unnamed files vanish with the values that own them.
//!
//! ```text
//! Target ──► source::prepare ──► Prepared ──► boot::boot_and_attest ──► AttestedEnclave ── open ──► ServingEnclave
//! ```

mod boot;
mod eifs;
mod explain_exit;
mod image;
mod progress;
mod source;

pub use eifs::Eifs;
pub(crate) use eifs::LeasedEif;
pub(crate) use explain_exit::exit_error;
pub(crate) use source::{Prepared, Target};

use crate::config::DaemonConfig;
use crate::sealed::SealedConfigs;
use api::{ConfigRecord, DeployError, EnclaveId, Provider, Release, SourceType, Stage};
use attestation::Measurements;
use audit::AuditLog;
use broker::Issuer;
use explain::Code;
use launch::{Instance, Launchers, Logs, Reservation};
use oci::Digest;
use relay::control::Control;
use relay::ingress::{self, IngressListeners};
use secrets::SecretStore;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wire::spec::{NetworkSpec, Resources, Spec};

/// What every deploy of this daemon shares.
#[derive(Debug)]
pub struct Context {
    /// Where orders and issued credentials are written before they count.
    pub audit: AuditLog,
    /// The daemon's configuration.
    pub config: DaemonConfig,
    /// Where registry credentials live.
    pub secrets: SecretStore,
    /// Where sealed configs live.
    pub configs: SealedConfigs,
    /// Where EIFs live.
    pub eifs: Eifs,
    /// Issues credentials for the configured registry.
    pub issuer: Option<Arc<Issuer>>,
    /// What starts enclaves, for each provider.
    pub launchers: Launchers,
}

/// What is to be deployed.
#[derive(Debug)]
pub struct DeployRequest {
    /// The enclave.
    pub id: EnclaveId,
    /// What it is to run.
    pub target: Target,
    /// enclave.toml.
    pub spec: Spec,
    /// Where credentials for the image come from.
    pub source_type: SourceType,
    /// What is to run it.
    pub provider: Provider,
    /// Launch it in debug mode.
    pub debug: bool,
    /// The secret that holds them, if they are stored.
    pub credentials_arn: Option<String>,
    /// The sealed config to boot with.
    pub config: Option<ConfigRecord>,
    /// What the deploy before measured to.
    pub measured_before: Option<Measurements>,
    /// Resources that were set aside already.
    pub reservation: Option<Reservation>,
    /// Where the image may be spooled and the EIF is built.
    pub directory: PathBuf,
}

/// What a deploy reports while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeployEvent {
    /// A stage begins.
    Entered(Stage),
    /// Bytes of a stage.
    Progress {
        /// Which stage.
        stage: Stage,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The reference means this manifest.
    Resolved(Digest),
    /// The build measures to this.
    Measured(Measurements),
}

/// A deployed enclave and all that serves it. Dropping it kills the enclave.
#[derive(Debug)]
pub struct ServingEnclave {
    pub(crate) enclave: AttestedEnclave,
    pub(crate) listeners: IngressListeners,
}

/// An enclave that is attested, and that nothing outside can reach yet. Dropping it kills the enclave.
#[derive(Debug)]
pub struct AttestedEnclave {
    pub(crate) instance: Instance,
    pub(crate) control: Control,
    pub(crate) prepared: Prepared,
    pub(crate) egress: JoinSet<()>,
}

impl AttestedEnclave {
    /// Lets the world in. If that fails, the enclave comes back as it was.
    pub async fn open(
        self,
        network: &NetworkSpec,
        resources: Resources,
    ) -> Result<ServingEnclave, (AttestedEnclave, DeployError)> {
        match ingress::open(network, resources, self.instance.vsock()).await {
            Ok(listeners) => Ok(ServingEnclave {
                enclave: self,
                listeners,
            }),
            Err(error) => Err((self, error.into())),
        }
    }
}

/// Deploys: from the image reference to an enclave that serves.
pub async fn run(
    context: Arc<Context>,
    request: DeployRequest,
    logs: Logs,
    events: mpsc::Sender<DeployEvent>,
) -> Result<ServingEnclave, DeployError> {
    let (network, resources) = (request.spec.network.clone(), request.spec.resources);
    let mut stages = Stages {
        events,
        current: Stage::Credentials,
    };
    let attested = deploy(&context, request, &logs, &mut stages).await;
    let opened = match attested {
        Ok(attested) => {
            let opened = attested.open(&network, resources).await;
            opened.map_err(|(_, error)| error)
        }
        Err(error) => Err(error),
    };
    opened.map_err(|error| stages.locate(error))
}

/// How a replacement ended that did not fail.
#[derive(Debug)]
pub(crate) enum Replacement {
    /// It is ready to take over.
    Attested(Box<AttestedEnclave>),
    /// It is built, and there is no room for it beside the enclave that runs.
    NoRoom(Box<Prepared>),
    /// It was only to be built.
    Planned(Box<Release>),
}

/// Prepares and launches beside the enclave that runs, or only says what would be launched.
pub(crate) async fn replace(
    context: Arc<Context>,
    request: DeployRequest,
    logs: Logs,
    is_dry_run: bool,
) -> Result<Replacement, DeployError> {
    // These stages are not shown: the enclave stays as it is all the while.
    let (events, _) = mpsc::channel(1);
    let mut stages = Stages {
        events,
        current: Stage::Credentials,
    };
    let result = prepare_beside(&context, request, &logs, is_dry_run, &mut stages).await;
    result.map_err(|error| stages.locate(error))
}

async fn prepare_beside(
    context: &Context,
    mut request: DeployRequest,
    logs: &Logs,
    is_dry_run: bool,
    stages: &mut Stages,
) -> Result<Replacement, DeployError> {
    if is_dry_run {
        let release = source::measure(context, &request, stages).await?;
        return Ok(Replacement::Planned(Box::new(release)));
    }
    let config = check(context, &request)?;
    let prepared = source::prepare(context, &request, stages).await?;
    if request.reservation.is_none() {
        let launcher = context.launchers.of(request.provider);
        match launcher.reserve(request.spec.resources) {
            Ok(reservation) => request.reservation = Some(reservation),
            Err(_) => return Ok(Replacement::NoRoom(Box::new(prepared))),
        }
    }
    let attested = boot::boot_and_attest(context, request, prepared, config, logs, stages).await?;
    Ok(Replacement::Attested(Box::new(attested)))
}

/// Where a deploy is, and who wants to know.
struct Stages {
    events: mpsc::Sender<DeployEvent>,
    current: Stage,
}

impl Stages {
    /// An error belongs to the stage in which it happened, unless it names another.
    fn locate(&self, error: DeployError) -> DeployError {
        if error.stage.is_some() {
            error
        } else {
            error.at(self.current)
        }
    }

    async fn enter(&mut self, stage: Stage) {
        self.current = stage;
        self.report(DeployEvent::Entered(stage)).await;
    }

    /// A deploy goes on although no one listens any more.
    async fn report(&self, event: DeployEvent) {
        self.events.send(event).await.ok();
    }
}

async fn deploy(
    context: &Context,
    request: DeployRequest,
    logs: &Logs,
    stages: &mut Stages,
) -> Result<AttestedEnclave, DeployError> {
    let config = check(context, &request)?;
    let prepared = source::prepare(context, &request, stages).await?;
    boot::boot_and_attest(context, request, prepared, config, logs, stages).await
}

/// What is missing on this machine is said before anything is downloaded.
fn check(context: &Context, request: &DeployRequest) -> Result<Option<LoadedConfig>, DeployError> {
    if !context.eifs.holds(request.target.measurements) {
        image::Artifacts::find(&context.config.build)?;
    }
    let found = context.launchers.of(request.provider).preflight();
    found.map_err(|e| DeployError::from(e).at(Stage::Launch))?;
    let config = request.config.as_ref();
    config
        .map(|config| load_config(context, &request.id, config))
        .transpose()
}

/// A sealed config, and what PCR16 of an enclave is that opened it.
struct LoadedConfig {
    pcr16: attestation::Pcr,
    bytes: Vec<u8>,
}

fn load_config(
    context: &Context,
    id: &EnclaveId,
    config: &ConfigRecord,
) -> Result<LoadedConfig, DeployError> {
    let missing = |error: std::io::Error| {
        let message = format!("the sealed config cannot be read: {error}");
        DeployError::new(
            Code::ConfigMissing,
            message,
            Code::ConfigMissing.next_step(),
        )
    };
    let bytes = context.configs.load(id, config).map_err(missing)?;
    Ok(LoadedConfig {
        pcr16: eif_builder::seal::pcr16(&bytes),
        bytes,
    })
}
