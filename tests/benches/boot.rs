//! How soon a workload runs, and in how little memory: Redoubt's image beside one in the usual form,
//! an initial RAM disk that holds the unpacked files. Both have the same kernel and command line.
//!
//! ```text
//! boot IMAGE RAMDISK TIMES    run by `scripts/bench boot`
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark: what goes wrong is to end it, and its result is printed"
)]

use api::{EnclaveId, LogEntry, Provider};
use eif_builder::eif::SectionKind;
use launch::{Instance, LaunchRequest, Launchers, Listeners, Logs, QemuConfig, heartbeat};
use relay::control::{Control, Report};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::aws_library;
use tokio::time::{sleep, timeout};
use wire::control::FromHost;
use wire::spec::Resources;

/// What nitro-cli asks for the usual form of this image: four times its ramdisks.
const PLENTY_MIB: u32 = 2048;
const SIZES_MIB: [u32; 8] = [256, 320, 384, 512, 768, 1024, 1536, PLENTY_MIB];
const PATIENCE: Duration = Duration::from_secs(120);
/// What the workload prints before the content of `/proc/uptime`.
const FIRST_LINE: &str = "first line at ";

#[derive(Debug, Clone)]
enum Image {
    Ours(PathBuf),
    Usual(PathBuf),
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ours, ramdisk, times, ..] = arguments.as_slice() else {
        // `cargo test --all-targets` runs it too, and has nothing to compare.
        return println!("usage: boot IMAGE RAMDISK TIMES; see scripts/bench boot");
    };
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let usual = usual_image(Path::new(ours), Path::new(ramdisk), directory.path());
    let images = [Image::Ours(ours.into()), Image::Usual(usual)];
    let launchers = Launchers::new(&QemuConfig::default()).unwrap();

    let (mut best_of_ours, mut best_of_usual) = (f64::MAX, f64::MAX);
    for _ in 0..times.parse().unwrap() {
        let [ours, usual] = &images;
        best_of_ours = best_of_ours.min(seconds(&launchers, ours, PLENTY_MIB).await.unwrap());
        best_of_usual = best_of_usual.min(seconds(&launchers, usual, PLENTY_MIB).await.unwrap());
    }
    println!(
        "kernel start to first line, {PLENTY_MIB} MiB, best of {times}:  Redoubt {best_of_ours:.2} s  \
         unpacked {best_of_usual:.2} s  ratio {:.2}",
        best_of_ours / best_of_usual
    );
    let [ours, usual] = [
        least(&launchers, &images[0]).await,
        least(&launchers, &images[1]).await,
    ];
    println!("least memory of {SIZES_MIB:?} MiB:  Redoubt {ours} MiB  unpacked {usual} MiB");
}

/// The same kernel and command line, and one RAM disk.
fn usual_image(ours: &Path, ramdisk: &Path, directory: &Path) -> PathBuf {
    let kernel = directory.join("kernel");
    std::fs::write(&kernel, aws_library::section(ours, SectionKind::Kernel, 0)).unwrap();
    let cmdline = aws_library::section(ours, SectionKind::Cmdline, 0);
    let image = directory.join("usual.eif");
    let cmdline = String::from_utf8(cmdline).unwrap();
    aws_library::write_eif(&kernel, cmdline, &[ramdisk], &image);
    image
}

async fn least(launchers: &Launchers, image: &Image) -> u32 {
    for memory in SIZES_MIB {
        match seconds(launchers, image, memory).await {
            Ok(_) => return memory,
            Err(error) => eprintln!("not in {memory} MiB: {error}"),
        }
    }
    panic!("{image:?} runs in none of {SIZES_MIB:?} MiB")
}

/// From the start of the kernel to the workload's first line, by the enclave's clock; the end of the
/// console if there is none.
async fn seconds(launchers: &Launchers, image: &Image, memory_mib: u32) -> Result<f64, String> {
    let launcher = launchers.of(Provider::Qemu);
    let resources = Resources {
        memory_mib,
        ..Resources::default()
    };
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let reservation = launcher.reserve(resources).unwrap();
    let (Image::Ours(eif) | Image::Usual(eif)) = image;
    let request = LaunchRequest {
        id: &EnclaveId::random().unwrap(),
        eif,
        resources,
        run_dir: directory.path(),
        debug: false,
    };
    let begun = Instant::now();
    let launched = launcher.launch(request, reservation).await;
    let (mut instance, listeners) = launched.map_err(|error| error.to_string())?;
    let said = timeout(PATIENCE, async {
        match image {
            Image::Ours(_) => first_log_line(&mut instance, &listeners).await,
            Image::Usual(_) => first_console_line(&mut instance).await,
        }
    })
    .await;
    let taken = begun.elapsed().as_secs_f64();
    let console = instance.console();
    instance.kill().await;
    match said {
        Ok(Some(uptime)) => Ok(uptime),
        Ok(None) => Err(format!("{image:?} ended after {taken:.0} s: {console}")),
        Err(_) => Err(format!("{image:?} said nothing in {taken:.0} s: {console}")),
    }
}

/// It comes over vsock, and its agent waits for its host.
async fn first_log_line(instance: &mut Instance, listeners: &Listeners) -> Option<f64> {
    let logs = Logs::default();
    let mut reader = logs.reader();
    let host = async {
        heartbeat(&listeners.heartbeat).await.ok()?;
        let boot = FromHost::Boot { config: None };
        let accepted = Control::accept(&listeners.control, boot, None, logs.clone()).await;
        let mut control = accepted.ok()?;
        if control.report().await != Report::Started {
            return None;
        }
        reader.next().await.iter().find_map(|entry| match entry {
            LogEntry::Line { text, .. } => uptime(text),
            LogEntry::Dropped { .. } => None,
        })
    };
    tokio::select! {
        said = host => said,
        () = instance.ended() => None,
    }
}

async fn first_console_line(instance: &mut Instance) -> Option<f64> {
    loop {
        tokio::select! {
            () = sleep(Duration::from_millis(5)) => {}
            () = instance.ended() => return None,
        }
        if let Some(uptime) = uptime(&instance.console()) {
            return Some(uptime);
        }
    }
}

/// In seconds; `None` as long as the line is not complete.
fn uptime(text: &str) -> Option<f64> {
    let (_, rest) = text.split_once(FIRST_LINE)?;
    rest.split_once(' ')?.0.parse().ok()
}
