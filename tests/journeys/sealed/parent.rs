//! Plays the parent of an enclave, with the daemon's own parts and orders of the test's.

use super::House;
use api::EnclaveId;
use aws_credential_types::Credentials;
use host_proxy::config::DaemonConfig;
use launch::{LaunchRequest, Launchers, Listeners, Logs};
use relay::control::{Control, Report};
use relay::egress::{self, EgressPolicy};
use secrets::Signer;
use std::path::Path;
use std::time::Duration;
use tests::kms::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use wire::control::{AbortReason, FromHost};
use wire::network::Network;
use wire::sealed::Sealed;
use wire::spec::{ImageDefaults, MeasuredSpec, Resources, Spec};

const RESOURCES: Resources = Resources {
    memory_mib: 192,
    cpus: 1,
};

/// An enclave image, and its spec as it is in it.
pub(super) struct Parent<'a> {
    eif: &'a Path,
    spec: MeasuredSpec,
}

impl Parent<'_> {
    pub(super) fn new<'a>(house: &House, eif: &'a Path) -> Parent<'a> {
        let text = std::fs::read_to_string(&house.spec).unwrap();
        let spec = Spec::parse(&text).unwrap();
        Parent {
            eif,
            spec: spec.resolve(ImageDefaults::any()).unwrap(),
        }
    }

    /// Boots to the end with this config, and gives what the agent said last. Requests to KMS are
    /// signed, the egress is a real one, to the fake.
    pub(super) fn boot(&self, config: &[u8]) -> Report {
        self.boot_as(Some(config), Some(credentials()))
    }

    /// With these credentials to sign with.
    pub(super) fn boot_as(
        &self,
        config: Option<&[u8]>,
        credentials: Option<Credentials>,
    ) -> Report {
        self.boot_through(config, credentials, &["127.0.0.0/8", "::1/128"])
    }

    /// With these exceptions from the refusal of inner addresses.
    pub(super) fn boot_through(
        &self,
        config: Option<&[u8]>,
        credentials: Option<Credentials>,
        networks: &[&str],
    ) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let network = |text: &&str| Network::try_from((*text).to_owned()).unwrap();
        let policy = EgressPolicy {
            network: self.spec.network.clone(),
            allow_networks: networks.iter().map(network).collect(),
        };
        let signer = credentials.zip(config).map(|(credentials, config)| {
            let header = Sealed::parse(config).unwrap().header;
            Signer::with_provider(credentials, self.spec.config.as_ref().unwrap(), &header)
        });
        let config = config.map(<[u8]>::to_vec);
        runtime.block_on(self.last_report(FromHost::Boot { config }, signer, policy))
    }

    async fn last_report(
        &self,
        boot: FromHost,
        signer: Option<Signer>,
        policy: EgressPolicy,
    ) -> Report {
        // Short, for the sake of socket paths.
        let run_dir = tempfile::Builder::new()
            .prefix("rh")
            .tempdir_in("/tmp")
            .unwrap();
        let DaemonConfig { launcher, qemu, .. } = config(run_dir.path());
        let launchers = Launchers::new(&qemu).unwrap();
        let launcher = launchers.of(launcher);
        let request = LaunchRequest {
            id: &EnclaveId::random().unwrap(),
            eif: self.eif,
            resources: RESOURCES,
            run_dir: run_dir.path(),
            debug: false,
        };
        let reservation = launcher.reserve(RESOURCES).unwrap();
        let launched = launcher.launch(request, reservation).await;
        let (instance, listeners) = launched.unwrap();
        let Listeners {
            heartbeat,
            control,
            egress,
        } = listeners;
        let serving = tokio::spawn(egress::serve(egress, policy));
        launch::heartbeat(&heartbeat).await.unwrap();
        let accepted = Control::accept(&control, boot, signer, Logs::default()).await;
        let mut control = accepted.unwrap();
        let report = tokio::time::timeout(Duration::from_secs(90), control.report()).await;
        serving.abort();
        drop(instance);
        report.expect("the agent hangs")
    }
}

/// The defaults, but for where the launcher's programs are: this test is not beside `vsock-switch`.
fn config(directory: &Path) -> DaemonConfig {
    let loaded = host_proxy::config::load(directory, None, std::iter::empty());
    let mut config = loaded.unwrap().config;
    config.qemu.directory = directory.join("programs");
    std::fs::create_dir(&config.qemu.directory).unwrap();
    tests::programs::link_launcher(&config.qemu.directory);
    config
}

/// Those that the fake KMS knows.
pub(super) fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "test")
}

pub(super) fn failed(report: Report) -> (AbortReason, String) {
    match report {
        Report::Failed { reason, detail } => (reason, detail),
        other => panic!("{other:?}"),
    }
}

/// Collects how boots failed that were to fail otherwise.
#[derive(Default)]
pub(super) struct Wrong(Vec<String>);

impl Wrong {
    /// A boot must end with this reason, and a detail that holds this text.
    pub(super) fn check(&mut self, what: &str, report: Report, expected: (AbortReason, &str)) {
        let found = failed(report);
        if found.0 != expected.0 || !found.1.contains(expected.1) {
            self.0
                .push(format!("{what}: {found:?}, expected {expected:?}"));
        }
    }

    #[track_caller]
    pub(super) fn assert_none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}
