//! One deploy, from credentials to an attested enclave. Straight down; each stage is announced before it begins.
//! Cancelling at any point leaves nothing: processes die and unnamed files vanish with the values that own them.
//!
//! ```text
//! Source ──► image::build ──► Built ──► boot::boot_and_attest ──► AttestedEnclave ── open ──► ServingEnclave
//! ```

mod boot;
mod explain_exit;
mod image;
mod progress;

pub(crate) use explain_exit::exit_error;

use crate::config::DaemonConfig;
use crate::control::Control;
use crate::ingress::{self, IngressListeners};
use crate::sealed::SealedConfigs;
use api::{ConfigRecord, DeployError, EnclaveId, Provider, SourceType, Stage};
use attestation::Measurements;
use audit::AuditLog;
use broker::Issuer;
use eif_builder::build::Built;
use explain::Code;
use launch::{Instance, Launchers, Logs, Reservation};
use oci::{Digest, Reference};
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
    /// The image.
    pub image: Reference,
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
    /// What an earlier deploy built of the same image and spec: it is launched again as it is.
    pub built: Option<Built>,
    /// Resources that were set aside already.
    pub reservation: Option<Reservation>,
    /// Where the image may be spooled and the EIF is written.
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
    pub(crate) built: Built,
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

/// Launches what was built once more, with another config, beside the enclave that runs.
pub async fn replace(
    context: Arc<Context>,
    request: DeployRequest,
    logs: Logs,
) -> Result<AttestedEnclave, DeployError> {
    // These stages are not shown: the enclave that runs is deployed all the while.
    let (events, _) = mpsc::channel(1);
    let mut stages = Stages {
        events,
        current: Stage::Allocate,
    };
    let result = deploy(&context, request, &logs, &mut stages).await;
    result.map_err(|error| stages.locate(error))
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

/// What an enclave is launched from.
enum Source {
    Build(image::Artifacts),
    Reuse(Box<Built>),
}

async fn deploy(
    context: &Context,
    request: DeployRequest,
    logs: &Logs,
    stages: &mut Stages,
) -> Result<AttestedEnclave, DeployError> {
    // What is missing on this machine is said before anything is downloaded.
    let source = match &request.built {
        Some(built) => Source::Reuse(Box::new(built.clone())),
        None => Source::Build(image::Artifacts::find(&context.config.build)?),
    };
    let found = context.launchers.of(request.provider).preflight();
    found.map_err(|e| DeployError::from(e).at(Stage::Launch))?;
    let config = request
        .config
        .as_ref()
        .map(|config| load_config(context, &request.id, config));
    let config = config.transpose()?;
    let built = match source {
        Source::Reuse(built) => *built,
        Source::Build(artifacts) => image::build(context, &request, artifacts, stages).await?,
    };
    boot::boot_and_attest(context, request, built, config, logs, stages).await
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
