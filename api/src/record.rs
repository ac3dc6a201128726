//! What the daemon knows of one enclave: stored, served by the API, shown by `enclavectl`. Holds no
//! secret, only the name of one.

use crate::{Release, State, WorkloadRecord, now};
use attestation::{Measurements, Pcr};
use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use wire::spec::SpecFile;

/// `e-` and 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnclaveId(String);

/// A text that is no [`EnclaveId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an enclave id is e- and 16 lower-case hexadecimal digits")]
pub struct ParseIdError;

impl EnclaveId {
    /// A new one.
    ///
    /// # Errors
    /// The system provides no randomness.
    pub fn random() -> Result<EnclaveId, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes)?;
        Ok(EnclaveId(format!("e-{}", hex::encode(bytes))))
    }

    /// `e-0123456789abcdef`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EnclaveId {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        let digits = text.strip_prefix("e-").unwrap_or_default();
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() == 16 && digits.bytes().all(is_digit) {
            Ok(EnclaveId(text))
        } else {
            Err(ParseIdError)
        }
    }
}

impl From<EnclaveId> for String {
    fn from(id: EnclaveId) -> String {
        id.0
    }
}

impl std::fmt::Display for EnclaveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What runs an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Provider {
    /// QEMU's nitro-enclave machine: the same image and measurements on any machine, without AWS's
    /// signature.
    #[serde(rename = "qemu")]
    Qemu,
    /// AWS Nitro Enclaves: the hypervisor isolates them, and AWS signs what they attest.
    #[serde(rename = "aws-nitro")]
    AwsNitro,
}

/// Where the credentials for an image come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceType {
    /// Credentials that are stored with the enclave.
    PrivateRegistry,
    /// A registry that needs no credentials.
    PublicRegistry,
    /// The daemon's own `[registry]`, which issues credentials for each deploy; none are stored.
    ConfiguredRegistry,
}

/// An ingress port of the spec, and where the host listens for it while the enclave is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Inside the enclave.
    pub port: u16,
    /// On the host.
    pub address: SocketAddr,
}

/// What may be known of a sealed config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// The enclave name that it was sealed for.
    pub name: String,
    /// As it was sealed: later ones are higher.
    pub version: u64,
    /// ARN of the key that it was sealed with.
    pub kms_key: String,
    /// Of the sealed file, in hexadecimal digits.
    pub sha256: String,
}

/// What the daemon knows of one enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unique for ever.
    pub id: EnclaveId,
    /// Unique among the enclaves that are not destroyed.
    pub name: String,
    /// Where it is in its life: `status`, and `stage` or `failure`.
    #[serde(flatten)]
    pub state: State,
    /// Counts the orders that were accepted: 1 for its creation, and one more for each redeploy,
    /// config or termination. Events carry it too, so that the events of one order can be told from
    /// those before it.
    pub generation: u64,
    /// What runs it.
    pub provider: Provider,
    /// It runs in debug mode: its parent instance can read its memory, and its PCR0, 1 and 2 are
    /// zero. For tests only.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub debug: bool,
    /// Where credentials for the image come from.
    pub source_type: SourceType,
    /// What it was created from, or last redeployed to.
    pub image: Reference,
    /// Digest of the manifest that the reference was resolved to, once for this image: restarts use
    /// it, and only a redeploy resolves the reference again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_digest: Option<Digest>,
    /// Name of the secret that holds the registry credentials.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credentials_arn: Option<String>,
    /// `enclave.toml` as it was given, and parsed.
    #[serde(skip_serializing_if = "SpecFile::is_empty", default)]
    pub spec: SpecFile,
    /// What the image was built to. An enclave that measures to anything else is not launched until
    /// a redeploy is ordered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measurements: Option<Measurements>,
    /// What was attested last and what before that, newest first: the EIFs that are kept, and what
    /// a rollback goes back to.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attested: Vec<Release>,
    /// The sealed config that it runs with, or is to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config: Option<ConfigRecord>,
    /// Where the host listens for the enclave while it is deployed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ingress: Vec<Ingress>,
    /// Where relying parties can ask for attestation documents while the enclave is deployed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attestation: Option<SocketAddr>,
    /// What the enclave reports of its workload; of the last one, if none runs.
    #[serde(skip_serializing_if = "WorkloadRecord::is_empty", default)]
    pub workload: WorkloadRecord,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; the last change of the state.
    pub updated_at: String,
}

impl Record {
    /// What must be said wherever an enclave in debug mode is shown.
    pub const DEBUG_NOTICE: &str = "DEBUG: not confidential";

    /// [`Record::DEBUG_NOTICE`] if it runs in debug mode.
    pub fn debug_notice(&self) -> Option<&'static str> {
        self.debug.then_some(Record::DEBUG_NOTICE)
    }

    /// How many of [`Record::attested`] are kept.
    const MAX_ATTESTED: usize = 2;

    /// What it runs or is to run, if that is resolved and built.
    pub fn release(&self) -> Option<Release> {
        Some(Release {
            image: self.image.clone(),
            digest: self.image_digest?,
            measurements: self.measurements?,
        })
    }

    /// Takes what it is to run from now on.
    pub fn set_release(&mut self, release: Release) {
        let Release {
            image,
            digest,
            measurements,
        } = release;
        self.image = image;
        self.image_digest = Some(digest);
        self.measurements = Some(measurements);
    }

    /// Takes what was just attested; the last one but one is forgotten.
    pub fn set_attested(&mut self, release: Release) {
        self.attested
            .retain(|earlier| earlier.measurements != release.measurements);
        self.attested.insert(0, release.clone());
        self.attested.truncate(Record::MAX_ATTESTED);
        self.set_release(release);
    }

    /// What a rollback goes back to: the last that was attested and is not what it runs, or is to
    /// run, now.
    pub fn rollback_target(&self) -> Option<&Release> {
        self.attested
            .iter()
            .find(|attested| Some(attested.measurements) != self.measurements)
    }

    /// PCR0 of every EIF that it may be launched from again: of none once it is being destroyed.
    pub fn needed_eifs(&self) -> impl Iterator<Item = Pcr> {
        let attested = self.attested.iter().map(|release| release.measurements);
        let all = self.measurements.into_iter().chain(attested);
        let is_ending = self.state.is_ending();
        all.filter(move |_| !is_ending)
            .map(|measurements| measurements.pcr0)
    }

    /// Takes a new state; an enclave that is not deployed listens nowhere.
    pub fn set_state(&mut self, state: State) {
        if state != State::Deployed {
            self.ingress.clear();
            self.attestation = None;
        }
        self.state = state;
        self.updated_at = now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(tag: &str, pcr0: u8) -> Release {
        let pcr = |byte| format!("{byte:02x}").repeat(48);
        let measurements = serde_json::json!({
            "HashAlgorithm": "Sha384 { ... }", "PCR0": pcr(pcr0), "PCR1": pcr(1), "PCR2": pcr(2),
        });
        Release {
            image: Reference::parse(&format!("r.example/a:{tag}")).unwrap(),
            digest: Digest::of(&[pcr0]),
            measurements: serde_json::from_value(measurements).unwrap(),
        }
    }

    #[test]
    fn two_releases_are_kept_and_a_rollback_goes_to_the_one_that_does_not_run() {
        let json = serde_json::json!({
            "id": "e-0123456789abcdef", "name": "a", "status": "DEPLOYED", "generation": 1, "provider": "qemu",
            "source_type": "public-registry", "image": "r.example/a:v1", "created_at": "T", "updated_at": "T",
        });
        let mut record: Record = serde_json::from_value(json).unwrap();
        let [first, second, third] = [release("v1", 1), release("v2", 2), release("v3", 3)];
        record.set_attested(first.clone());
        record.set_attested(release("again", 1));
        assert_eq!(record.rollback_target(), None);
        record.set_attested(second.clone());
        assert_eq!(record.rollback_target(), Some(&release("again", 1)));
        record.set_attested(first.clone());
        assert_eq!(record.rollback_target(), Some(&second));
        // One that was never attested is no place to go back to; the one before it is.
        record.set_release(third.clone());
        assert_eq!(record.rollback_target(), Some(&first));
        assert_eq!(record.needed_eifs().count(), 3);
        record.set_attested(third.clone());
        assert_eq!(record.attested, [third, first]);
        record.set_state(State::PendingDestroy);
        assert_eq!(record.needed_eifs().count(), 0);
    }

    #[test]
    fn an_id_is_nothing_that_could_be_a_path() {
        let id = EnclaveId::random().unwrap();
        assert_eq!(EnclaveId::try_from(id.to_string()), Ok(id));
        for bad in [
            "",
            "e-",
            "e-../../etc/passwd1",
            "e-0123456789ABCDEF",
            "x-0123456789abcdef",
        ] {
            assert!(EnclaveId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
