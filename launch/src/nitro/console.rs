//! The console of an enclave in debug mode. The hypervisor, CID 0, has it at a port of its own for
//! each enclave; one reader has all of it (aws-nitro-enclaves-cli, "console").

use crate::console::Console;
use std::time::Duration;
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_HYPERVISOR, VsockAddr, VsockStream};

/// The port of the enclave with CID 0.
const BASE_PORT: u32 = 10_000;
/// It is there once the enclave runs: a few tries.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

/// Reads the console until it ends. That it cannot be read is logged: the enclave runs without.
pub(super) async fn read(cid: u32, console: Console) {
    let address = VsockAddr::new(VMADDR_CID_HYPERVISOR, BASE_PORT.wrapping_add(cid));
    for attempt in 1..=TRIES {
        match VsockStream::connect(address).await {
            Ok(stream) => return console.read(stream).await,
            Err(error) if attempt == TRIES => {
                tracing::warn!(cid, %error, "the console of a debug enclave cannot be read");
            }
            Err(_) => sleep(BETWEEN).await,
        }
    }
}
