//! `enclavectl create`: takes the flags, prompts for what is missing, and follows the deploy.

use crate::{configure, follow, ui};
use api::client::Client;
use api::{CreateEnclave, Provider, Record, SourceType};
use clap::ValueEnum;
use explain::{CliError, Exit};
use hyper::Method;
use oci::Secret;
use std::convert::Infallible;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    enclavectl create --name web --image docker.io/library/httpd:2.4 --spec enclave.toml\n  \
    printf %s \"$TOKEN\" | enclavectl create --name orders --image ghcr.io/my-org/orders:v1 \\\n    \
    --registry-username me --registry-password-stdin --spec enclave.toml")]
pub(crate) struct Args {
    /// Name of the enclave: 1 to 63 lower-case letters, digits and '-'
    #[arg(long)]
    name: Option<String>,
    /// Image to run: registry-host/namespace/image:tag
    #[arg(long)]
    image: Option<String>,
    /// What runs the enclave [default: as the daemon is configured]
    #[arg(long)]
    provider: Option<ProviderName>,
    /// Where credentials for the image come from [default: private-registry if credentials are
    /// given, configured-registry if the daemon's [registry] covers the image, or else
    /// public-registry]
    #[arg(long)]
    source_type: Option<SourceName>,
    /// Registry that the credentials are for [default: the image's]
    #[arg(long)]
    registry_url: Option<String>,
    /// User name at the registry
    #[arg(long)]
    registry_username: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "registry_password")]
    registry_password_stdin: bool,
    /// Not recommended: other users of this machine can see it, and your shell records it
    #[arg(long, hide_short_help = true, value_parser = secret)]
    registry_password: Option<Secret>,
    /// What to run, and what may go in and out (enclave.toml)
    #[arg(long)]
    spec: Option<PathBuf>,
    /// The sealed config, if the spec has [config]; 'enclavectl seal' makes one
    #[arg(long)]
    config: Option<PathBuf>,
    /// Return once the deploy is queued
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProviderName {
    /// QEMU's nitro-enclave machine: the same measurements, without AWS's signature
    Qemu,
    /// AWS Nitro Enclaves; not in this version
    AwsNitro,
}

<<<<<<< HEAD
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
=======
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SourceName {
    /// Credentials that the daemon stores with the enclave
    #[value(name = "private-registry")]
    Private,
    /// No credentials
    #[value(name = "public-registry")]
    Public,
    /// Credentials that the daemon's own [registry] issues for each deploy
    #[value(name = "configured-registry")]
    Configured,
}

impl From<SourceName> for SourceType {
    fn from(name: SourceName) -> SourceType {
        match name {
            SourceName::Private => SourceType::PrivateRegistry,
            SourceName::Public => SourceType::PublicRegistry,
            SourceName::Configured => SourceType::ConfiguredRegistry,
        }
>>>>>>> refs/heads/enclavectl
    }
}

impl ProviderName {
    fn provider(self) -> Result<Provider, CliError> {
        match self {
            ProviderName::Qemu => Ok(Provider::Qemu),
            ProviderName::AwsNitro => Err(CliError::new(
                Exit::Usage,
                "this version cannot launch on /dev/nitro_enclaves yet",
                "Use --provider qemu.",
            )),
        }
<<<<<<< HEAD
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
=======
    }
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

pub(crate) async fn run(client: &Client, args: Args, json: bool) -> Result<(), CliError> {
    let no_wait = args.no_wait;
    let body = serde_json::to_vec(&order(args)?).map_err(CliError::bug)?;
>>>>>>> refs/heads/enclavectl
    let record: Record = client.json(Method::POST, "/v1/enclaves", body).await?;
    follow::until_settled(client, record, no_wait, json).await
}

<<<<<<< HEAD
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
=======
/// The order, with answers to prompts in place of missing flags.
fn order(args: Args) -> Result<CreateEnclave, CliError> {
    let provider = args.provider.map(ProviderName::provider).transpose()?;
    let is_prompted = args.name.is_none() || args.image.is_none();
    let name = ui::flag_or_ask(args.name, "--name", "Name of the enclave")?;
    let question = "Image (registry-host/namespace/image:tag)";
    let image = ui::flag_or_ask(args.image, "--image", question)?;
    let needs_username = args.source_type == Some(SourceName::Private)
        || args.registry_password_stdin
        || args.registry_password.is_some();
    let registry_username = username(args.registry_username, needs_username, is_prompted)?;
    let registry_password = match &registry_username {
        Some(_) => Some(password(
            args.registry_password,
            args.registry_password_stdin,
        )?),
        None => None,
    };
    let spec = args.spec.map(|path| {
        std::fs::read_to_string(&path).map_err(|e| {
            let message = format!("{}: {e}", path.display());
            CliError::new(Exit::Usage, message, "Check --spec.")
        })
    });
    let sealed = args.config.as_deref().map(configure::read_sealed);
    Ok(CreateEnclave {
        name,
        image,
        provider,
        source_type: args.source_type.map(SourceType::from),
        registry_url: args.registry_url,
        registry_username,
        registry_password,
        spec: spec.transpose()?.unwrap_or_default(),
        config: sealed.transpose()?.as_deref().map(configure::encode),
    })
}

/// A user name is asked for if one is needed, and offered where something else was asked for.
fn username(
    flag: Option<String>,
    is_needed: bool,
    is_prompted: bool,
) -> Result<Option<String>, CliError> {
    if flag.is_some() || is_needed {
        let question = "User name at the registry";
        return ui::flag_or_ask(flag, "--registry-username", question).map(Some);
    }
    if !is_prompted {
        return Ok(None);
    }
    let answer = ui::ask("User name at the registry (empty for none)")?;
    Ok(Some(answer).filter(|text| !text.is_empty()))
}

fn password(flag: Option<Secret>, from_stdin: bool) -> Result<Secret, CliError> {
    let Some(password) = flag else {
        return ui::ask_password(from_stdin);
    };
    ui::tell(
        "warning: a password on the command line is visible to other users and \
         recorded by your shell; use --registry-password-stdin",
    );
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(arguments: &[&str]) -> Args {
        let own = ["create", "--name", "web", "--image", "r.example/web:1"];
        Command::try_parse_from([&own[..], arguments].concat())
            .unwrap()
            .args
    }

    #[test]
    fn flags_become_the_order_that_the_daemon_parses() {
        let folder = tempfile::tempdir().unwrap();
        let (spec, sealed) = (folder.path().join("s"), folder.path().join("c"));
        std::fs::write(&spec, "[logs]\nforward = true\n").unwrap();
        std::fs::write(&sealed, [0, 1, 2]).unwrap();
        let args = parse(&[
            "--provider",
            "qemu",
            "--source-type",
            "private-registry",
            "--registry-username",
            "me",
            "--registry-password",
            "hunter2",
            "--spec",
            spec.to_str().unwrap(),
            "--config",
            sealed.to_str().unwrap(),
        ]);
        assert!(!format!("{args:?}").contains("hunter2"));
        let json = serde_json::to_value(order(args).unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "name": "web", "image": "r.example/web:1", "provider": "qemu", "source_type": "private-registry",
                "registry_username": "me", "registry_password": "hunter2", "spec": "[logs]\nforward = true\n",
                "config": "AAEC",
            })
        );
    }

    #[test]
    fn what_is_left_out_is_for_the_daemon_to_decide() {
        let json = serde_json::to_value(order(parse(&[])).unwrap()).unwrap();
        let expected = serde_json::json!({ "name": "web", "image": "r.example/web:1", "spec": "" });
        assert_eq!(json, expected);
    }

    #[test]
    fn nitro_is_refused_before_anything_is_sent() {
        let error = order(parse(&["--provider", "aws-nitro"])).unwrap_err();
        assert_eq!(
            (error.exit, error.message.as_str()),
            (
                Exit::Usage,
                "this version cannot launch on /dev/nitro_enclaves yet"
            )
        );
>>>>>>> refs/heads/enclavectl
    }
}
