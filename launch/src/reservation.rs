//! Resources that were set aside for an enclave.

use std::any::Any;

/// Resources that a launcher set aside. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation(Box<dyn Any + Send + Sync>);

impl Reservation {
    /// For launchers: `guard` gives the resources back when it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Reservation {
        Reservation(Box::new(guard))
    }

    /// What was set aside, if it is of this kind.
    pub(super) fn guard<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// What was set aside, for the launcher that did.
    pub(super) fn into_guard<T: Any>(self) -> Option<T> {
        self.0.downcast().ok().map(|guard| *guard)
    }
}
