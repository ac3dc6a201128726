//! An enclave that was started.

use super::{Console, Vsock};
use std::future::Future;
use std::pin::Pin;

/// What keeps an enclave alive: its processes, or its descriptor. Dropping it ends the enclave.
pub trait Machine: std::fmt::Debug + Send {
    /// Waits until the enclave is gone. Cancelling is safe.
    fn ended(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Ends the enclave, and waits until it is gone.
    fn kill(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// An enclave that was started, whatever started it. Dropping it ends the enclave.
#[derive(Debug)]
pub struct Instance {
    vsock: Vsock,
    console: Console,
    machine: Box<dyn Machine>,
}

impl Instance {
    /// For launchers.
    pub fn new(vsock: Vsock, console: Console, machine: Box<dyn Machine>) -> Instance {
        Instance {
            vsock,
            console,
            machine,
        }
    }

    /// The way into it.
    pub fn vsock(&self) -> &Vsock {
        &self.vsock
    }

    /// The last lines of its console, on one line.
    pub fn console(&self) -> String {
        self.console.tail()
    }

    /// Waits until it is gone. Cancelling is safe.
    pub async fn ended(&mut self) {
        self.machine.ended().await;
    }

    /// Ends it, and waits until it is gone.
    pub async fn kill(self) {
        self.machine.kill().await;
    }
}
