//! `host-proxy`: the daemon. `serve` runs it, `check-config` shows what it would run with, `doctor` what this machine lacks.

use api::FixPlan;
use audit::AuditLog;
use broker::{Broker, Issuer};
use clap::Parser as _;
use explain::{CliError, Exit};
use host_proxy::config::{self, DaemonConfig, Loaded};
use host_proxy::daemon::Daemon;
use host_proxy::{doctor, server};
use launch::Launchers;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oci::https::Https;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

/// Runs private container images in enclaves: keeps their credentials, builds, launches and attests them
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Configuration, lowest first: built-in defaults, default.toml, $RUN_MODE.toml and local.toml in the configuration \
    directory, HOST_PROXY_SECTION__KEY from the environment.\n\n\
    Exit codes: 0 stopped cleanly, 64 usage error, 69 unavailable, 70 internal error, 78 configuration error."
)]
struct Cli {
    /// Directory with default.toml, <RUN_MODE>.toml and local.toml
    #[arg(
        long,
        env = "HOST_PROXY_CONFIG_DIR",
        default_value = "/etc/redoubt",
        global = true
    )]
    config_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT
    Serve,
    /// Print the resulting configuration, and where each value came from
    CheckConfig,
    /// Check what this machine needs to run enclaves; no daemon has to run
    Doctor {
        /// Print shell commands that fix what failed, without running them
        #[arg(long)]
        fix_plan: bool,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nowhere else to say it.
            error.print().ok();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&error.to_string());
            error.exit.into()
        }
    }
}

fn run(cli: &Cli) -> Result<(), CliError> {
    // HOST_PROXY_CONFIG_DIR names the directory and is no key of the configuration.
    let environment = std::env::vars().filter(|(name, _)| name != "HOST_PROXY_CONFIG_DIR");
    let run_mode = std::env::var("RUN_MODE").ok();
    let loaded = config::load(&cli.config_dir, run_mode.as_deref(), environment)?;
    match cli.command {
        Command::CheckConfig => {
            print(&loaded.describe());
            if loaded.files.is_empty() {
                let directory = cli.config_dir.display();
                warn(&format!("note: {directory} has no configuration file"));
            }
            on_runtime(check(&loaded.config))
        }
        Command::Doctor { fix_plan } => on_runtime(examine(&loaded.config, fix_plan)),
        Command::Serve => serve(loaded),
    }
}

/// What can be wrong beyond the values themselves: files that they name.
async fn check(config: &DaemonConfig) -> Result<(), CliError> {
    let https = Https::new(&config.pull.ca_cert)?;
    if let Some(registry) = &config.registry {
        registry
            .check()
            .await
            .map_err(broker::BrokerError::Registry)?;
    }
    Ok(Broker::check(&config.broker, config.registry.is_some(), &https).await?)
}

async fn examine(config: &DaemonConfig, fix_plan: bool) -> Result<(), CliError> {
    let findings = doctor::examine(config, &Launchers::new(&config.qemu)?).await;
    if fix_plan {
        print(FixPlan::new(&findings).to_string().trim_end());
        return Ok(());
    }
    findings
        .iter()
        .for_each(|finding| print(&finding.to_string()));
    let missing = findings
        .iter()
        .filter(|finding| finding.is_failed())
        .count();
    if missing == 0 {
        return Ok(());
    }
    let message = format!("{missing} of {} checks failed", findings.len());
    Err(CliError::new(
        Exit::Unavailable,
        message,
        "Follow the lines marked ✗; 'host-proxy doctor --fix-plan' prints commands.",
    ))
}

fn on_runtime(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|e| system("cannot start", e))?
        .block_on(work)
}

fn serve(loaded: Loaded) -> Result<(), CliError> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // A core dump would hold what the daemon keeps out of every other place.
    nix::sys::prctl::set_dumpable(false).map_err(|e| system("cannot turn off core dumps", e))?;
    // Each carried connection takes two descriptors: use all that the system grants.
    let descriptors = |e| system("cannot raise the limit of descriptors", e);
    let (_, granted) = getrlimit(Resource::RLIMIT_NOFILE).map_err(descriptors)?;
    setrlimit(Resource::RLIMIT_NOFILE, granted, granted).map_err(descriptors)?;
    on_runtime(live(loaded))
}

async fn live(Loaded { config, files, .. }: Loaded) -> Result<(), CliError> {
    let handler = |kind| signal(kind).map_err(|e| system("cannot handle signals", e));
    let (terminate, interrupt) = (
        handler(SignalKind::terminate())?,
        handler(SignalKind::interrupt())?,
    );
    let socket = config.socket();
    let https = Https::new(&config.pull.ca_cert)?;
    let issuer = issuer(&config, &https).await?;
    let broker = Broker::start(&config.broker, issuer.clone(), &https).await?;
    let launchers = Launchers::new(&config.qemu)?;
    let daemon = Daemon::start(config, issuer, launchers).await?;
    let listener = server::bind(&socket)
        .map_err(|e| system(&format!("cannot listen on {}", socket.display()), e))?;
    tracing::info!(?files, "configuration");
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    let serving = tokio::spawn(server::serve(listener, daemon.clone()));
    let brokering = start_broker(broker, daemon.audit().clone())?;
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog());

    wait_for_either(terminate, interrupt).await;
    tracing::info!("stopping: workloads get 10 seconds to end");
    notify(&[sd_notify::NotifyState::Stopping]);
    serving.abort();
    if let Some(brokering) = brokering {
        brokering.abort();
    }
    daemon.stop().await;
    daemon.audit().flush().await;
    watchdog.abort();
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, "the socket could not be removed");
    }
    tracing::info!("stopped");
    Ok(())
}

/// What issues credentials for the configured registry, if there is one.
async fn issuer(config: &DaemonConfig, https: &Https) -> Result<Option<Arc<Issuer>>, CliError> {
    let Some(registry) = &config.registry else {
        return Ok(None);
    };
    let issuer = Issuer::from_config(registry, https).await;
    Ok(Some(Arc::new(
        issuer.map_err(broker::BrokerError::Registry)?,
    )))
}

fn start_broker(
    broker: Option<Broker>,
    audit: AuditLog,
) -> Result<Option<JoinHandle<()>>, CliError> {
    let Some(broker) = broker else {
        tracing::info!("no credential broker: broker.listen is not set");
        return Ok(None);
    };
    let address = broker
        .address()
        .map_err(|e| system("the credential broker", e))?;
    tracing::info!(%address, "brokering registry credentials");
    Ok(Some(tokio::spawn(broker.serve(audit))))
}

async fn wait_for_either(mut one: Signal, mut other: Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Something that this machine did not give.
fn system(what: &str, error: impl std::fmt::Display) -> CliError {
    let next_step = "'host-proxy doctor' checks what the daemon needs.";
    CliError::new(Exit::Unavailable, format!("{what}: {error}"), next_step)
}

/// Without systemd nothing listens.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}

/// Tells systemd that the runtime still turns, twice as often as it asks for.
async fn watchdog() {
    let mut microseconds = 0;
    if sd_notify::watchdog_enabled(false, &mut microseconds) {
        let mut ticks = tokio::time::interval(Duration::from_micros(microseconds / 2));
        loop {
            ticks.tick().await;
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// A closed pipe at the other end is no reason to panic.
fn print(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

fn warn(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}
