//! The Nitro Security Module. The hypervisor behind it is the one peer that is trusted.
//!
//! At boot the [`Device`] is asked directly. Then one thread owns it, and whoever needs something is
//! a [`Requester`] in a lane of the [`queue`]: no call, of some milliseconds or up to the two minutes
//! that the kernel waits for a lost answer (drivers/misc/nsm.c), holds up anything else.

mod device;
mod queue;
mod thread;

pub(crate) use device::Device;
pub(crate) use queue::Lane;
pub(crate) use thread::{AskError, Requester, queue, seconds};

use crate::error::BootError;
use attestation::Origin;
use aws_nitro_enclaves_nsm_api::api::ErrorCode;
use std::collections::BTreeSet;
use wire::control::AbortReason;

/// What the agent asks of it. Each call blocks.
pub(crate) trait Nsm: Send + Sync {
    /// A fresh attestation document, tagged with its origin.
    fn attest(&self, origin: Origin, question: Question) -> Result<Vec<u8>, NsmError>;
    /// Up to 256 random bytes.
    fn random(&self) -> Result<Vec<u8>, NsmError>;
    /// The register becomes the SHA-384 of itself and `data`; gives what it became.
    fn extend(&self, register: u16, data: Vec<u8>) -> Result<Vec<u8>, NsmError>;
    /// The register cannot change any more, and is in documents from then on.
    fn lock(&self, register: u16) -> Result<(), NsmError>;
    /// The same for every register below `end`.
    fn lock_below(&self, end: u16) -> Result<(), NsmError>;
    /// The state of its registers.
    fn describe(&self) -> Result<Description, NsmError>;
}

/// Why the NSM did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NsmError {
    #[error("the NSM returned the error {0:?}")]
    Code(ErrorCode),
    #[error("the NSM returned a response of another kind than the request's")]
    UnexpectedResponse,
    /// It confirmed a lock that its own description denies, or locked what the spec leaves open.
    #[error("the NSM did not lock the registers from PCR16 on that it was asked to")]
    NotLocked,
    /// A document without the time, or that cannot be read.
    #[error("the NSM's document has no timestamp")]
    NoTimestamp,
    /// A document whose registers cannot be read.
    #[error("the NSM's document has no registers")]
    NoRegisters,
}

impl From<NsmError> for BootError {
    fn from(error: NsmError) -> BootError {
        BootError::new(AbortReason::Nsm, error.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) locked: BTreeSet<u16>,
}

/// What a document is to carry beside its tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Question {
    /// [`wire::MAX_NONCE`] bytes at most.
    pub(crate) nonce: Option<Vec<u8>>,
    /// 1024 bytes at most.
    pub(crate) public_key: Option<Vec<u8>>,
    /// Follows the tag: [`Origin::MAX_USER_DATA`] bytes at most.
    pub(crate) user_data: Vec<u8>,
}
