//! The sequence of a life, from the first mount to the workload's end.

use crate::boundary::Boundary;
use crate::capacity::Capacity;
use crate::config::{BootPayload, Variables};
use crate::control::{Control, Report};
use crate::error::BootError;
use crate::gates::{self, Findings};
use crate::network::Refusals;
use crate::nsm::{Device, Lane, Nsm, Requester};
use crate::output::LogQueue;
use crate::service::Service;
use crate::user::User;
use crate::{
    attest, boundary, config, console, forward, ingress, mounts, network, nsm, parent, rootfs,
    workload,
};
use nix::sys::resource::{Resource, setrlimit};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use wire::control::{AbortReason, WorkloadExit};
use wire::spec::MeasuredSpec;

/// How long the host may take for the heartbeat.
const HOST_TIMEOUT: Duration = Duration::from_secs(30);
/// The limit of open file descriptors, for the agent and the workload each.
const DESCRIPTORS: u64 = 65_536;
const SPEC: &str = "/app/enclave.json";

pub(crate) async fn live() {
    if let Err(error) = mounts::kernel_file_systems() {
        return console::say(&format!("cannot mount the kernel's file systems: {error}"));
    }
    mounts::reopen_console();
    raise_descriptor_limit();
    if let Err(error) = heartbeat().await {
        return console::say(&format!("the host did not answer the heartbeat: {error}"));
    }
    let (mut control, payload) = match Control::connect().await {
        Ok(connected) => connected,
        Err(error) => return console::say(&format!("no control connection: {error}")),
    };
    let last = match run(&mut control, payload).await {
        Ok(exit) => Report::Exited(exit),
        Err(error) => {
            console::say(&error.detail);
            Report::Failed(error)
        }
    };
    control.finish(last).await;
}

/// The kernel starts PID 1 with 1024 descriptors; two make one connection. The workload inherits
/// the limit, as from container engines.
fn raise_descriptor_limit() {
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS) {
        console::say(&format!(
            "cannot raise the limit of file descriptors: {error}"
        ));
    }
}

/// The convention of nitro-cli: the enclave is up once it has sent this byte and got it back.
async fn heartbeat() -> std::io::Result<()> {
    let exchange = async {
        let mut stream = parent::connect(wire::HEARTBEAT_PORT).await?;
        stream.write_all(&[wire::HEARTBEAT]).await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        match answer {
            [wire::HEARTBEAT] => Ok(()),
            _ => Err(std::io::Error::other("the host echoed another byte")),
        }
    };
    timeout(HOST_TIMEOUT, exchange)
        .await
        .map_err(|_| std::io::Error::other("no answer within 30 seconds"))?
}

async fn run(control: &mut Control, payload: BootPayload) -> Result<WorkloadExit, BootError> {
    let spec = read_spec()?;
    let device = Device::open()?;
    let (findings, clock) = gates::pass(&spec, &device)?;
    network::raise_loopback().map_err(BootError::of(
        AbortReason::Network,
        "cannot bring up the loopback interface",
    ))?;
    let boundary = Boundary::prepare(&spec.security).map_err(BootError::of(
        AbortReason::RootFs,
        "cannot build the boundary around the workload",
    ))?;
    rootfs::mount(boundary.users(), boundary.disk())?;
    let user = workload::user(&spec.run.user)?;
    let owner = boundary.users().owner(&user);
    let secrets = secrets(&spec, payload, &device, &owner, control).await?;
    // From here on every ending child is noticed, however early it ends.
    let children = signal(SignalKind::child()).map_err(BootError::of(
        AbortReason::RootFs,
        "cannot watch for ending processes",
    ))?;
    let (requester, nsm_thread) = nsm::queue(device);
    let capacity = Capacity::of_this_enclave().map_err(BootError::of(
        AbortReason::Network,
        "cannot find out how much memory there is",
    ))?;
    listen(&spec, &requester, findings, &boundary, &capacity)?;
    let logs = spec.logs.forward.then(Arc::<LogQueue>::default);
    let give_to_root = |path: &Path| boundary.users().give_to_root(path);
    let refusals = Refusals::new(logs.clone());
    let network = boundary.network().clone();
    network::open(
        &spec.network,
        &network,
        refusals,
        capacity.clone(),
        give_to_root,
    )
    .await?;
    let workload = workload::start(&spec, user, &secrets, boundary, logs.as_ref())?;
    drop(secrets);
    boundary::retire().map_err(BootError::of(
        AbortReason::RootFs,
        "cannot give up what is not needed any more",
    ))?;
    nsm_thread.start().map_err(BootError::of(
        AbortReason::Nsm,
        "cannot start the thread of the NSM",
    ))?;
    tokio::spawn(gates::discipline(clock, requester));
    control.send(Report::Started(workload.pid())).await;
    let service = Service::new(&spec, workload, &network, logs, capacity);
    Ok(service.run(children, control).await)
}

/// Opens the sealed config, if the spec asks for one. Gives the variables that it adds to the
/// workload's environment.
async fn secrets(
    spec: &MeasuredSpec,
    payload: BootPayload,
    nsm: &dyn Nsm,
    user: &User,
    control: &mut Control,
) -> Result<Variables, BootError> {
    let (signer, mut unsigned) = config::channel();
    let opening = config::open(spec, payload, nsm, signer);
    tokio::pin!(opening);
    let config = loop {
        tokio::select! {
            config = &mut opening => break config?,
            // The time for an attempt runs on meanwhile.
            Some(request) = unsigned.recv() => {
                let answer = control.sign(request.body).await;
                // Nothing waits for it once the attempt's time is over.
                request.answer.send(answer).ok();
            }
        }
    };
    match (&config, &spec.config) {
        (Some(config), Some(rules)) => config::deliver(config, rules, user),
        _ => Ok(Vec::new()),
    }
}

/// Opens every port of the enclave: for relying parties, for the host, and for the workload.
fn listen(
    spec: &MeasuredSpec,
    nsm: &Requester,
    findings: Findings,
    boundary: &Boundary,
    capacity: &Capacity,
) -> Result<(), BootError> {
    let workload = boundary.network();
    attest::serve(nsm.in_lane(Lane::Endpoint), findings).map_err(BootError::of(
        AbortReason::Network,
        "cannot listen for relying parties",
    ))?;
    let lane = nsm.in_lane(Lane::Workload);
    attest::serve_workload(&spec.attestation, boundary.users(), lane)?;
    let ports = spec.network.ingress.clone();
    ingress::serve(ports, workload.clone(), capacity.clone()).map_err(BootError::of(
        AbortReason::Network,
        "cannot listen for the host",
    ))?;
    for rule in &spec.network.forward {
        forward::serve(rule, workload, capacity).map_err(BootError::of(
            AbortReason::Network,
            format_args!("cannot listen on {}", rule.listen),
        ))?;
    }
    Ok(())
}

fn read_spec() -> Result<MeasuredSpec, BootError> {
    let bytes = rootfs::read_bounded(SPEC, wire::spec::MAX_LEN)
        .map_err(BootError::of(AbortReason::Spec, SPEC))?;
    MeasuredSpec::parse(&bytes).map_err(BootError::of(AbortReason::Spec, SPEC))
}
