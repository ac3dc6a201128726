//! The Nitro Security Module. The hypervisor behind it is the one peer that is trusted.

use crate::failure::Fatal;
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use wire::control::AbortReason;

/// What the agent asks of it. Each call takes some milliseconds.
pub(crate) trait Nsm: Send + Sync {
    /// A fresh attestation document.
    fn attest(&self, question: Question) -> Result<Vec<u8>, String>;
    /// Up to 256 random bytes.
    fn random(&self) -> Result<Vec<u8>, String>;
    /// The register becomes the SHA-384 of itself and `data`.
    fn extend(&self, register: u16, data: Vec<u8>) -> Result<(), String>;
    /// No register below `end` can change any more, and all are in documents from then on.
    fn lock_below(&self, end: u16) -> Result<(), String>;
    /// What it says of itself.
    fn describe(&self) -> Result<Description, String>;
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
    pub(crate) fn open() -> Result<Device, Fatal> {
        match driver::nsm_init() {
            descriptor if descriptor >= 0 => Ok(Device { descriptor }),
            _ => Err(Fatal::new(
                AbortReason::Nsm,
                "/dev/nsm cannot be opened; the kernel has no NSM driver",
            )),
        }
    }

    fn ask<T>(
        &self,
        request: Request,
        take: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, String> {
        match driver::nsm_process_request(self.descriptor, request) {
            Response::Error(code) => Err(format!("the NSM answered {code:?}")),
            other => take(other).ok_or_else(|| "the NSM answered something else".to_owned()),
        }
    }
}

impl Nsm for Device {
    fn attest(&self, Question { nonce, public_key }: Question) -> Result<Vec<u8>, String> {
        let (nonce, public_key) = (nonce.map(ByteBuf::from), public_key.map(ByteBuf::from));
        self.ask(
            Request::Attestation {
                user_data: None,
                nonce,
                public_key,
            },
            |response| match response {
                Response::Attestation { document } => Some(document),
                _ => None,
            },
        )
    }

    fn random(&self) -> Result<Vec<u8>, String> {
        self.ask(Request::GetRandom, |response| match response {
            Response::GetRandom { random } => Some(random),
            _ => None,
        })
    }

    fn extend(&self, register: u16, data: Vec<u8>) -> Result<(), String> {
        self.ask(
            Request::ExtendPCR {
                index: register,
                data,
            },
            |response| matches!(response, Response::ExtendPCR { .. }).then_some(()),
        )
    }

    fn lock_below(&self, end: u16) -> Result<(), String> {
        self.ask(Request::LockPCRs { range: end }, |response| {
            matches!(response, Response::LockPCRs).then_some(())
        })
    }

    fn describe(&self) -> Result<Description, String> {
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
