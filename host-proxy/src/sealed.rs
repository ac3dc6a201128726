//! Keeps sealed configs as files: bytes that this machine carries and cannot read. A record names one by its SHA-256.

use api::{ConfigRecord, EnclaveId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use explain::{Code, Explain};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use wire::sealed::{Header, MAX_LEN, Sealed, SealedError, SpecMismatch};
use wire::spec::{ImageDefaults, Spec, SpecError};

#[derive(Debug, thiserror::Error)]
pub enum SealedConfigError {
    #[error("the config is not valid base64")]
    Base64,
    #[error(transparent)]
    Sealed(#[from] SealedError),
    #[error(transparent)]
    SpecMismatch(#[from] SpecMismatch),
    #[error("enclave.toml: {0}")]
    Spec(#[from] SpecError),
    #[error("the spec has no [config] to deliver it by")]
    NotAsked,
    #[error("the spec asks for a sealed config, and none was provided")]
    Missing,
}

impl Explain for SealedConfigError {
    fn code(&self) -> Code {
        match self {
            SealedConfigError::Spec(_) => Code::SpecInvalid,
            _ => Code::ConfigRefused,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            SealedConfigError::Missing => {
                "Provide one with --config; 'enclavectl seal' makes it.".into()
            }
            SealedConfigError::NotAsked => {
                "Add [config] to enclave.toml, or leave the config out.".into()
            }
            SealedConfigError::Spec(_) => Code::SpecInvalid.next_step().into(),
            SealedConfigError::SpecMismatch(SpecMismatch::Unsigned { .. }) => {
                "Sign it with the key of config.sealer ('enclavectl seal --sign-key').".into()
            }
            _ => "Seal it again for this spec ('enclavectl seal').".into(),
        }
    }
}

/// A sealed config that fits a spec, as far as can be told without its key.
#[derive(Debug, Clone)]
pub struct CheckedConfig {
    pub record: ConfigRecord,
    bytes: Vec<u8>,
}

impl CheckedConfig {
    /// Checks what an order brings against its spec; `None` if neither knows of a config.
    pub fn check(
        spec: &Spec,
        encoded: Option<&str>,
    ) -> Result<Option<CheckedConfig>, SealedConfigError> {
        let spec = spec.resolve(ImageDefaults::any())?;
        let (config, encoded) = match (&spec.config, encoded) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(SealedConfigError::NotAsked),
            (Some(_), None) => return Err(SealedConfigError::Missing),
            (Some(config), Some(encoded)) => (config, encoded),
        };
        if encoded.len() > 2 * MAX_LEN {
            return Err(SealedError::TooLong(encoded.len()).into());
        }
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|_| SealedConfigError::Base64)?;
        let Header {
            name,
            version,
            kms_key,
            ..
        } = {
            let header = Sealed::parse(&bytes)?.header;
            header.belongs_to(spec.name.as_deref().unwrap_or_default(), config)?;
            header
        };
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok(Some(CheckedConfig {
            record: ConfigRecord {
                name,
                version,
                kms_key,
                sha256,
            },
            bytes,
        }))
    }
}

/// The directory that they are in.
#[derive(Debug)]
pub struct SealedConfigs {
    directory: PathBuf,
}

impl SealedConfigs {
    pub fn new(directory: PathBuf) -> SealedConfigs {
        SealedConfigs { directory }
    }

    fn path(&self, id: &EnclaveId, config: &ConfigRecord) -> PathBuf {
        self.directory.join(format!("{id}.{}", config.sha256))
    }

    /// On disk, whole, before it returns.
    pub fn store(&self, id: &EnclaveId, incoming: &CheckedConfig) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(&incoming.bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.path(id, &incoming.record))
            .map_err(|e| e.error)?;
        File::open(&self.directory)?.sync_all()
    }

    /// Not one bit different from what was kept.
    pub fn load(&self, id: &EnclaveId, config: &ConfigRecord) -> io::Result<Vec<u8>> {
        let bytes = fs::read(self.path(id, config))?;
        if hex::encode(Sha256::digest(&bytes)) == config.sha256 {
            Ok(bytes)
        } else {
            Err(io::Error::other("it was changed after it was stored"))
        }
    }

    /// Forgets all configs of an enclave but this one.
    pub fn remove_others(&self, id: &EnclaveId, keep: Option<&ConfigRecord>) {
        let keep = keep.map(|config| self.path(id, config));
        let prefix = format!("{id}.");
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let own = entry.file_name().to_string_lossy().starts_with(&prefix);
            if own
                && Some(entry.path()) != keep
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "a sealed config could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
        name = "orders"
        [network]
        egress = ["kms.us-east-1.amazonaws.com:443"]
        [config]
        kms_key = "arn:aws:kms:us-east-1:1:key/k"
        variables = ["TOKEN"]
        minimum_version = 2
    "#;

    fn sealed(change: impl FnOnce(&mut Header)) -> String {
        let mut header = Header {
            name: "orders".to_owned(),
            version: 2,
            kms_key: "arn:aws:kms:us-east-1:1:key/k".to_owned(),
            context: Default::default(),
            encrypted_key: vec![1; 8],
            nonce: [0; 12],
            commitment: [0; 32],
            sealer: None,
        };
        change(&mut header);
        let signature = header.sealer.map_or(0, |_| 64);
        STANDARD.encode([header.encode(), vec![0; 16 + signature]].concat())
    }

    fn check(encoded: Option<&str>) -> Result<Option<CheckedConfig>, String> {
        CheckedConfig::check(&Spec::parse(SPEC).unwrap(), encoded).map_err(|e| e.to_string())
    }

    #[test]
    fn a_config_must_be_there_if_the_spec_asks_and_only_then() {
        let plain = Spec::default();
        assert!(CheckedConfig::check(&plain, None).unwrap().is_none());
        assert!(matches!(
            CheckedConfig::check(&plain, Some("")),
            Err(SealedConfigError::NotAsked)
        ));
        assert!(
            check(None)
                .unwrap_err()
                .contains("asks for a sealed config")
        );
        assert_eq!(
            check(Some(&sealed(|_| ())))
                .unwrap()
                .unwrap()
                .record
                .version,
            2
        );
        assert!(check(Some("?")).unwrap_err().contains("base64"));
        assert!(check(Some("")).unwrap_err().contains("no sealed config"));
        assert!(
            check(Some(&sealed(|header| header.version = 1)))
                .unwrap_err()
                .contains("wants 2 at least")
        );
        assert!(
            check(Some(&sealed(|header| header.name.clear())))
                .unwrap_err()
                .contains("sealed for the name")
        );
    }

    #[test]
    fn a_config_without_the_signature_that_the_spec_asks_for_is_refused_at_once() {
        let sealer = "ab".repeat(32);
        let spec = format!("{SPEC}\nsealer = \"{sealer}\"");
        let refused = CheckedConfig::check(&Spec::parse(&spec).unwrap(), Some(&sealed(|_| ())));
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains("is not signed"), "{refused}");
        assert!(refused.next_step().contains("--sign-key"));
        let other = sealed(|header| header.sealer = Some(wire::spec::SealerKey([1; 32])));
        let unasked = check(Some(&other)).unwrap_err();
        assert!(unasked.contains("has no sealer"), "{unasked}");
    }

    #[test]
    fn keeps_loads_and_forgets() {
        let directory = tempfile::tempdir().unwrap();
        let configs = SealedConfigs::new(directory.path().to_owned());
        let id = EnclaveId::random().unwrap();
        let first = check(Some(&sealed(|_| ()))).unwrap().unwrap();
        let second = check(Some(&sealed(|header| header.version = 3)))
            .unwrap()
            .unwrap();
        configs.store(&id, &first).unwrap();
        configs.store(&id, &second).unwrap();
        assert_eq!(configs.load(&id, &first.record).unwrap(), first.bytes);
        configs.remove_others(&id, Some(&second.record));
        assert_eq!(
            configs.load(&id, &first.record).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        fs::write(configs.path(&id, &second.record), b"x").unwrap();
        assert!(
            configs
                .load(&id, &second.record)
                .unwrap_err()
                .to_string()
                .contains("changed")
        );
        configs.remove_others(&id, None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
