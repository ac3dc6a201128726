//! The kernel's driver, through AWS's library.

use super::{Description, Nsm, NsmError, Question};
use crate::error::BootError;
use attestation::Origin;
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use serde_bytes::ByteBuf;
use wire::control::AbortReason;

/// `/dev/nsm`, open.
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
    fn attest(&self, origin: Origin, question: Question) -> Result<Vec<u8>, NsmError> {
        let Question {
            nonce,
            public_key,
            user_data,
        } = question;
        let request = Request::Attestation {
            user_data: Some(ByteBuf::from(origin.user_data(&user_data))),
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

    fn extend(&self, register: u16, data: Vec<u8>) -> Result<Vec<u8>, NsmError> {
        let request = Request::ExtendPCR {
            index: register,
            data,
        };
        self.ask(request, |response| match response {
            Response::ExtendPCR { data } => Some(data),
            _ => None,
        })
    }

    fn lock(&self, register: u16) -> Result<(), NsmError> {
        self.ask(Request::LockPCR { index: register }, |response| {
            matches!(response, Response::LockPCR).then_some(())
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
