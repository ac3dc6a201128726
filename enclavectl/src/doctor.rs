//! `enclavectl doctor`: what this machine needs to run enclaves, one line each, with the next step where something is missing.

use super::{CliError, print};
use eif_builder::artifacts;
use host_proxy::client::Client;
use host_proxy::config;
use host_proxy::launch::Qemu;
use hyper::Method;
use std::path::Path;

pub(super) async fn run(client: &Client) -> Result<(), CliError> {
    let folder =
        std::env::var("HOST_PROXY_CONFIG_DIR").unwrap_or_else(|_| "/etc/redoubt".to_owned());
    let environment = std::env::vars().filter(|(name, _)| name != "HOST_PROXY_CONFIG_DIR");
    let loaded = config::load(
        Path::new(&folder),
        std::env::var("RUN_MODE").ok().as_deref(),
        environment,
    );
    let mut missing = 0;
    let mut check = |what: &str, result: Result<String, (String, String)>| match result {
        Ok(found) => print(&format!("✓ {what}: {found}")),
        Err((problem, hint)) => {
            missing += 1;
            print(&format!("✗ {what}: {problem}\n    {hint}"))
        }
    };
    let artifact = |name| {
        let found = artifacts::find(name, None);
        found
            .map(|path| path.display().to_string())
            .map_err(|e| (e.to_string(), e.hint().to_owned()))
    };
    check("kernel", artifact(artifacts::KERNEL))?;
    check("agent", artifact(artifacts::AGENT))?;
    match &loaded {
        Ok(loaded) => {
            check(
                "configuration",
                Ok(format!(
                    "secrets in {:?}, launcher {:?}",
                    loaded.config.secrets, loaded.config.launcher
                )),
            )?;
            let qemu = Qemu::find(&loaded.config.qemu);
            check(
                "QEMU",
                qemu.map(|_| "found, with its vsock device".to_owned())
                    .map_err(|e| {
                        (
                            e.to_string(),
                            "build the sandbox with scripts/sandbox".to_owned(),
                        )
                    }),
            )?;
        }
        Err(error) => check(
            "configuration",
            Err((error.to_string(), "correct it".to_owned())),
        )?,
    }
    let health = client.bytes(Method::GET, "/healthz", Vec::new()).await;
    check(
        "daemon",
        health.map(|_| "answers".to_owned()).map_err(|e| {
            let CliError { message, hint, .. } = e.into();
            (message, hint)
        }),
    )?;
    match missing {
        0 => Ok(()),
        n => Err(CliError::new(
            Exit::Unavailable,
            format!("{n} of these are missing"),
            "follow the lines marked ✗",
        )),
    }
}
