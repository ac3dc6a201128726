//! The sealed config: opened by proving to KMS what this enclave is, measured into PCR16, and
//! handed to the workload.
//!
//! The parent sends the file and signs the request to KMS, and may be hostile: every step compares
//! with the measured spec or is authenticated, and the first that fails ends the enclave with a
//! reason.

mod deliver;
mod envelope;
mod kms;
mod recipient;
mod signature;
mod signer;
mod transport;

pub(crate) use deliver::{Variables, deliver};
pub(crate) use signer::{Signer, channel};

use crate::document;
use crate::error::BootError;
use crate::nsm::{Nsm, NsmError, Question};
use attestation::Origin;
use aws_lc_rs::digest::{SHA384, digest};
use std::ops::Range;
use wire::control::AbortReason;
use wire::sealed::{Sealed, SpecMismatch};
use wire::spec::MeasuredSpec;
use zeroize::Zeroizing;

/// The register that says which file was opened (`wire::sealed`, "Which config runs"). It and all
/// above are locked once a config is open, but for those that the spec leaves to the workload.
const REGISTER: u16 = 16;
const REGISTERS: Range<u16> = REGISTER..32;

/// What the host sent with `Boot`.
#[derive(Debug)]
pub(crate) struct BootPayload {
    pub(crate) config: Option<Vec<u8>>,
}

/// The config of the spec, open and measured; `None` if the spec asks for none, whatever the host
/// sent.
pub(crate) async fn open(
    spec: &MeasuredSpec,
    payload: BootPayload,
    nsm: &dyn Nsm,
    signer: Signer,
) -> Result<Option<Zeroizing<Vec<u8>>>, BootError> {
    let Some(config) = &spec.config else {
        return Ok(None);
    };
    let bytes = payload.config.ok_or_else(|| {
        let missing = "the spec asks for a sealed config, and the host sent none";
        BootError::new(AbortReason::ConfigMissing, missing)
    })?;
    let sealed = Sealed::parse(&bytes)
        .map_err(|e| BootError::new(AbortReason::ConfigDamaged, e.to_string()))?;
    sealed
        .header
        .belongs_to(spec.name.as_deref().unwrap_or_default(), config)
        .map_err(|mismatch| explain(&mismatch))?;
    signature::verify(&sealed, config)?;

    let recipient = envelope::Recipient::new()?;
    let document = document(nsm, recipient.public_key()?)?;
    check_mode(&document, config.allow_debug)?;
    let answer = kms::decrypt(config, &sealed.header, document, signer).await?;
    let key = recipient.open(&answer)?;
    let plaintext = envelope::unseal(&sealed, &key)?;

    measure(&bytes, &spec.attestation.extend, nsm)?;
    Ok(Some(plaintext))
}

fn explain(mismatch: &SpecMismatch) -> BootError {
    let reason = match mismatch {
        SpecMismatch::TooOld { .. } => AbortReason::ConfigTooOld,
        SpecMismatch::Unsigned { .. } | SpecMismatch::Sealer { .. } => AbortReason::ConfigUnsigned,
        SpecMismatch::Name { .. } | SpecMismatch::Key { .. } | SpecMismatch::Context { .. } => {
            AbortReason::ConfigForeign
        }
    };
    BootError::new(reason, mismatch.to_string())
}

/// An attestation document that tells KMS which key to answer for.
fn document(nsm: &dyn Nsm, public_key: Vec<u8>) -> Result<Vec<u8>, BootError> {
    let mut nonce = vec![0; 32];
    aws_lc_rs::rand::fill(&mut nonce)
        .map_err(|_| BootError::new(AbortReason::Nsm, "cannot generate random numbers"))?;
    let question = Question {
        nonce: Some(nonce),
        public_key: Some(public_key),
        ..Question::default()
    };
    Ok(nsm.attest(Origin::Kms, question)?)
}

/// Writes into PCR16 which file was opened. After this nothing else can be written there, nor into
/// any register above that is not in `open`.
fn measure(sealed: &[u8], open: &[u8], nsm: &dyn Nsm) -> Result<(), NsmError> {
    nsm.extend(REGISTER, digest(&SHA384, sealed).as_ref().to_vec())?;
    let is_open = |register: &u16| open.iter().any(|open| u16::from(*open) == *register);
    if open.is_empty() {
        nsm.lock_below(REGISTERS.end)?;
    } else {
        let closed = REGISTERS.filter(|register| !is_open(register));
        closed
            .into_iter()
            .try_for_each(|register| nsm.lock(register))?;
    }
    let locked = nsm.describe()?.locked;
    let mut registers = REGISTERS;
    if registers.all(|register| locked.contains(&register) != is_open(&register)) {
        Ok(())
    } else {
        Err(NsmError::NotLocked)
    }
}

/// KMS refuses documents of debug mode where the key's policy asks for a PCR0; this does not rely on
/// it.
fn check_mode(document: &[u8], allow_debug: bool) -> Result<(), BootError> {
    let measured = document::is_measured(document).map_err(|_| NsmError::NoRegisters)?;
    if measured || allow_debug {
        return Ok(());
    }
    Err(BootError::new(
        AbortReason::ConfigDebug,
        "this enclave runs in debug mode, and its spec does not let it open a config there",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nsm::Description;
    use aws_nitro_enclaves_nsm_api::api::ErrorCode;
    use std::collections::BTreeSet;

    /// A fake NSM that keeps what it is asked, and fails at one question.
    #[derive(Default)]
    struct FakeNsm {
        asked: std::sync::Mutex<Vec<String>>,
        fails_at: Option<&'static str>,
        locks: bool,
        locked: std::sync::Mutex<BTreeSet<u16>>,
    }

    impl FakeNsm {
        fn locking() -> FakeNsm {
            FakeNsm {
                locks: true,
                ..FakeNsm::default()
            }
        }

        fn keep(&self, registers: impl IntoIterator<Item = u16>) {
            let kept = registers.into_iter().filter(|_| self.locks);
            self.locked.lock().unwrap().extend(kept);
        }

        fn ask(&self, what: String) -> Result<(), NsmError> {
            let fails = self
                .fails_at
                .is_some_and(|fails_at| what.starts_with(fails_at));
            self.asked.lock().unwrap().push(what);
            if fails {
                Err(NsmError::Code(ErrorCode::InternalError))
            } else {
                Ok(())
            }
        }
    }

    impl Nsm for FakeNsm {
        fn attest(&self, origin: Origin, question: Question) -> Result<Vec<u8>, NsmError> {
            self.ask(format!("attest {origin}"))?;
            Ok(question.public_key.unwrap_or_default())
        }

        fn random(&self) -> Result<Vec<u8>, NsmError> {
            unreachable!("measuring needs no random numbers")
        }

        fn extend(&self, register: u16, data: Vec<u8>) -> Result<Vec<u8>, NsmError> {
            self.ask(format!("extend {register} {}", hex::encode(data)))?;
            Ok(Vec::new())
        }

        fn lock(&self, register: u16) -> Result<(), NsmError> {
            self.keep([register]);
            self.ask(format!("lock only {register}"))
        }

        fn lock_below(&self, end: u16) -> Result<(), NsmError> {
            self.keep(0..end);
            self.ask(format!("lock {end}"))
        }

        fn describe(&self) -> Result<Description, NsmError> {
            self.ask("describe".to_owned())?;
            let locked = self.locked.lock().unwrap().clone();
            Ok(Description { locked })
        }
    }

    #[test]
    fn the_file_is_measured_and_the_register_locked_or_nothing_runs() {
        let good = FakeNsm::locking();
        measure(b"abc", &[], &good).unwrap();
        // FIPS 180-4's example: SHA-384 of "abc".
        let abc = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7";
        assert_eq!(
            *good.asked.lock().unwrap(),
            [
                format!("extend 16 {abc}"),
                "lock 32".to_owned(),
                "describe".to_owned()
            ]
        );
        for fails_at in ["extend", "lock", "describe"] {
            let nsm = FakeNsm {
                fails_at: Some(fails_at),
                ..FakeNsm::locking()
            };
            let error = measure(b"abc", &[], &nsm).unwrap_err();
            assert!(
                matches!(error, NsmError::Code(ErrorCode::InternalError)),
                "{fails_at}: {error}"
            );
        }
        let unlocked = measure(b"abc", &[], &FakeNsm::default());
        assert!(matches!(unlocked, Err(NsmError::NotLocked)));
    }

    #[test]
    fn the_document_for_kms_is_tagged_so() {
        let nsm = FakeNsm::default();
        assert_eq!(document(&nsm, vec![7]).unwrap(), [7]);
        assert_eq!(*nsm.asked.lock().unwrap(), ["attest kms"]);
    }

    #[test]
    fn every_register_is_locked_but_those_that_the_spec_leaves_to_the_workload() {
        let nsm = FakeNsm::locking();
        measure(b"abc", &[17, 31], &nsm).unwrap();
        let locked = [16].into_iter().chain(18..31).collect();
        assert_eq!(nsm.describe().unwrap().locked, locked);
        // One that is locked already could never be extended, as the spec says it can.
        let nsm = FakeNsm::locking();
        nsm.keep([17]);
        let error = measure(b"abc", &[17], &nsm);
        assert!(matches!(error, Err(NsmError::NotLocked)));
        let nsm = FakeNsm::default();
        let error = measure(b"abc", &[17], &nsm);
        assert!(matches!(error, Err(NsmError::NotLocked)));
    }

    /// A document with these registers, signed by no one.
    fn document_with(registers: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = minicbor::Encoder::new(Vec::new());
        payload.map(2).unwrap().str("pcrs").unwrap();
        payload
            .map(u64::try_from(registers.len()).unwrap())
            .unwrap();
        for (register, value) in registers {
            payload.u16(*register).unwrap().bytes(value).unwrap();
        }
        payload.str("timestamp").unwrap();
        payload.u64(1_000_000_000).unwrap();
        let mut cose = minicbor::Encoder::new(Vec::new());
        cose.array(4).unwrap().bytes(&[]).unwrap().map(0).unwrap();
        let payload = payload.into_writer();
        cose.bytes(&payload).unwrap().bytes(&[]).unwrap();
        cose.into_writer()
    }

    #[test]
    fn no_config_is_opened_in_debug_mode_unless_the_spec_says_so() {
        let zero = [0; 48];
        let mut measured = zero;
        measured[47] = 1;
        let check = |registers: &[(u16, &[u8])], allow_debug| {
            check_mode(&document_with(registers), allow_debug).map_err(|e| e.reason)
        };
        let debug = Err(AbortReason::ConfigDebug);
        assert_eq!(check(&[(1, &measured), (0, &measured)], false), Ok(()));
        assert_eq!(check(&[(0, &zero), (4, &measured)], false), debug);
        assert_eq!(check(&[(4, &measured)], false), debug);
        assert_eq!(check(&[(0, &zero)], true), Ok(()));
        let unreadable = check_mode(b"x", true).map_err(|e| e.reason);
        assert_eq!(unreadable, Err(AbortReason::Nsm));
    }
}
