//! `enclavectl create`: takes the flags, asks for what is missing, and follows the deploy.

use super::{CliError, follow, tell};
use host_proxy::client::Client;
use host_proxy::record::Record;
use hyper::Method;
use serde::Serialize;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use zeroize::Zeroizing;

const MAX_PASSWORD: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    printf %s \"$TOKEN\" | enclavectl create --name orders --image ghcr.io/my-org/orders:v1 \\\n    \
    --registry-username me --registry-password-stdin --spec enclave.toml")]
pub(super) struct Args {
    /// Name of the enclave: 1 to 63 lower-case letters, digits and '-'
    #[arg(long)]
    name: Option<String>,
    /// Image to run: registry-host/namespace/image:tag
    #[arg(long)]
    image: Option<String>,
    /// Where enclaves run
    #[arg(long, value_parser = ["qemu", "aws-nitro"])]
    provider: Option<String>,
    /// Who lets the image be pulled: credentials that are kept, everybody, or the daemon's own [registry]
    /// [default: private if there are credentials, configured if the daemon's [registry] covers the image, or else public]
    #[arg(long, value_parser = ["private-registry", "public-registry", "configured-registry"])]
    source_type: Option<String>,
    /// Registry that the credentials are for [default: the image's]
    #[arg(long)]
    registry_url: Option<String>,
    /// User name at the registry
    #[arg(long)]
    registry_username: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "registry_password")]
    registry_password_stdin: bool,
    /// Not recommended: other users of this machine see it while the command runs, and your shell keeps it
    #[arg(long, hide_short_help = true)]
    registry_password: Option<String>,
    /// What to run and what may go in and out (enclave.toml)
    #[arg(long)]
    spec: Option<PathBuf>,
    /// The sealed config that the spec asks for; 'enclavectl seal' makes one
    #[arg(long)]
    config: Option<PathBuf>,
    /// Return once the deploy is queued
    #[arg(long)]
    no_wait: bool,
}

#[derive(Serialize)]
struct Order<'a> {
    name: &'a str,
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_password: Option<&'a str>,
    spec: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
}

pub(super) async fn run(client: &Client, args: Args, json: bool) -> Result<(), CliError> {
    let Args {
        provider,
        source_type,
        registry_url,
        spec,
        no_wait,
        ..
    } = &args;
    if provider.as_deref() == Some("aws-nitro") {
        return Err(CliError::new(
            Exit::Usage,
            "this version cannot drive /dev/nitro_enclaves yet",
            "use --provider qemu",
        ));
    }
    let asked = args.name.is_none() || args.image.is_none();
    let name = answered(args.name.clone(), "Name of the enclave", "--name")?;
    let image = answered(
        args.image.clone(),
        "Image (registry-host/namespace/image:tag)",
        "--image",
    )?;
    let private = source_type.as_deref() == Some("private-registry");
    let username = match &args.registry_username {
        Some(username) => Some(username.clone()),
        None if private || args.registry_password_stdin || args.registry_password.is_some() => {
            Some(answered(
                None,
                "User name at the registry",
                "--registry-username",
            )?)
        }
        None if asked => {
            Some(ask("User name at the registry (empty for none)")?).filter(|text| !text.is_empty())
        }
        None => None,
    };
    let password = match &username {
        Some(_) => Some(password(&args)?),
        None => None,
    };
    let spec = match spec {
        Some(path) => std::fs::read_to_string(path).map_err(|e| {
            CliError::new(
                Exit::Usage,
                format!("{}: {e}", path.display()),
                "check --spec",
            )
        })?,
        None => String::new(),
    };
    let order = Order {
        name: &name,
        image: &image,
        provider: provider.as_deref(),
        source_type: source_type.as_deref(),
        registry_url: registry_url.as_deref(),
        registry_username: username.as_deref(),
        registry_password: password.as_ref().map(|password| password.as_str()),
        spec,
        config: args
            .config
            .as_deref()
            .map(super::configure::encoded)
            .transpose()?,
    };
    let body = serde_json::to_vec(&order)
        .map_err(|e| CliError::new(Exit::Bug, e, "please report this"))?;
    let record: Record = client.json(Method::POST, "/v1/enclaves", body).await?;
    follow::until_settled(client, record, *no_wait, json).await
}

fn answered(flag: Option<String>, question: &str, name: &str) -> Result<String, CliError> {
    match flag {
        Some(text) => Ok(text),
        None if std::io::stdin().is_terminal() => ask(question),
        None => Err(CliError::new(
            Exit::Usage,
            format!("{name} is missing"),
            "give it, or run this in a terminal to be asked",
        )),
    }
}

fn ask(question: &str) -> Result<String, CliError> {
    let failed = |e: std::io::Error| CliError::new(Exit::Usage, e, "give the flags instead");
    let mut error = std::io::stderr();
    write!(error, "{question}: ")
        .and_then(|()| error.flush())
        .map_err(failed)?;
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .take(4096)
        .read_line(&mut line)
        .map_err(failed)?;
    Ok(line.trim().to_owned())
}

fn password(args: &Args) -> Result<Zeroizing<String>, CliError> {
    if let Some(password) = &args.registry_password {
        tell(
            "warning: a password on the command line is seen by other users and kept by your shell; use --registry-password-stdin",
        );
        return Ok(Zeroizing::new(password.clone()));
    }
    let read = if args.registry_password_stdin && !std::io::stdin().is_terminal() {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin()
            .take(MAX_PASSWORD)
            .read_to_string(&mut text)
            .map(|_| text)
    } else if std::io::stdin().is_terminal() {
        rpassword::prompt_password("Password or access token: ").map(Zeroizing::new)
    } else {
        return Err(CliError::new(
            Exit::Usage,
            "the password is missing",
            "pipe it in and give --registry-password-stdin",
        ));
    };
    let text = read.map_err(|e| {
        CliError::new(
            Exit::Usage,
            format!("cannot read the password: {e}"),
            "pipe it into standard input",
        )
    })?;
    let password = text.trim_end_matches(['\n', '\r']);
    match password.is_empty() {
        true => Err(CliError::new(
            Exit::Usage,
            "the password is empty",
            "pipe it into standard input",
        )),
        false => Ok(Zeroizing::new(password.to_owned())),
    }
}
