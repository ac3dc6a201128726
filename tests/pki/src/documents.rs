//! Documents: a good one to start from, and every way to make it wrong.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a kit for tests: what goes wrong here is to end the test with a backtrace"
)]

use crate::certificates::{Certificate, Curve, Key, basic_constraints, key_usage};
use minicbor::Encoder;
use std::convert::Infallible;
use std::sync::OnceLock;

/// When the documents are made: 2026-01-01T12:00:00Z, in milliseconds.
pub const MADE_AT: i64 = 1_767_268_800_000;
/// The module that makes them.
pub const MODULE_ID: &str = "i-0123456789abcdef0-enc0123456789abcde";

/// A place in [`Plan::certificates`].
pub const ROOT: usize = 0;
/// A place in [`Plan::certificates`].
pub const REGIONAL: usize = 1;
/// A place in [`Plan::certificates`].
pub const ZONAL: usize = 2;
/// A place in [`Plan::certificates`].
pub const INSTANCE: usize = 3;
/// A place in [`Plan::certificates`].
pub const LEAF: usize = 4;

/// Everything that makes up a document.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The root first, the enclave's own last.
    pub certificates: Vec<Certificate>,
    /// Names and values of the payload, encoded, in order. `certificate` and `cabundle` are filled
    /// in when minting if they are not here.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// A name that is left out of the payload, even if it was filled in.
    pub without: Option<Vec<u8>>,
    /// Whether the payload is a map of indefinite length.
    pub indefinite: bool,
    /// Bytes that follow the payload's map.
    pub payload_tail: Vec<u8>,
    /// The protected header, as the content of its byte string.
    pub protected: Vec<u8>,
    /// The unprotected header, encoded.
    pub unprotected: Vec<u8>,
    /// How it is signed, with the key of the last certificate.
    pub signature: Signature,
    /// Puts certificates into another order, or loses some.
    pub arrange: fn(&mut Vec<Vec<u8>>),
}

/// What a document carries as its signature.
#[derive(Debug, Clone)]
pub enum Signature {
    /// r and s, 48 bytes each, as ES384 has it.
    Fixed,
    /// In DER, as certificates have it.
    Der,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A document, and the root that it chains to.
#[derive(Debug, Clone)]
pub struct Minted {
    /// COSE_Sign1, untagged.
    pub document: Vec<u8>,
    /// The self-made root, in DER.
    pub root: Vec<u8>,
}

/// One CBOR item, or several.
pub fn cbor(
    write: impl FnOnce(
        &mut Encoder<Vec<u8>>,
    ) -> Result<&mut Encoder<Vec<u8>>, minicbor::encode::Error<Infallible>>,
) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder).unwrap();
    encoder.into_writer()
}

/// A byte string in CBOR.
#[must_use]
pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    cbor(|e| e.bytes(bytes))
}

fn text(text: &str) -> Vec<u8> {
    cbor(|e| e.str(text))
}

/// An array of byte strings in CBOR.
pub(crate) fn list(items: &[Vec<u8>]) -> Vec<u8> {
    cbor(|e| {
        let e = e.array(items.len() as u64)?;
        items.iter().try_fold(e, |e, item| e.bytes(item))
    })
}

/// A map of registers in CBOR.
#[must_use]
pub fn pcrs(registers: &[(u64, Vec<u8>)]) -> Vec<u8> {
    cbor(|e| {
        let e = e.map(registers.len() as u64)?;
        registers
            .iter()
            .try_fold(e, |e, (index, pcr)| e.u64(*index)?.bytes(pcr))
    })
}

/// The registers of a good document: 0 to 15, each filled with its index plus one.
#[must_use]
pub fn registers() -> Vec<(u64, Vec<u8>)> {
    (0..16)
        .map(|index| (index, vec![u8::try_from(index).unwrap() + 1; 48]))
        .collect()
}

fn keys() -> &'static [Key; 5] {
    static KEYS: OnceLock<[Key; 5]> = OnceLock::new();
    KEYS.get_or_init(|| std::array::from_fn(|_| Key::new(Curve::P384)))
}

/// Five certificates shaped like AWS's: root, region, zone, parent instance, enclave.
fn certificates() -> Vec<Certificate> {
    let [root, regional, zonal, instance, leaf] = keys();
    let ca = |path_len| vec![basic_constraints(true, path_len), key_usage(5)];
    let end_entity = vec![basic_constraints(false, None), key_usage(0)];
    let decades = ["191028132805Z", "491028142805Z"];
    let weeks = ["251220000000Z", "260109010000Z"];
    let days = ["251230000000Z", "260104180000Z"];
    let day = ["260101000000Z", "260102000000Z"];
    let hours = ["260101110000Z", "260101140000Z"];
    vec![
        Certificate::new("root", "root", decades, ca(None), root),
        Certificate::new("root", "region", weeks, ca(Some(2)), regional),
        Certificate::new("region", "zone", days, ca(Some(1)), zonal),
        Certificate::new("zone", "instance", day, ca(Some(0)), instance),
        Certificate::new("instance", "enclave", hours, end_entity, leaf),
    ]
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            certificates: certificates(),
            fields: vec![
                (text("module_id"), text(MODULE_ID)),
                (text("digest"), text("SHA384")),
                (text("timestamp"), cbor(|e| e.u64(MADE_AT.unsigned_abs()))),
                (text("pcrs"), pcrs(&registers())),
                (text("public_key"), bytes(b"key")),
                (text("user_data"), cbor(Encoder::null)),
                (text("nonce"), bytes(b"12345678")),
            ],
            without: None,
            indefinite: false,
            payload_tail: vec![],
            protected: vec![0xa1, 0x01, 0x38, 0x22],
            unprotected: vec![0xa0],
            signature: Signature::Fixed,
            arrange: |_| {},
        }
    }
}

impl Plan {
    /// As QEMU's NSM makes it (hw/virtio/virtio-nsm.c): algorithm -1, and 64 zeros in place of the
    /// signature and each certificate.
    #[must_use]
    pub fn unsigned() -> Plan {
        let zeros = vec![0; 64];
        let mut plan = Plan {
            protected: vec![0xa1, 0x01, 0x20],
            signature: Signature::Bytes(zeros.clone()),
            ..Plan::default()
        };
        plan.set("certificate", bytes(&zeros));
        plan.set("cabundle", list(&[zeros]));
        plan
    }

    /// A good document after `change`.
    pub fn with(change: impl FnOnce(&mut Plan)) -> Minted {
        let mut plan = Plan::default();
        change(&mut plan);
        plan.mint()
    }

    /// Replaces the value of a field, or adds it at the end; `value` is encoded.
    pub fn set(&mut self, name: &str, value: Vec<u8>) {
        let name = text(name);
        match self.fields.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name, value)),
        }
    }

    /// Leaves a field out.
    pub fn remove(&mut self, name: &str) {
        let name = text(name);
        self.fields.retain(|(other, _)| *other != name);
    }

    /// The certificates in DER, the root first and the enclave's last.
    #[must_use]
    pub fn minted_certificates(&self) -> Vec<Vec<u8>> {
        (0..self.certificates.len())
            .map(|place| {
                self.certificates[place].mint(&self.certificates[place.saturating_sub(1)].key)
            })
            .collect()
    }

    /// The document, and its root.
    #[must_use]
    pub fn mint(mut self) -> Minted {
        let mut cabundle = self.minted_certificates();
        let (root, leaf) = (cabundle[ROOT].clone(), cabundle.pop().unwrap());
        (self.arrange)(&mut cabundle);
        let names: Vec<_> = self.fields.iter().map(|(name, _)| name.clone()).collect();
        if !names.contains(&text("certificate")) {
            self.set("certificate", bytes(&leaf));
        }
        if !names.contains(&text("cabundle")) {
            self.set("cabundle", list(&cabundle));
        }
        self.fields
            .retain(|(name, _)| self.without.as_ref() != Some(name));
        let document = self.sign();
        Minted { document, root }
    }

    /// The payload as it is signed.
    fn payload(&self) -> Vec<u8> {
        let (head, end) = if self.indefinite {
            (vec![0xbf], vec![0xff])
        } else {
            (cbor(|e| e.map(self.fields.len() as u64)), vec![])
        };
        let entries: Vec<u8> = self
            .fields
            .iter()
            .flat_map(|(name, value)| [name.clone(), value.clone()].concat())
            .collect();
        [head, entries, end, self.payload_tail.clone()].concat()
    }

    /// COSE_Sign1 over the payload, with the last certificate's key.
    fn sign(&self) -> Vec<u8> {
        let payload = self.payload();
        let message = to_be_signed(&self.protected, &payload);
        let key = &self.certificates.last().unwrap().key;
        let signature = match &self.signature {
            Signature::Bytes(bytes) => bytes.clone(),
            Signature::Fixed => key.sign_fixed(&message),
            Signature::Der => key.sign(&message),
        };
        [
            vec![0x84],
            bytes(&self.protected),
            self.unprotected.clone(),
            bytes(&payload),
            bytes(&signature),
        ]
        .concat()
    }
}

/// Sig_structure (RFC 9052, 4.4) with empty external data.
pub(crate) fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    cbor(|e| {
        e.array(4)?
            .str("Signature1")?
            .bytes(protected)?
            .bytes(&[])?
            .bytes(payload)
    })
}
