//! The attestation document of a request.

use attestation::emulated::{EmulatedDocument, read_emulated};
use attestation::{Conditions, Pcrs, Policy, Time, Verifier};
use std::time::SystemTime;

/// What the answer depends on.
#[derive(Debug)]
pub(super) struct Attested {
    pub(super) pcrs: Pcrs,
    pub(super) public_key: Vec<u8>,
}

impl Attested {
    /// Without a verifier, a document of QEMU's NSM is believed, signed or not.
    pub(super) fn read(bytes: &[u8], verifier: Option<&Verifier>) -> Result<Attested, String> {
        let document = read_emulated(bytes).map_err(|e| e.to_string())?;
        let EmulatedDocument {
            pcrs, public_key, ..
        } = document;
        if let Some(verifier) = verifier {
            let now = Time::from(SystemTime::now());
            let verified = verifier.verify(bytes, now, &any(&pcrs));
            verified.map_err(|e| e.to_string())?;
        }
        let public_key = public_key.ok_or("it has no public key")?;
        Ok(Attested { pcrs, public_key })
    }
}

/// A genuine document will do: it is the key's policy that asks for registers.
fn any(pcrs: &Pcrs) -> Policy {
    let as_found = pcrs.iter().map(|(index, pcr)| (index, [*pcr].into()));
    Policy::new(Conditions {
        pcrs: as_found.collect(),
        allow_debug: true,
        ..Conditions::default()
    })
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation::TrustAnchor;
    use pki::{Plan, Signer, cbor, pcrs, registers};

    fn now() -> u64 {
        Time::from(SystemTime::now()).as_millis().unsigned_abs()
    }

    /// An unsigned document made now, its registers 0 to 2 zero if in debug mode.
    fn unsigned(debug: bool) -> Vec<u8> {
        let mut plan = Plan::unsigned();
        plan.set("timestamp", cbor(|e| e.u64(now())));
        let mut registers = registers();
        if debug {
            registers[..3]
                .iter_mut()
                .for_each(|(_, pcr)| *pcr = vec![0; 48]);
        }
        plan.set("pcrs", pcrs(&registers));
        plan.mint().document
    }

    #[test]
    fn with_a_root_only_documents_that_are_signed_below_it_are_believed() {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(directory.path()).unwrap();
        let verifier = Verifier::new(TrustAnchor::from_der(signer.root_der()).unwrap());
        for debug in [false, true] {
            let unsigned = unsigned(debug);
            let signed = signer.sign(&unsigned).unwrap();
            for bytes in [&unsigned, &signed] {
                let attested = Attested::read(bytes, None).unwrap();
                assert_eq!(attested.public_key, b"key");
            }
            let attested = Attested::read(&signed, Some(&verifier)).unwrap();
            assert_eq!(attested.pcrs.debug(), debug);
            assert!(Attested::read(&unsigned, Some(&verifier)).is_err());
            let other = Verifier::new(TrustAnchor::aws());
            assert!(Attested::read(&signed, Some(&other)).is_err());
        }
    }
}
