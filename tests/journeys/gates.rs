//! What the agent checks before anything of the image runs.

use api::{EnclaveId, Provider};
use eif_builder::eif::{Eif, EifWriter, SectionKind};
use launch::{LaunchRequest, Launchers, QemuConfig, heartbeat};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use tests::image::{Compression, Image};
use tests::programs::link_launcher;
use tests::scene::Scene;
use tests::workloads::{busybox, listing_image};
use tests::{eif, tcp};
use wire::control::{AbortReason, FromAgent, FromHost};
use wire::frame::Reader;
use wire::io::Accept as _;
use wire::spec::Resources;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_enclave_says_what_its_gates_found() {
    let sleeps = serde_json::json!({ "Entrypoint": ["/bin/sh", "-c", "exec busybox sleep 1000"] });
    let image = Image::new(sleeps).layer(busybox(), Compression::Gzip);
    let scene = Scene::new(&image, "org/app:v1");
    let daemon = scene.start(&[]);
    let spec = "[network]\nattestation = '127.0.0.1:0'\n";
    assert_eq!(daemon.create("app", &scene.reference, spec).code, 0);
    let record = daemon.show("app");
    let health = tcp::get(record["attestation"].as_str().unwrap(), "/healthz");
    for line in [
        "\r\n\r\nok\n",
        "\ndebug: no\n",
        "\ncmdline: as measured\n",
        "\nrng: nsm-hwrng\n",
        "\nclock: set from the NSM, was off by ",
    ] {
        assert!(health.contains(line), "{line:?} is not in {health}");
    }
}

/// The registers do not say where the kernel ends: a parent can hide the first options in it.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn options_that_a_parent_hides_in_the_kernel_end_the_enclave() {
    let scene = Scene::new(&listing_image(), "org/app:v1");
    let honest = scene.path("honest.eif");
    assert!(
        eif::build(&scene.registry, &scene.reference, &honest, &[])
            .status
            .success()
    );
    let hiding = scene.path("hiding.eif");
    hide_options(&honest, &hiding, "reboot=k ".len());
    let [one, other] = [&honest, &hiding].map(|path| Eif::open(path).unwrap().measure().unwrap());
    assert_eq!(one.pcr0, other.pcr0, "the trick changed PCR0");
    let report = first_report(&scene, &hiding);
    let Some(FromAgent::Failed { reason, detail }) = &report else {
        panic!("{report:?}");
    };
    assert_eq!(*reason, AbortReason::Cmdline);
    assert!(detail.contains("'panic=-1 "), "{detail}");
}

/// The same image, but the first bytes of its command line are the last of its kernel.
fn hide_options(from: &Path, to: &Path, count: usize) {
    let eif = Eif::open(from).unwrap();
    let file = File::create_new(to).unwrap();
    let mut writer = EifWriter::new(&file);
    let mut hidden = Vec::new();
    let bytes = |kind| {
        let section = eif.sections().iter().find(|section| section.kind == kind);
        read(&eif, section.unwrap().range())
    };
    hidden.extend_from_slice(&bytes(SectionKind::Cmdline)[..count]);
    for section in eif.sections() {
        let mut data = read(&eif, section.range());
        match section.kind {
            SectionKind::Kernel => data.extend_from_slice(&hidden),
            SectionKind::Cmdline => drop(data.drain(..count)),
            _ => {}
        }
        writer.section(section.kind, &data).unwrap();
    }
    writer.finish().unwrap();
}

fn read(eif: &Eif, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut data = vec![0; usize::try_from(range.end - range.start).unwrap()];
    eif.file().read_exact_at(&mut data, range.start).unwrap();
    data
}

/// What the agent of an image says after its hello.
fn first_report(scene: &Scene, image: &Path) -> Option<FromAgent> {
    let directory = scene.path("programs");
    std::fs::create_dir(&directory).unwrap();
    link_launcher(&directory);
    let qemu = QemuConfig {
        directory,
        ..QemuConfig::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let launchers = Launchers::new(&qemu).unwrap();
        let launcher = launchers.of(Provider::Qemu);
        let resources = Resources::default();
        let request = LaunchRequest {
            id: &EnclaveId::random().unwrap(),
            eif: image,
            resources,
            run_dir: scene.folder(),
            debug: false,
        };
        let reservation = launcher.reserve(resources).unwrap();
        let (instance, listeners) = launcher.launch(request, reservation).await.unwrap();
        heartbeat(&listeners.heartbeat).await.unwrap();
        let mut control = listeners.control.next().await.unwrap();
        let mut reader = Reader::default();
        let hello = wire::io::read(&mut control, &mut reader).await.unwrap();
        assert!(matches!(hello, Some(FromAgent::Hello { .. })), "{hello:?}");
        let boot = FromHost::Boot { config: None };
        wire::io::write(&mut control, &boot).await.unwrap();
        let report = wire::io::read(&mut control, &mut reader).await.unwrap();
        instance.kill().await;
        report
    })
}
