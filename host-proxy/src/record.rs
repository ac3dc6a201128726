//! What the daemon knows of one enclave: stored, served by the API, shown by `enclavectl`. Holds no secret, only the name of one.

use crate::fault::Fault;
use crate::lifecycle::{Stage, State, Status};
use attestation::Measurements;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `e-` and 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnclaveId(String);

impl EnclaveId {
    pub fn random() -> Result<EnclaveId, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes)?;
        Ok(EnclaveId(format!("e-{}", hex::encode(bytes))))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EnclaveId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("e-").unwrap_or_default();
        match digits.len() == 16
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            true => Ok(EnclaveId(text)),
            false => Err("an enclave id is e- and 16 hexadecimal digits".to_owned()),
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Provider {
    /// QEMU's nitro-enclave machine: the same image and measurements on any machine, without AWS's signature.
    #[serde(rename = "qemu")]
    Qemu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceType {
    /// A registry that wants credentials.
    PrivateRegistry,
    /// A registry that lets everybody pull.
    PublicRegistry,
    /// The daemon's own `[registry]`, which makes credentials for each deploy: none are kept.
    ConfiguredRegistry,
}

/// An ingress port of the spec, and where the host listens for it while the enclave is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    pub port: u16,
    pub address: SocketAddr,
}

/// What may be known of a sealed config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    pub name: String,
    pub version: u64,
    pub kms_key: String,
    /// Of the sealed file.
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: EnclaveId,
    pub name: String,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stage: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<Fault>,
    pub provider: Provider,
    pub source_type: SourceType,
    /// The image reference, written out in full.
    pub image: String,
    /// Digest of the manifest that the last deploy resolved to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_digest: Option<String>,
    /// Name of the secret that holds the registry credentials.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credentials_arn: Option<String>,
    /// `enclave.toml` as it was given.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub spec: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measurements: Option<Measurements>,
    /// The sealed config that it runs with, or is to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config: Option<ConfigRecord>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ingress: Vec<Ingress>,
    /// Where relying parties may ask for attestation documents while the enclave is deployed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attestation: Option<SocketAddr>,
    /// RFC 3339.
    pub created_at: String,
    pub updated_at: String,
}

impl Record {
    pub fn state(&self) -> State {
        match (self.status, self.stage, &self.fault) {
            (Status::PendingDeploy, ..) => State::PendingDeploy,
            (Status::Deploying, stage, _) => State::Deploying(stage.unwrap_or(Stage::Credentials)),
            (Status::Deployed, ..) => State::Deployed,
            (Status::Failed, _, Some(fault)) => State::Failed(fault.clone()),
            (Status::Failed, _, None) => State::Failed(Fault::internal("the reason was lost")),
            (Status::PendingDestroy, ..) => State::PendingDestroy,
            (Status::Destroying, ..) => State::Destroying,
            (Status::Destroyed, ..) => State::Destroyed,
        }
    }

    pub fn set_state(&mut self, state: &State) {
        self.status = state.status();
        self.stage = match state {
            State::Deploying(stage) => Some(*stage),
            _ => None,
        };
        self.fault = match state {
            State::Failed(fault) => Some(fault.clone()),
            _ => None,
        };
        if !matches!(state, State::Deployed) {
            self.ingress.clear();
            self.attestation = None;
        }
        self.updated_at = now();
    }
}

/// The present time, RFC 3339 in UTC with six digits behind the second, so that the order of texts is the order of times.
pub fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second, micros) = now.to_hms_micro();
    format!(
        "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z",
        u8::from(month)
    )
}

/// Something that happened to an enclave, one line of `GET …/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EnclaveEvent {
    Status {
        at: String,
        status: Status,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        stage: Option<Stage>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        fault: Option<Fault>,
    },
    /// A config took the place of another while the enclave was deployed, or failed to: then the one before still runs.
    Config {
        at: String,
        version: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        fault: Option<Fault>,
    },
    /// Bytes of a stage; sent while it runs, not stored.
    Progress { stage: Stage, done: u64, total: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

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
