//! From an enclave image to an enclave that is attested.

use super::explain_exit::{boot_failed, exit_error, no_heartbeat};
use super::{AttestedEnclave, Context, DeployRequest, LoadedConfig, Prepared, Stages};
use crate::config::DaemonConfig;
use api::{DeployError, Stage};
use attestation::Measurements;
use eif_builder::store::StoredEif;
use explain::Code;
use launch::attest;
use launch::{Instance, LaunchRequest, Listener, Listeners, Logs, Reservation};
use relay::control::{Control, Report};
use relay::egress::{self, EgressPolicy};
use secrets::Signer;
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::control::FromHost;
use wire::sealed::Sealed;

/// From the heartbeat to a workload that was started: mounting and starting take well under a second, slow machines more, and KMS
/// may take half a minute.
const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(90);

/// Launches, waits for the heartbeat, starts the workload, and compares a fresh attestation document with the build.
pub(super) async fn boot_and_attest(
    context: &Context,
    mut request: DeployRequest,
    prepared: Prepared,
    config: Option<LoadedConfig>,
    logs: &Logs,
    stages: &mut Stages,
) -> Result<AttestedEnclave, DeployError> {
    let launcher = context.launchers.of(request.provider);
    let eif = &prepared.eif.eif;
    stages.enter(Stage::Allocate).await;
    let reservation = match request.reservation.take() {
        Some(reservation) => reservation,
        None => launcher.reserve(request.spec.resources)?,
    };
    stages.enter(Stage::Launch).await;
    let pcr16 = config.as_ref().map(|config| config.pcr16);
    let (boot, signer) = boot_message(context, eif, config).await?;
    let (mut instance, listeners) = launch(context, &request, eif, reservation).await?;
    let Listeners {
        heartbeat,
        control,
        egress,
    } = listeners;
    let egress = serve_egress(context, eif, egress);

    stages.enter(Stage::Heartbeat).await;
    await_heartbeat(context, &mut instance, &heartbeat).await?;
    stages.enter(Stage::Configure).await;
    let accepted = alive(
        &mut instance,
        Control::accept(&control, boot, signer, logs.clone()),
    )
    .await?;
    let mut control =
        accepted.map_err(|e| boot_failed(format!("the agent did not come up: {e}")))?;
    wait_until_running(context, &mut control, &mut instance, logs)
        .await
        .map_err(|error| explain_kms(error, eif, request.measured_before))?;

    stages.enter(Stage::Attest).await;
    let vsock = instance.vsock().clone();
    let evidence = launcher.evidence();
    let verified =
        attest::verify_launched(&vsock, evidence, &eif.measurements, pcr16, request.debug);
    alive(&mut instance, verified).await??;
    Ok(AttestedEnclave {
        instance,
        control,
        prepared,
        egress,
    })
}

/// What the agent is told first, and what signs its request to KMS if it has a config to open.
async fn boot_message(
    context: &Context,
    eif: &StoredEif,
    config: Option<LoadedConfig>,
) -> Result<(FromHost, Option<Signer>), DeployError> {
    let DaemonConfig { aws, kms, .. } = &context.config;
    let (Some(rules), Some(LoadedConfig { bytes, .. })) = (&eif.spec.config, config) else {
        return Ok((FromHost::Boot { config: None }, None));
    };
    let sealed = Sealed::parse(&bytes).map_err(DeployError::internal)?;
    let signer = Signer::new(aws, kms, rules, &sealed.header).await?;
    let config = Some(bytes);
    Ok((FromHost::Boot { config }, Some(signer)))
}

async fn launch(
    context: &Context,
    request: &DeployRequest,
    eif: &StoredEif,
    reservation: Reservation,
) -> Result<(Instance, Listeners), DeployError> {
    let launch = LaunchRequest {
        id: &request.id,
        eif: &eif.path,
        resources: request.spec.resources,
        run_dir: &context.config.run_dir,
        debug: request.debug,
    };
    let launcher = context.launchers.of(request.provider);
    Ok(launcher.launch(launch, reservation).await?)
}

/// Carries what the enclave may connect to, from its first moment on.
fn serve_egress(context: &Context, eif: &StoredEif, listener: Listener) -> JoinSet<()> {
    let policy = EgressPolicy {
        network: eif.spec.network.clone(),
        allow_networks: context.config.egress.allow_networks.clone(),
    };
    let mut serving = JoinSet::new();
    serving.spawn(egress::serve(listener, policy));
    serving
}

async fn await_heartbeat(
    context: &Context,
    instance: &mut Instance,
    listener: &Listener,
) -> Result<(), DeployError> {
    let limit = Duration::from_secs(context.config.launch.heartbeat_timeout_seconds);
    let heartbeat = alive(instance, timeout(limit, launch::heartbeat(listener))).await?;
    heartbeat
        .map_err(|_| no_heartbeat(limit, &instance.console()))?
        .map_err(DeployError::internal)
}

/// Waits for something that only a living enclave can bring.
async fn alive<T>(
    instance: &mut Instance,
    wanted: impl Future<Output = T>,
) -> Result<T, DeployError> {
    tokio::select! {
        biased;
        value = wanted => return Ok(value),
        () = instance.ended() => {}
    }
    let console = instance.console();
    Err(boot_failed(format!(
        "the enclave ended while booting: {console}"
    )))
}

/// Waits until the workload runs, and a moment longer: one that ends at once was never deployed.
async fn wait_until_running(
    context: &Context,
    control: &mut Control,
    instance: &mut Instance,
    logs: &Logs,
) -> Result<(), DeployError> {
    let first = timeout(CONFIGURE_TIMEOUT, control.report()).await;
    let first = first.map_err(|_| {
        let seconds = CONFIGURE_TIMEOUT.as_secs();
        boot_failed(format!(
            "the agent did not start the workload within {seconds} seconds"
        ))
    })?;
    if first != Report::Started {
        return Err(exit_error(&first, &instance.console(), logs));
    }
    let settle = Duration::from_millis(context.config.launch.settle_milliseconds);
    match timeout(settle, control.report()).await {
        Err(_) => Ok(()),
        Ok(report) => Err(exit_error(&report, &instance.console(), logs)),
    }
}

/// KMS does not say which condition failed. What can be told is what this enclave measures to, and what changed since the last deploy.
fn explain_kms(error: DeployError, eif: &StoredEif, before: Option<Measurements>) -> DeployError {
    if error.code != Code::KmsRefused {
        return error;
    }
    let pcr0 = eif.measurements.pcr0;
    let before = before.filter(|before| before.pcr0 != pcr0);
    let changed =
        before.map(|before| format!(" (it was {} when it was attested last)", before.pcr0));
    let next_step = format!(
        "Allow kms:Decrypt in the key's policy for kms:RecipientAttestation:ImageSha384 = {pcr0}, PCR0 of this image{}; compare it with \
         your own build before you do.",
        changed.unwrap_or_default()
    );
    DeployError { next_step, ..error }
}
