//! Reads an image's config (OCI image-spec, config.md) and checks it against the manifest. Works on
//! bytes that were already hashed; fetches nothing.

use crate::content::ContentError;
use crate::digest::Digest;
use crate::error::PullError;
use crate::json;
use crate::platform::Platform;
use oci_spec::image as oci;
use serde::Deserialize;
use wire::spec::{ImageDefaults, ImageHealthcheck};

/// An image's config: how the image says it is run, and what its layers unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// `Entrypoint`, `Cmd`, `Env`, `User`, `WorkingDir` and `StopSignal`, and Docker's `Healthcheck`.
    pub run: ImageDefaults,
    /// Digests of the uncompressed layers, lowest first; as many as the manifest has layers.
    pub(crate) diff_ids: Vec<Digest>,
}

/// Reads a config whose manifest has `layers` layers.
pub(crate) fn read(
    bytes: &[u8],
    layers: usize,
    wanted: &Platform,
) -> Result<ImageConfig, PullError> {
    let invalid = |problem: ContentError| PullError::invalid("the image's config", problem);
    let config: oci::ImageConfiguration = json::parse(bytes).map_err(|e| invalid(e.into()))?;
    let found = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
    };
    if wanted.os != found.os || wanted.architecture != found.architecture {
        return Err(PullError::NoPlatform {
            wanted: wanted.clone(),
            offered: vec![found.to_string()],
        });
    }
    let diff_ids = read_layers(&config, layers).map_err(invalid)?;
    let run = config.config().as_ref().map(run_defaults);
    let docker: DockerDocument = json::parse(bytes).map_err(|e| invalid(e.into()))?;
    Ok(ImageConfig {
        run: ImageDefaults {
            health: docker.healthcheck(),
            ..run.unwrap_or_default()
        },
        diff_ids,
    })
}

/// What Docker and podman add to an image's config (moby, image/spec/spec.md): the OCI specification
/// has no such keys.
#[derive(Deserialize)]
struct DockerDocument {
    #[serde(default)]
    config: Option<DockerConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct DockerConfig {
    healthcheck: Option<Healthcheck>,
    shell: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    retries: i64,
    start_period: i64,
    start_interval: i64,
}

impl DockerDocument {
    fn healthcheck(self) -> Option<ImageHealthcheck> {
        let DockerConfig { healthcheck, shell } = self.config?;
        let Healthcheck {
            test,
            interval,
            timeout,
            retries,
            start_period,
            start_interval,
        } = healthcheck?;
        Some(ImageHealthcheck {
            test: test.unwrap_or_default(),
            shell: shell.unwrap_or_default(),
            interval,
            timeout,
            retries,
            start_period,
            start_interval,
        })
    }
}

/// The config names its layers twice, in `rootfs` and in the history: both must agree with the
/// manifest.
fn read_layers(
    config: &oci::ImageConfiguration,
    expected: usize,
) -> Result<Vec<Digest>, ContentError> {
    let rootfs = config.rootfs();
    if rootfs.typ() != "layers" {
        return Err(ContentError::RootfsType(rootfs.typ().clone()));
    }
    let diff_ids = rootfs.diff_ids().iter().map(|id| id.parse::<Digest>());
    let diff_ids: Vec<Digest> = diff_ids.collect::<Result<_, _>>()?;
    if diff_ids.len() != expected {
        return Err(ContentError::LayerCount {
            found: diff_ids.len(),
            expected,
        });
    }
    let history = config.history().as_deref().unwrap_or_default();
    let found = history
        .iter()
        .filter(|entry| !entry.empty_layer().unwrap_or(false))
        .count();
    if !history.is_empty() && found != expected {
        return Err(ContentError::HistoryCount { found, expected });
    }
    Ok(diff_ids)
}

fn run_defaults(config: &oci::Config) -> ImageDefaults {
    ImageDefaults {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
        health: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn dockers_healthcheck_is_read_with_its_shell() {
        let health = |config: &str| {
            let text = format!(
                r#"{{"os":"linux","architecture":"amd64","config":{config},
                    "rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
            );
            let read = read(text.as_bytes(), 1, &Platform::linux_amd64());
            read.unwrap().run.health
        };
        assert_eq!(health(r#"{"Cmd":["a"]}"#), None);
        assert_eq!(health("null"), None);
        let found = health(
            r#"{"Shell":["/bin/ash","-c"],"Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":5000000000,"Retries":2}}"#,
        );
        let expected = ImageHealthcheck {
            test: vec!["CMD-SHELL".to_owned(), "x".to_owned()],
            shell: vec!["/bin/ash".to_owned(), "-c".to_owned()],
            interval: 5_000_000_000,
            retries: 2,
            ..ImageHealthcheck::default()
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn a_config_must_agree_with_the_manifest() {
        let config = |rootfs: &str, extra: &str| {
            let text =
                format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{rootfs}{extra}}}"#);
            read(text.as_bytes(), 1, &Platform::linux_amd64())
        };
        let one = format!(r#"{{"type":"layers","diff_ids":["{D}"]}}"#);
        let read = config(
            &one,
            r#","config":{"User":"web","Cmd":["a"],"StopSignal":"SIGINT"}"#,
        )
        .unwrap();
        assert_eq!(
            (read.run.user.as_str(), read.run.cmd, read.run.stop_signal),
            ("web", vec!["a".to_owned()], Some("SIGINT".to_owned()))
        );
        let problem = |rootfs: &str, extra: &str| match config(rootfs, extra) {
            Err(PullError::Invalid { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        let none = problem(r#"{"type":"layers","diff_ids":[]}"#, "");
        assert!(
            matches!(
                none,
                ContentError::LayerCount {
                    found: 0,
                    expected: 1
                }
            ),
            "{none}"
        );
        let odd = problem(r#"{"type":"odd","diff_ids":[]}"#, "");
        assert!(
            matches!(&odd, ContentError::RootfsType(kind) if kind == "odd"),
            "{odd}"
        );
        let two = problem(
            &one,
            r#","history":[{"created_by":"a"},{"created_by":"b"}]"#,
        );
        assert!(
            matches!(
                two,
                ContentError::HistoryCount {
                    found: 2,
                    expected: 1
                }
            ),
            "{two}"
        );
    }
}
