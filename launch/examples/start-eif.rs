//! Starts an enclave image, whoever wrote it, waits for its heartbeat, and ends it.
//!
//! ```text
//! cargo run -p launch --example start-eif -- app.eif
//! ```

use api::{EnclaveId, Provider};
use launch::{LaunchRequest, Launchers, QemuConfig, default_provider, heartbeat};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use wire::spec::Resources;

const MEMORY_MIB: u32 = 256;
const HEARTBEAT: Duration = Duration::from_secs(60);

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example's result")]
async fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args().nth(1).ok_or("usage: start-eif FILE")?;
    let launchers = Launchers::new(&QemuConfig::default())?;
    let launcher = launchers.of(default_provider());
    let resources = Resources {
        memory_mib: MEMORY_MIB,
        ..Resources::default()
    };
    let begun = Instant::now();
    let reservation = launcher.reserve(resources)?;
    let request = LaunchRequest {
        id: &EnclaveId::random()?,
        eif: Path::new(&image),
        resources,
        run_dir: &std::env::temp_dir(),
        debug: false,
    };
    let (mut instance, listeners) = launcher.launch(request, reservation).await?;
    tokio::select! {
        beat = timeout(HEARTBEAT, heartbeat(&listeners.heartbeat)) => beat??,
        () = instance.ended() => return Err(instance.console().into()),
    }
    let by = match default_provider() {
        Provider::AwsNitro => "Nitro",
        Provider::Qemu => "QEMU",
    };
    println!("alive after {:.1} s on {by}", begun.elapsed().as_secs_f64());
    instance.kill().await;
    Ok(())
}
