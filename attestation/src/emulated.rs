//! The documents that QEMU's emulated NSM makes (machine `nitro-enclave`): without a signature, or
//! signed by a stand-in for AWS where QEMU was given one.
//!
//! They prove nothing: any program can write one. This module is only for the host that started
//! that QEMU itself, and for tests; a relying party must never call it. Nothing here checks a
//! signature, and nothing here makes a [`Verified`](crate::Verified). Requires the feature
//! `emulated`, which is off by default.

use crate::document::{Envelope, Fields};
use crate::error::Malformed;
use crate::origin::Origin;
use crate::pcr::Pcrs;
use crate::time::Time;

/// The fields of a document that nothing vouches for but who started its QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatedDocument {
    /// The name that QEMU was started with.
    pub module_id: String,
    /// When the document was made, by QEMU's clock.
    pub timestamp: Time,
    /// Every register that QEMU reports.
    pub pcrs: Pcrs,
    /// The public key that the guest supplied; at most 1024 bytes.
    pub public_key: Option<Vec<u8>>,
    /// The user data that the guest supplied; at most 1024 bytes.
    pub user_data: Option<Vec<u8>>,
    /// The nonce that the guest supplied; at most 1024 bytes.
    pub nonce: Option<Vec<u8>>,
}

impl EmulatedDocument {
    /// For whom Redoubt's agent had the document made; `None` if its user data carries no tag.
    pub fn origin(&self) -> Option<Origin> {
        let (origin, _) = Origin::of(self.user_data.as_deref()?)?;
        Some(origin)
    }
}

/// Why bytes are not an unsigned document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsignedError {
    /// The bytes are not an attestation document.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The document claims a signature or certificates.
    #[error("this is not an unsigned document of QEMU's emulated NSM; verify it instead")]
    NotUnsigned,
}

/// Reads a document of a QEMU that the caller started, whether its NSM was given a signer or not.
/// Signature and certificates are ignored.
///
/// # Errors
///
/// [`Malformed`] if `bytes` are not an attestation document.
pub fn read_emulated(bytes: &[u8]) -> Result<EmulatedDocument, Malformed> {
    let Envelope {
        algorithm: _,
        protected: _,
        payload,
        signature: _,
    } = Envelope::parse(bytes)?;
    Ok(Fields::parse(payload)?.into())
}

/// Reads a document that QEMU's NSM made without a signer: algorithm -1, and nothing but zeros for
/// signature and certificates (qemu, hw/virtio/virtio-nsm.c).
///
/// # Errors
///
/// [`UnsignedError::Malformed`] if `bytes` are not an attestation document, and
/// [`UnsignedError::NotUnsigned`] if it names another algorithm, or carries anything but zeros
/// where a signed document has its signature or certificates.
pub fn read_unsigned(bytes: &[u8]) -> Result<EmulatedDocument, UnsignedError> {
    let Envelope {
        algorithm,
        protected: _,
        payload,
        signature,
    } = Envelope::parse(bytes)?;
    let fields = Fields::parse(payload)?;
    let zero = |bytes: &[u8]| bytes.iter().all(|&b| b == 0);
    let mut cabundle = fields.cabundle.iter();
    if algorithm != -1
        || !zero(signature)
        || !zero(fields.certificate)
        || !cabundle.all(|certificate| zero(certificate))
    {
        return Err(UnsignedError::NotUnsigned);
    }
    Ok(fields.into())
}

impl From<Fields<'_>> for EmulatedDocument {
    fn from(fields: Fields<'_>) -> EmulatedDocument {
        let Fields {
            module_id,
            timestamp,
            pcrs,
            certificate: _,
            cabundle: _,
            public_key,
            user_data,
            nonce,
        } = fields;
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        EmulatedDocument {
            module_id: module_id.to_owned(),
            timestamp,
            pcrs,
            public_key: owned(public_key),
            user_data: owned(user_data),
            nonce: owned(nonce),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcr::Pcr;
    use minicbor::Encoder;

    /// What goes into a document; by default as QEMU writes it.
    struct Shape {
        algorithm: i64,
        signature: Vec<u8>,
        pcrs: Vec<(u64, Vec<u8>)>,
        extra_key: Option<&'static str>,
        trailing: bool,
    }

    impl Default for Shape {
        fn default() -> Self {
            Shape {
                algorithm: -1,
                signature: vec![0; 64],
                pcrs: vec![(0, vec![7; 48])],
                extra_key: None,
                trailing: false,
            }
        }
    }

    impl Shape {
        fn bytes(&self) -> Vec<u8> {
            let mut protected = Encoder::new(Vec::new());
            protected.map(1).unwrap().i64(1).unwrap();
            protected.i64(self.algorithm).unwrap();
            let mut cose = Encoder::new(Vec::new());
            cose.array(4).unwrap();
            cose.bytes(&protected.into_writer()).unwrap();
            cose.map(0).unwrap();
            cose.bytes(&self.payload()).unwrap();
            cose.bytes(&self.signature).unwrap();
            let mut bytes = cose.into_writer();
            bytes.extend(self.trailing.then_some(0));
            bytes
        }

        fn payload(&self) -> Vec<u8> {
            let mut cbor = Encoder::new(Vec::new());
            let extra = u64::from(self.extra_key.is_some());
            cbor.map(9 + extra).unwrap();
            cbor.str("module_id").unwrap().str("i-1-enc1").unwrap();
            cbor.str("digest").unwrap().str("SHA384").unwrap();
            cbor.str("timestamp").unwrap();
            cbor.u64(1_700_000_000_000).unwrap();
            cbor.str("pcrs").unwrap();
            cbor.map(self.pcrs.len() as u64).unwrap();
            for (index, pcr) in &self.pcrs {
                cbor.u64(*index).unwrap().bytes(pcr).unwrap();
            }
            cbor.str("certificate").unwrap().bytes(&[0; 64]).unwrap();
            cbor.str("cabundle").unwrap().array(1).unwrap();
            cbor.bytes(&[0; 64]).unwrap();
            cbor.str("public_key").unwrap().null().unwrap();
            cbor.str("user_data").unwrap().bytes(&[]).unwrap();
            cbor.str("nonce").unwrap().bytes(&[1, 2]).unwrap();
            if let Some(key) = self.extra_key {
                cbor.str(key).unwrap().null().unwrap();
            }
            cbor.into_writer()
        }
    }

    fn error(shape: Shape) -> UnsignedError {
        read_unsigned(&shape.bytes()).unwrap_err()
    }

    #[test]
    fn reads_what_qemu_writes() {
        let document = read_unsigned(&Shape::default().bytes()).unwrap();
        assert_eq!(
            document.pcrs.get(0),
            Some(&Pcr::try_from([7; 48].as_slice()).unwrap())
        );
        assert_eq!(
            (document.public_key, document.user_data),
            (None, Some(vec![]))
        );
        assert_eq!(document.nonce, Some(vec![1, 2]));
    }

    #[test]
    fn refuses_documents_that_claim_a_signature() {
        assert_eq!(
            error(Shape {
                algorithm: -35,
                ..Shape::default()
            }),
            UnsignedError::NotUnsigned
        );
        assert_eq!(
            error(Shape {
                signature: vec![1; 64],
                ..Shape::default()
            }),
            UnsignedError::NotUnsigned
        );
    }

    #[test]
    fn reads_signed_and_unsigned_documents_of_a_qemu_that_the_caller_started() {
        let unsigned = Shape::default().bytes();
        let fields = read_unsigned(&unsigned).unwrap();
        let signed = Shape {
            algorithm: -35,
            signature: vec![1; 96],
            ..Shape::default()
        };
        assert_eq!(read_emulated(&signed.bytes()), Ok(fields.clone()));
        assert_eq!(read_emulated(&unsigned), Ok(fields));
        assert_eq!(
            read_emulated(
                &Shape {
                    pcrs: vec![],
                    ..signed
                }
                .bytes()
            ),
            Err(Malformed::Field {
                field: "pcrs",
                problem: "is empty"
            })
        );
    }

    #[test]
    fn refuses_values_that_are_not_registers() {
        let field = |problem| {
            UnsignedError::Malformed(Malformed::Field {
                field: "pcrs",
                problem,
            })
        };
        let with = |pcrs| {
            error(Shape {
                pcrs,
                ..Shape::default()
            })
        };
        assert_eq!(with(vec![]), field("is empty"));
        assert_eq!(with(vec![(32, vec![0; 48])]), field("an index is above 31"));
        assert_eq!(
            with(vec![(0, vec![0; 32])]),
            field("a register is not 48 bytes long")
        );
        assert_eq!(
            with(vec![(3, vec![0; 48]), (3, vec![0; 48])]),
            UnsignedError::Malformed(Malformed::Duplicate("pcrs"))
        );
    }

    #[test]
    fn refuses_unknown_fields_duplicates_and_trailing_bytes() {
        let malformed = UnsignedError::Malformed;
        assert_eq!(
            error(Shape {
                extra_key: Some("nitrotpm_pcrs"),
                ..Shape::default()
            }),
            malformed(Malformed::Unknown("nitrotpm_pcrs".to_owned()))
        );
        assert_eq!(
            error(Shape {
                extra_key: Some("nonce"),
                ..Shape::default()
            }),
            malformed(Malformed::Duplicate("nonce"))
        );
        assert!(matches!(
            error(Shape {
                trailing: true,
                ..Shape::default()
            }),
            UnsignedError::Malformed(Malformed::Cbor {
                part: "COSE_Sign1",
                ..
            })
        ));
    }

    #[test]
    fn never_panics_on_a_cut_or_flipped_document() {
        let whole = Shape::default().bytes();
        for end in 0..whole.len() {
            assert!(read_unsigned(&whole[..end]).is_err());
            assert!(read_emulated(&whole[..end]).is_err());
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            drop((read_unsigned(&flipped), read_emulated(&flipped)));
        }
    }
}
