//! A shared secret for HS256.

use crate::watched::{Watch, WatchedFileError, read_bounded};
use jsonwebtoken::DecodingKey;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// In bytes: as long as the hash (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;

/// A shared secret. Its file is read again when it changes; one that cannot be used leaves the
/// secret as it was.
pub(crate) struct SecretFile {
    path: PathBuf,
    current: Mutex<(Watch, DecodingKey)>,
}

impl SecretFile {
    pub(super) fn open(path: &Path) -> Result<SecretFile, WatchedFileError> {
        let current = (Watch::new(vec![path.to_owned()]), secret(path)?);
        Ok(SecretFile {
            path: path.to_owned(),
            current: Mutex::new(current),
        })
    }

    pub(crate) fn key(&self) -> DecodingKey {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.0.reread(|| secret(&self.path)) {
            Some(Ok(key)) => current.1 = key,
            Some(Err(error)) => {
                tracing::warn!(%error, "the secret cannot be read; the previous one stays in effect");
            }
            None => {}
        }
        current.1.clone()
    }
}

fn secret(path: &Path) -> Result<DecodingKey, WatchedFileError> {
    let bytes = read_bounded(path)?;
    let secret = bytes.trim_ascii();
    if secret.len() < MIN_SECRET {
        let problem = format!("a secret for HS256 must have {MIN_SECRET} bytes or more");
        return Err(WatchedFileError::content(path, problem));
    }
    Ok(DecodingKey::from_secret(secret))
}
