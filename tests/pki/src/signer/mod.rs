//! Signs the documents of QEMU's NSM as AWS's signs those of enclaves, below a root that is kept in
//! a directory.
//!
//! What a signed document proves is that a process which could reach the signer asked for it. That
//! is enough to run a real verifier on it in tests, and for nothing else.

mod directory;
mod identity;
mod serve;

pub use directory::OpenError;

use self::identity::{Identity, Root};
use crate::documents::{bytes, cbor, to_be_signed};
use attestation::Time;
use attestation::emulated::{EmulatedDocument, UnsignedError, read_unsigned};
use minicbor::Encoder;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The protected header {1: -35}, ES384 (RFC 9053, 2.1).
const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
/// The longest name of a module, in bytes: with a longer one, certificates would not fit into 1024.
/// On Nitro it has 39.
const MAX_MODULE_ID: usize = 128;
/// How many modules have certificates at a time. A module that lost its own gets new ones.
const MAX_IDENTITIES: usize = 64;

/// Why a document is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Only unsigned documents are signed.
    #[error("not a document of QEMU's NSM: {0}")]
    Unsigned(#[from] UnsignedError),
    /// The name would not fit into a certificate. Carries its length in bytes.
    #[error("the module id has {0} bytes; at most {MAX_MODULE_ID} are allowed")]
    ModuleId(usize),
}

/// A root, and the certificates below it. Threads can share a signer.
#[derive(Debug)]
pub struct Signer {
    root: Root,
    /// By module id.
    identities: Mutex<BTreeMap<String, Arc<Identity>>>,
}

impl Signer {
    /// The signer of a directory, which must exist. Its root is in `root.key` (PKCS #8, mode 0600)
    /// and `root.pem`; what is missing is made, so that the root stays the same from then on.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the files cannot be read or made, or do not belong together.
    pub fn open(directory: &Path) -> Result<Signer, OpenError> {
        Ok(Signer {
            root: Root::open(directory)?,
            identities: Mutex::default(),
        })
    }

    /// The root's certificate in DER, the anchor below which documents verify.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root.certificate
    }

    /// Signs an unsigned document: every field is kept, and optional ones that it lacks are null.
    ///
    /// A module's certificates are made at its first document and again half an hour before they
    /// expire. Takes a P-384 signature, and four more and four new keys for new certificates. No I/O.
    ///
    /// # Errors
    ///
    /// [`SignError`] if `document` is anything but an unsigned document.
    pub fn sign(&self, document: &[u8]) -> Result<Vec<u8>, SignError> {
        self.sign_at(document, Time::from(SystemTime::now()))
    }

    fn sign_at(&self, document: &[u8], now: Time) -> Result<Vec<u8>, SignError> {
        let document = read_unsigned(document)?;
        let len = document.module_id.len();
        if len > MAX_MODULE_ID {
            return Err(SignError::ModuleId(len));
        }
        let identity = self.identity(&document.module_id, now);
        let payload = payload(&document, &identity);
        let signature = identity.key.sign_fixed(&to_be_signed(&PROTECTED, &payload));
        Ok([
            vec![0x84],
            bytes(&PROTECTED),
            vec![0xa0],
            bytes(&payload),
            bytes(&signature),
        ]
        .concat())
    }

    fn identity(&self, module_id: &str, now: Time) -> Arc<Identity> {
        // What a thread that panicked left behind is whole: it is changed by single calls.
        let mut identities = self
            .identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = identities.get(module_id).filter(|held| held.is_usable(now)) {
            return Arc::clone(identity);
        }
        let identity = Arc::new(Identity::new(&self.root, module_id, now));
        identities.insert(module_id.to_owned(), Arc::clone(&identity));
        if identities.len() > MAX_IDENTITIES {
            let oldest = identities.iter().min_by_key(|(_, held)| held.until);
            if let Some(module_id) = oldest.map(|(module_id, _)| module_id.clone()) {
                identities.remove(&module_id);
            }
        }
        identity
    }
}

/// In the order and form of today's NSM: a map of indefinite length, with nulls.
fn payload(document: &EmulatedDocument, identity: &Identity) -> Vec<u8> {
    let EmulatedDocument {
        module_id,
        timestamp,
        pcrs,
        public_key,
        user_data,
        nonce,
    } = document;
    cbor(|e| {
        e.begin_map()?;
        e.str("module_id")?.str(module_id)?;
        e.str("digest")?.str("SHA384")?;
        // A document's time is after 1970.
        e.str("timestamp")?
            .u64(timestamp.as_millis().unsigned_abs())?;
        e.str("pcrs")?.map(pcrs.iter().count() as u64)?;
        for (index, pcr) in pcrs.iter() {
            e.u8(index)?.bytes(pcr.as_bytes())?;
        }
        e.str("certificate")?.bytes(&identity.certificate)?;
        e.str("cabundle")?.array(identity.cabundle.len() as u64)?;
        for certificate in &identity.cabundle {
            e.bytes(certificate)?;
        }
        optional(e.str("public_key")?, public_key.as_deref())?;
        optional(e.str("user_data")?, user_data.as_deref())?;
        optional(e.str("nonce")?, nonce.as_deref())?;
        e.end()
    })
}

type Encoding<'e> =
    Result<&'e mut Encoder<Vec<u8>>, minicbor::encode::Error<std::convert::Infallible>>;

fn optional<'e>(encoder: &'e mut Encoder<Vec<u8>>, bytes: Option<&[u8]>) -> Encoding<'e> {
    match bytes {
        Some(bytes) => encoder.bytes(bytes),
        None => encoder.null(),
    }
}

#[cfg(test)]
mod tests;
