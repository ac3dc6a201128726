//! Errors that the hypervisor is told to make.

use crate::protocol::{Answer, Errno};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What happens in place of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and not carried out.
    Refused(Errno),
    /// It is carried out, and answered so much later.
    Late(Duration),
    /// It is not carried out, and answered with this.
    Wrong(Answer),
    /// It is not carried out, and never answered.
    Silent,
}

/// The faults that are still to happen, each once. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<(u32, Fault)>>>);

impl Faults {
    /// The next command of this number fares so. The numbers are those of the driver's
    /// `enum ne_pci_dev_cmd_type`: 1 ENCLAVE_START to 11 SLOT_ADD_BULK_VCPUS.
    pub fn push(&self, command: u32, fault: Fault) {
        self.list().push((command, fault));
    }

    /// What is to happen to this command.
    #[must_use]
    pub fn take(&self, command: u32) -> Option<Fault> {
        let mut list = self.list();
        let index = list.iter().position(|(number, _)| *number == command)?;
        Some(list.remove(index).1)
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(u32, Fault)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
