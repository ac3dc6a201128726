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
    /// For tests only: in debug mode the parent instance can read the enclave's memory, and its
    /// console is in the daemon's error messages; needs aws-nitro
    #[arg(long)]
    debug: bool,
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
    /// AWS Nitro Enclaves, on a parent instance
    AwsNitro,
}

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
    }
}

impl From<ProviderName> for Provider {
    fn from(name: ProviderName) -> Provider {
        match name {
            ProviderName::Qemu => Provider::Qemu,
            ProviderName::AwsNitro => Provider::AwsNitro,
        }
    }
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

pub(crate) async fn run(client: &Client, args: Args, json: bool) -> Result<(), CliError> {
    let no_wait = args.no_wait;
    let body = serde_json::to_vec(&order(args)?).map_err(CliError::bug)?;
    let record: Record = client.json(Method::POST, "/v1/enclaves", body).await?;
    follow::until_settled(client, record, no_wait, json).await
}

/// The order, with answers to prompts in place of missing flags.
fn order(args: Args) -> Result<CreateEnclave, CliError> {
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
        provider: args.provider.map(Provider::from),
        debug: args.debug,
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
        let directory = tempfile::tempdir().unwrap();
        let (spec, sealed) = (directory.path().join("s"), directory.path().join("c"));
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
    fn nitro_and_its_debug_mode_are_asked_for_by_name() {
        let order = order(parse(&["--provider", "aws-nitro", "--debug"])).unwrap();
        assert_eq!(
            (order.provider, order.debug),
            (Some(Provider::AwsNitro), true)
        );
    }
}
