//! What this machine needs to run enclaves, one finding each. The daemon answers with it, and
//! `host-proxy doctor` prints it without one. Nothing is changed.

mod unit;

use crate::config::{DaemonConfig, SecretsKind};
use api::{Finding, Provider};
use broker::RegistryConfig;
use bytes::Bytes;
use eif_builder::artifacts::{self, ArtifactError};
use http_body_util::Full;
use hyper::Request;
use launch::Launchers;
use oci::https::Https;
use std::path::PathBuf;
use std::time::Duration;

/// How long the registry has.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks for the kernel, the agent, and what launches need; where the configuration names them, at
/// AWS and the registry; on a Nitro parent instance at its metadata service and the daemon's systemd
/// unit as well. All at once, for about 5 seconds at most.
pub async fn examine(config: &DaemonConfig, launchers: &Launchers) -> Vec<Finding> {
    let (here, aws, registry) =
        tokio::join!(on_disk(config, launchers), aws(config), registry(config));
    let mut findings = here;
    findings.extend(aws);
    findings.extend(registry);
    if config.launcher == Provider::AwsNitro {
        findings.push(unit::check(&unit::Service::find()));
    }
    findings
}

/// The checks that block, on a thread where that is allowed.
async fn on_disk(config: &DaemonConfig, launchers: &Launchers) -> Vec<Finding> {
    let (config, launchers) = (config.clone(), launchers.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let mut findings = vec![
            artifact("kernel", config.build.find(artifacts::KERNEL)),
            artifact("agent", config.build.find(artifacts::AGENT)),
            Finding::passed("configuration", summary(&config)),
        ];
        findings.extend(launchers.of(config.launcher).examine());
        findings
    });
    looking.await.unwrap_or_else(|error| {
        vec![Finding::not_checked(
            "machine",
            format!("a check failed unexpectedly: {error}"),
        )]
    })
}

fn summary(config: &DaemonConfig) -> String {
    format!(
        "secrets in {}, launcher {}",
        json_word(&config.secrets),
        json_word(&config.launcher)
    )
}

async fn aws(config: &DaemonConfig) -> Vec<Finding> {
    let keeps_secrets = config.secrets == SecretsKind::Aws;
    let has_role = !config.kms.role_arn.is_empty();
    let names_aws = keeps_secrets || has_role || !config.aws.kms_key.is_empty();
    let is_ecr = matches!(config.registry, Some(RegistryConfig::Ecr(_)));
    let metadata = async {
        if config.launcher != Provider::AwsNitro {
            return None;
        }
        Some(secrets::examine_metadata_service(names_aws || is_ecr).await)
    };
    let services = async {
        if !names_aws {
            return Vec::new();
        }
        secrets::examine_aws(&config.aws, &config.kms, keeps_secrets).await
    };
    let (metadata, services) = tokio::join!(metadata, services);
    metadata.into_iter().chain(services).collect()
}

async fn registry(config: &DaemonConfig) -> Option<Finding> {
    const WHAT: &str = "registry";
    let registry = config.registry.as_ref()?;
    let url = registry.service_url(|host| config.pull.plain_http.contains(host));
    let https = match Https::new(&config.pull.ca_cert) {
        Ok(https) => https,
        Err(error) => return Some(Finding::failed(WHAT, &error)),
    };
    let request = match Request::get(&url).body(Full::<Bytes>::default()) {
        Ok(request) => request,
        Err(error) => return Some(Finding::not_checked(WHAT, format!("{url}: {error}"))),
    };
    Some(match https.send(request, LIMIT).await {
        Ok(answer) if answer.status.is_server_error() => Finding::wrong(
            WHAT,
            format!("{url} answers {}", answer.status),
            "Check the registry's health and logs.",
        ),
        // Without credentials, 401 and 404 are answers as good as any.
        Ok(_) => Finding::passed(WHAT, format!("{url} answers")),
        Err(error) => {
            let finding = Finding::failed(WHAT, &error);
            let detail = format!("{url}: {}", finding.detail);
            Finding { detail, ..finding }
        }
    })
}

fn artifact(what: &str, found: Result<PathBuf, ArtifactError>) -> Finding {
    match found {
        Ok(path) => Finding::passed(what, path.display().to_string()),
        Err(error) => Finding::failed(what, &error),
    }
}

/// A value as the configuration spells it.
fn json_word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    async fn of_registry(host: &str) -> Finding {
        let environment = [
            ("HOST_PROXY_REGISTRY__TYPE", "docker"),
            ("HOST_PROXY_REGISTRY__REGISTRY_URL", host),
            ("HOST_PROXY_PULL__PLAIN_HTTP", &format!("[{host:?}]")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let directory = tempfile::tempdir().unwrap();
        let loaded = config::load(directory.path(), None, environment.into_iter()).unwrap();
        registry(&loaded.config).await.unwrap()
    }

    /// A registry with one answer.
    fn serve(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).unwrap() > 0);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_registry_is_reached_or_named() {
        let host = serve("401 Unauthorized");
        let text = format!("✓ registry: http://{host}/v2/ answers");
        assert_eq!(of_registry(&host).await.to_string(), text);
        let host = serve("502 Bad Gateway");
        let finding = of_registry(&host).await;
        assert!(
            finding.is_failed() && finding.detail.contains("502"),
            "{finding}"
        );
        // Nothing listens there.
        let finding = of_registry("127.0.0.1:1").await;
        assert!(finding.is_failed(), "{finding}");
        assert!(
            finding.detail.starts_with("http://127.0.0.1:1/v2/: "),
            "{finding}"
        );
    }
}
