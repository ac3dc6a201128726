//! All ways of launching that this program has. Nothing outside of this crate knows one by name.

use super::nitro::{self, Nitro};
use super::qemu::{Qemu, QemuConfig};
use super::{LaunchError, Launcher};
use api::Provider;
use std::sync::Arc;

/// A launcher for each provider. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Launchers {
    qemu: Arc<dyn Launcher>,
    nitro: Arc<dyn Launcher>,
}

impl Launchers {
    /// Those of this machine. Nothing is looked for yet: [`Launcher::preflight`] does.
    ///
    /// # Errors
    /// None, unless the program was built for tests and its test root cannot be read.
    pub fn new(qemu: &QemuConfig) -> Result<Launchers, LaunchError> {
        Ok(Launchers {
            qemu: Arc::new(Qemu::new(qemu.clone())),
            nitro: Arc::new(Nitro::new()?),
        })
    }

    /// The same one for every provider.
    pub fn only(launcher: Arc<dyn Launcher>) -> Launchers {
        Launchers {
            qemu: launcher.clone(),
            nitro: launcher,
        }
    }

    /// The one for a provider.
    pub fn of(&self, provider: Provider) -> &dyn Launcher {
        match provider {
            Provider::Qemu => &*self.qemu,
            Provider::AwsNitro => &*self.nitro,
        }
    }
}

/// What this machine can run enclaves with: Nitro where this process may use the driver, QEMU
/// elsewhere. Opens the driver's device.
pub fn default_provider() -> Provider {
    if nitro::is_usable() {
        Provider::AwsNitro
    } else {
        Provider::Qemu
    }
}
