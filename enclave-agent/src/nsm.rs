//! The Nitro Security Module, through AWS's driver library. The hypervisor behind it is the one peer that is trusted.

use crate::failure::Fatal;
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use serde_bytes::ByteBuf;
use wire::control::Failure;

pub(crate) struct Nsm {
    descriptor: i32,
}

impl Nsm {
    pub(crate) fn open() -> Result<Nsm, Fatal> {
        match driver::nsm_init() {
            descriptor if descriptor >= 0 => Ok(Nsm { descriptor }),
            _ => Err(Fatal::new(Failure::Nsm, "/dev/nsm cannot be opened; the kernel has no NSM driver")),
        }
    }

    /// A fresh attestation document with the nonce in it. A few milliseconds.
    pub(crate) fn attest(&self, nonce: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
        let request =
            Request::Attestation { user_data: None, nonce: nonce.map(ByteBuf::from), public_key: None };
        match driver::nsm_process_request(self.descriptor, request) {
            Response::Attestation { document } => Ok(document),
            Response::Error(code) => Err(format!("the NSM answered {code:?}")),
            _ => Err("the NSM answered something else".to_owned()),
        }
    }
}

impl Drop for Nsm {
    fn drop(&mut self) {
        driver::nsm_exit(self.descriptor);
    }
}
