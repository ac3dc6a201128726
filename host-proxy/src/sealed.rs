//! Keeps sealed configs as files: bytes that this machine carries and cannot read. A record names one by its SHA-256.

use crate::record::{ConfigRecord, EnclaveId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use wire::sealed::{Foreign, Header, MAX_LEN, Sealed, SealedError};
use wire::spec::{ImageDefaults, Spec, SpecError};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the config is not in base64")]
    Base64,
    #[error(transparent)]
    Sealed(#[from] SealedError),
    #[error(transparent)]
    Foreign(#[from] Foreign),
    #[error("enclave.toml: {0}")]
    Spec(#[from] SpecError),
    #[error("the spec has no [config] that could be delivered")]
    NotAsked,
    #[error("the spec asks for a sealed config, and there is none")]
    Missing,
}

/// A sealed config that fits a spec, as far as anybody without its key can tell.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub record: ConfigRecord,
    bytes: Vec<u8>,
}

impl Incoming {
    /// Checks what an order brings against its spec; `None` if neither knows of a config.
    pub fn check(
        manifest: &Spec,
        encoded: Option<&str>,
    ) -> Result<Option<Incoming>, ConfigError> {
        let spec = manifest.resolve(ImageDefaults::any())?;
        let (config, encoded) = match (&spec.config, encoded) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(ConfigError::NotAsked),
            (Some(_), None) => return Err(ConfigError::Missing),
            (Some(config), Some(encoded)) => (config, encoded),
        };
        if encoded.len() > 2 * MAX_LEN {
            return Err(SealedError::TooLong(encoded.len()).into());
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| ConfigError::Base64)?;
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
        Ok(Some(Incoming {
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

/// The folder.
#[derive(Debug)]
pub struct Configs {
    folder: PathBuf,
}

impl Configs {
    pub fn new(folder: PathBuf) -> Configs {
        Configs { folder }
    }

    fn path(&self, id: &EnclaveId, config: &ConfigRecord) -> PathBuf {
        self.folder.join(format!("{id}.{}", config.sha256))
    }

    /// On disk, whole, before it returns.
    pub fn keep(&self, id: &EnclaveId, incoming: &Incoming) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&incoming.bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.path(id, &incoming.record))
            .map_err(|e| e.error)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Not one bit different from what was kept.
    pub fn load(&self, id: &EnclaveId, config: &ConfigRecord) -> io::Result<Vec<u8>> {
        let bytes = fs::read(self.path(id, config))?;
        match hex::encode(Sha256::digest(&bytes)) == config.sha256 {
            true => Ok(bytes),
            false => Err(io::Error::other("it was changed after it was kept")),
        }
    }

    /// Forgets all configs of an enclave but this one.
    pub fn forget_others(&self, id: &EnclaveId, keep: Option<&ConfigRecord>) {
        let keep = keep.map(|config| self.path(id, config));
        let prefix = format!("{id}.");
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let own = entry.file_name().to_string_lossy().starts_with(&prefix);
            if own && Some(entry.path()) != keep {
                let _ = fs::remove_file(entry.path());
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
        };
        change(&mut header);
        STANDARD.encode([header.encode(), vec![0; 16]].concat())
    }

    fn check(encoded: Option<&str>) -> Result<Option<Incoming>, String> {
        Incoming::check(&Spec::parse(SPEC).unwrap(), encoded).map_err(|e| e.to_string())
    }

    #[test]
    fn a_config_must_be_there_if_the_spec_asks_and_only_then() {
        let plain = Spec::default();
        assert!(Incoming::check(&plain, None).unwrap().is_none());
        assert!(matches!(
            Incoming::check(&plain, Some("")),
            Err(ConfigError::NotAsked)
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
    fn keeps_loads_and_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let configs = Configs::new(folder.path().to_owned());
        let id = EnclaveId::random().unwrap();
        let first = check(Some(&sealed(|_| ()))).unwrap().unwrap();
        let second = check(Some(&sealed(|header| header.version = 3)))
            .unwrap()
            .unwrap();
        configs.keep(&id, &first).unwrap();
        configs.keep(&id, &second).unwrap();
        assert_eq!(configs.load(&id, &first.record).unwrap(), first.bytes);
        configs.forget_others(&id, Some(&second.record));
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
        configs.forget_others(&id, None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
