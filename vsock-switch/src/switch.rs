//! The handle that guests are attached by.

use crate::config::GuestConfig;
use crate::engine::Engine;
use crate::error::SwitchError;
use crate::guest::Guest;
use std::sync::Arc;

/// Switches vsock connections between guests, and to unix sockets of the host. Guests come and go
/// while others run. Cheap to clone: all clones are one switch. Its thread ends when all of them and
/// all guests are dropped.
///
/// ```no_run
/// use vsock_switch::{GuestConfig, HostSide, Switch};
///
/// let switch = Switch::new()?;
/// let guest = switch.attach(GuestConfig {
///     cid: 16,
///     socket: "/run/a.sock".into(),
///     host: Some(HostSide {
///         cid: 3,
///         path: "/run/a".into(),
///     }),
/// })?;
/// // QEMU may connect to /run/a.sock.
/// drop(guest);
/// # Ok::<(), vsock_switch::SwitchError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Switch(Arc<Engine>);

impl Switch {
    /// Starts a switch without guests.
    ///
    /// # Errors
    /// [`SwitchError::Start`] if the system refuses the thread or a descriptor.
    pub fn new() -> Result<Switch, SwitchError> {
        let engine = Engine::start().map_err(SwitchError::Start)?;
        Ok(Switch(Arc::new(engine)))
    }

    /// Gives a guest its place. When this returns, its sockets are there and QEMU may connect. It
    /// waits for the switch's thread, which never blocks.
    ///
    /// # Errors
    /// A CID that is reserved or taken, a socket that cannot be made, or a thread that the system
    /// refuses. Nothing is left behind then.
    pub fn attach(&self, config: GuestConfig) -> Result<Guest, SwitchError> {
        Guest::attach(self.0.clone(), config)
    }
}
