//! `host-proxy`: the daemon. `serve` runs it, `check-config` shows what it would run with.

use anyhow::Context as _;
use clap::Parser as _;
use host_proxy::api;
use host_proxy::broker::{self, Broker, Issuer};
use host_proxy::config::{self, Config, Loaded};
use host_proxy::daemon::Daemon;
use host_proxy::https::{Https, HttpsError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Runs private container images in enclaves: keeps their credentials, builds, launches and attests them.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Configuration, lowest first: built-in defaults, default.toml, $RUN_MODE.toml and local.toml in the \
    configuration folder, HOST_PROXY_SECTION__KEY from the environment.\n\nExit codes: 0 stopped cleanly, 64 usage, 69 unavailable, 78 configuration."
)]
struct Cli {
    /// Folder with default.toml, <RUN_MODE>.toml and local.toml
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
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(64)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // HOST_PROXY_CONFIG_DIR names the folder and is no key of the configuration.
    let environment = std::env::vars().filter(|(name, _)| name != "HOST_PROXY_CONFIG_DIR");
    let run_mode = std::env::var("RUN_MODE").ok();
    let loaded = match config::load(&cli.config_dir, run_mode.as_deref(), environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            return fail(78, &anyhow::Error::from(error), "correct it there");
        }
    };
    match cli.command {
        Command::CheckConfig => {
            let _ = writeln!(std::io::stdout(), "{}", loaded.describe());
            if loaded.files.is_empty() {
                let _ = writeln!(
                    std::io::stderr(),
                    "note: {} has no configuration file",
                    cli.config_dir.display()
                );
            }
            report(on_runtime(check(&loaded.config)))
        }
        Command::Serve => report(serve(loaded)),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<broker::StartError>() => fail(
            78,
            &error,
            "correct [broker] or [registry] in the configuration",
        ),
        Err(error) if error.is::<HttpsError>() => {
            fail(78, &error, "correct it in the configuration")
        }
        Err(error) => fail(
            69,
            &error,
            "'enclavectl doctor' checks what the daemon needs",
        ),
    }
}

/// What can be wrong beyond the values themselves: files that they name.
async fn check(config: &Config) -> anyhow::Result<()> {
    let https = Https::new(&config.pull.ca_cert).context("pull.ca_cert")?;
    if let Some(registry) = &config.registry {
        registry
            .check()
            .await
            .map_err(broker::StartError::Registry)?;
    }
    Broker::check(&config.broker, config.registry.is_some(), &https)
        .await
        .context("the credential broker")
}

fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(work)
}

fn fail(code: u8, error: &anyhow::Error, hint: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error:#}\n  {hint}");
    ExitCode::from(code)
}

fn serve(loaded: Loaded) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // A core dump would hold what the daemon keeps out of every other place.
    nix::sys::prctl::set_dumpable(false).context("cannot turn off core dumps")?;
    // Each carried connection takes two descriptors: use all that the system grants.
    let (_, granted) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, granted, granted)
        .context("cannot raise the limit of descriptors")?;
    on_runtime(live(loaded))
}

async fn live(Loaded { config, files, .. }: Loaded) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let socket = config.socket();
    let https = Https::new(&config.pull.ca_cert).context("pull.ca_cert")?;
    let issuer = match &config.registry {
        Some(registry) => {
            let issuer = Issuer::from_config(registry, &https)
                .await
                .map_err(broker::StartError::Registry)?;
            Some(Arc::new(issuer))
        }
        None => None,
    };
    let broker = Broker::start(&config.broker, issuer.clone(), &https)
        .await
        .context("the credential broker")?;
    let daemon = Daemon::start(config, issuer).await?;
    let listener =
        api::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    tracing::info!(?files, "configuration");
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    let serving = tokio::spawn(api::serve(listener, daemon.clone()));
    let brokering = match broker {
        Some(broker) => {
            tracing::info!(address = %broker.address()?, "brokering registry credentials");
            Some(tokio::spawn(broker.serve()))
        }
        None => {
            tracing::info!("no credential broker: broker.listen is not set");
            None
        }
    };
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog());

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: workloads get 10 seconds to end");
    notify(&[sd_notify::NotifyState::Stopping]);
    serving.abort();
    if let Some(brokering) = brokering {
        brokering.abort();
    }
    daemon.stop().await;
    watchdog.abort();
    let _ = std::fs::remove_file(&socket);
    tracing::info!("stopped");
    Ok(())
}

/// Without systemd there is nobody to tell.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    let _ = sd_notify::notify(false, states);
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
