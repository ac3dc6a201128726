//! The Nitro Security Module. The hypervisor behind it is the one peer that is trusted.

use crate::error::BootError;
use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use wire::control::AbortReason;

/// What the agent asks of it. Each call blocks for some milliseconds.
pub(crate) trait Nsm: Send + Sync {
    /// A fresh attestation document.
    fn attest(&self, question: Question) -> Result<Vec<u8>, NsmError>;
    /// Up to 256 random bytes.
    fn random(&self) -> Result<Vec<u8>, NsmError>;
    /// The register becomes the SHA-384 of itself and `data`.
    fn extend(&self, register: u16, data: Vec<u8>) -> Result<(), NsmError>;
    /// No register below `end` can change any more, and all are in documents from then on.
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
    /// It confirmed a lock that its own description denies.
    #[error("the NSM did not lock PCR16 to PCR31")]
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

/// What a document is to carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) public_key: Option<Vec<u8>>,
}

/// The kernel's driver, through AWS's library.
pub(crate) struct Device {
    descriptor: i32,
}

impl Device {
    pub(crate) fn open() -> Result<Device, BootError> {
        match driver::nsm_init() {
            descriptor if descriptor >= 0 => Ok(Device { descriptor }),
            _ => Err(BootError::new(
                AbortReason::Nsm,
                "cannot open /dev/nsm: the kernel has no NSM driver",
            )),
        }
    }

    fn ask<T>(
        &self,
        request: Request,
        take: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, NsmError> {
        match driver::nsm_process_request(self.descriptor, request) {
            Response::Error(code) => Err(NsmError::Code(code)),
            other => take(other).ok_or(NsmError::UnexpectedResponse),
        }
    }
}

impl Nsm for Device {
    fn attest(&self, Question { nonce, public_key }: Question) -> Result<Vec<u8>, NsmError> {
        let request = Request::Attestation {
            user_data: None,
            nonce: nonce.map(ByteBuf::from),
            public_key: public_key.map(ByteBuf::from),
        };
        self.ask(request, |response| match response {
            Response::Attestation { document } => Some(document),
            _ => None,
        })
    }

    fn random(&self) -> Result<Vec<u8>, NsmError> {
        self.ask(Request::GetRandom, |response| match response {
            Response::GetRandom { random } => Some(random),
            _ => None,
        })
    }

    fn extend(&self, register: u16, data: Vec<u8>) -> Result<(), NsmError> {
        let request = Request::ExtendPCR {
            index: register,
            data,
        };
        self.ask(request, |response| {
            matches!(response, Response::ExtendPCR { .. }).then_some(())
        })
    }

    fn lock_below(&self, end: u16) -> Result<(), NsmError> {
        self.ask(Request::LockPCRs { range: end }, |response| {
            matches!(response, Response::LockPCRs).then_some(())
        })
    }

    fn describe(&self) -> Result<Description, NsmError> {
        self.ask(Request::DescribeNSM, |response| match response {
            Response::DescribeNSM { locked_pcrs, .. } => Some(Description {
                locked: locked_pcrs,
            }),
            _ => None,
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        driver::nsm_exit(self.descriptor);
    }
}
