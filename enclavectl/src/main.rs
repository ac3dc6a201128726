//! `enclavectl`: orders to the daemon, and what it knows. Results go to standard output, prose and progress to standard error.

mod configure;
mod create;
mod doctor;
mod follow;
mod registry;
mod show;

use clap::Parser as _;
use eif_builder::seal::command as seal;
use explain::{CliError, Exit};
use host_proxy::client::Client;
use host_proxy::record::Record;
use hyper::Method;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Creates, watches and ends enclaves.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 the enclave FAILED, 64 usage, 65 bad data, 69 unavailable, 70 bug, 77 refused, 78 configuration."
)]
struct Cli {
    /// The daemon's socket
    #[arg(
        long,
        env = "REDOUBT_SOCKET",
        default_value = "/run/redoubt/api.sock",
        global = true
    )]
    socket: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run an image in a new enclave; asks for what is not on the command line
    Create(create::Args),
    /// All enclaves
    List,
    /// One enclave
    Show(Name),
    /// What happened to an enclave
    Events(Stream),
    /// What its workload printed, if the spec lets it leave the enclave
    Logs(Stream),
    /// Pull, build and launch again, with the credentials that are kept
    Redeploy(Wait),
    /// Give an enclave another sealed config; one that is deployed serves until the next is attested
    Configure(configure::Args),
    /// Encrypt a config that only the attested enclave of a spec can open
    Seal(seal::Args),
    /// End an enclave, and delete its credentials and files
    Terminate(Wait),
    /// Registry credentials from a broker, for docker, podman, skopeo and kubelets
    Registry(registry::Args),
    /// A fresh attestation document, compared with what was built
    Attestation(show::AttestationArgs),
    /// Check what this machine needs to run enclaves
    Doctor,
}

#[derive(Debug, clap::Args)]
struct Name {
    /// Name or id
    name: String,
}

#[derive(Debug, clap::Args)]
struct Stream {
    /// Name or id
    name: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, clap::Args)]
struct Wait {
    /// Name or id
    name: String,
    /// Return once the order is taken
    #[arg(long)]
    no_wait: bool,
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&CliError::new(
                Exit::Unavailable,
                format!("cannot start: {error}"),
                "try again",
            ));
        }
    };
    let mut arguments = std::env::args_os();
    // docker finds its helpers by their names.
    let called = arguments.next().map(std::path::PathBuf::from);
    if called.as_deref().and_then(std::path::Path::file_name)
        == Some(registry::helper::PROGRAM.as_ref())
    {
        let verb = arguments
            .next()
            .map(|verb| verb.to_string_lossy().into_owned());
        return runtime.block_on(registry::helper::answer(verb));
    }
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
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(
    CliError {
        message,
        hint,
        code,
    }: &CliError,
) -> ExitCode {
    tell(&format!("error: {message}\n  {hint}"));
    ExitCode::from(*code)
}

async fn run(
    Cli {
        socket,
        json,
        command,
    }: Cli,
) -> Result<(), CliError> {
    let client = Client::new(&socket);
    match command {
        Command::Create(args) => create::run(&client, args, json).await,
        Command::List => show::list(&client, json).await,
        Command::Show(Name { name }) => show::one(&client, &name, json).await,
        Command::Events(Stream { name, follow }) => {
            follow::events(&client, &name, follow, json).await
        }
        Command::Logs(Stream { name, follow }) => follow::logs(&client, &name, follow).await,
        Command::Redeploy(Wait { name, no_wait }) => {
            let record: Record = client
                .json(Method::POST, &path(&name, "/redeploy")?, Vec::new())
                .await?;
            follow::until_settled(&client, record, no_wait, json).await
        }
        Command::Terminate(Wait { name, no_wait }) => {
            let record: Record = client
                .json(Method::DELETE, &path(&name, "")?, Vec::new())
                .await?;
            follow::until_settled(&client, record, no_wait, json).await
        }
        Command::Configure(args) => configure::run(&client, &args, json).await,
        Command::Seal(args) => {
            let sealed = seal::run(&args, json).await;
            print(&sealed?)
        }
        Command::Registry(args) => registry::run(&client, args, json).await,
        Command::Attestation(args) => show::attestation(&client, &args, json).await,
        Command::Doctor => doctor::run(&client).await,
    }
}

/// A name goes into a path: what could change the path is refused.
fn path(name: &str, rest: &str) -> Result<String, CliError> {
    match name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !name.is_empty() {
        true => Ok(format!("/v1/enclaves/{name}{rest}")),
        false => Err(CliError::new(
            Exit::Usage,
            format!("'{name}' is neither a name nor an id"),
            "see 'enclavectl list'",
        )),
    }
}

fn print(text: &str) -> Result<(), CliError> {
    writeln!(std::io::stdout(), "{text}")
        .map_err(|e| CliError::new(Exit::Unavailable, e, "the reader of the output is gone"))
}

fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| CliError::new(Exit::Bug, e, "please report this"))?;
    print(&text)
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
