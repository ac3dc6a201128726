//! Encrypted files, for machines without AWS: AES-256-GCM, one file an enclave, its id as
//! associated data.
//!
//! The key lies in a file of its own, readable by the daemon only. This keeps credentials out of
//! backups and of the store; it does not protect them from root on this machine, as nothing on this
//! machine could. Secrets Manager is for that.

use super::SecretError;
use api::EnclaveId;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const SCHEME: &str = "file:";

/// A directory of encrypted files, and their key.
#[derive(Debug)]
pub struct FileSecrets {
    directory: PathBuf,
    key: RandomizedNonceKey,
}

impl FileSecrets {
    /// Opens the directory, and makes the key if there is none yet. Blocks on the disk.
    ///
    /// # Errors
    /// The directory cannot be made, the key cannot be read or written, or it is not 32 bytes long.
    pub fn open(directory: &Path, key_file: &Path) -> io::Result<FileSecrets> {
        fs::create_dir_all(directory)?;
        let bytes = match fs::read(key_file) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(key_file)?,
            Err(error) => return Err(error),
        };
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| {
            io::Error::other(format!(
                "{} is not a key of {KEY_LEN} bytes",
                key_file.display()
            ))
        })?;
        Ok(FileSecrets {
            directory: directory.to_owned(),
            key,
        })
    }

    fn path(&self, id: &EnclaveId) -> PathBuf {
        self.directory.join(format!("{id}.sealed"))
    }

    pub(super) fn create(
        &self,
        id: &EnclaveId,
        text: &Zeroizing<String>,
    ) -> Result<String, SecretError> {
        let failed = |reason: String| SecretError::Failed {
            name: id.to_string(),
            doing: "written",
            reason,
        };
        // Room for the tag, so that no half of the plaintext is left behind by a growing buffer.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + AES_256_GCM.tag_len()));
        bytes.extend_from_slice(text.as_bytes());
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(id.as_str()), &mut *bytes)
            .map_err(|_| failed("it cannot be encrypted".to_owned()))?;
        let sealed = [nonce.as_ref().as_slice(), bytes.as_slice()].concat();
        write_private(&self.path(id), &sealed).map_err(|e| failed(e.to_string()))?;
        Ok(format!("{SCHEME}{id}"))
    }

    pub(super) fn fetch(&self, arn: &str) -> Result<Zeroizing<String>, SecretError> {
        let missing = || SecretError::Missing(arn.to_owned());
        let unreadable = || SecretError::Unreadable(arn.to_owned());
        let id = arn
            .strip_prefix(SCHEME)
            .and_then(|id| EnclaveId::try_from(id.to_owned()).ok())
            .ok_or_else(missing)?;
        let sealed = fs::read(self.path(&id)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => SecretError::Failed {
                name: arn.to_owned(),
                doing: "read",
                reason: error.to_string(),
            },
        })?;
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unreadable())?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(id.as_str()), &mut bytes)
            .map_err(|_| unreadable())?;
        String::from_utf8(plain.to_vec())
            .map(Zeroizing::new)
            .map_err(|_| unreadable())
    }

    pub(super) fn delete(&self, id: &EnclaveId) -> Result<(), SecretError> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SecretError::Failed {
                name: id.to_string(),
                doing: "deleted",
                reason: error.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

fn make_key(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0; KEY_LEN]);
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| io::Error::other("the system gives no randomness"))?;
    write_private(path, &key)?;
    Ok(key)
}

/// Whole or not at all, for the owner only.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (tempfile::TempDir, FileSecrets, EnclaveId) {
        let directory = tempfile::tempdir().unwrap();
        let secrets = FileSecrets::open(
            &directory.path().join("secrets"),
            &directory.path().join("key"),
        )
        .unwrap();
        (directory, secrets, EnclaveId::random().unwrap())
    }

    #[test]
    fn gives_back_what_it_keeps_and_nothing_after_deletion() {
        let (directory, secrets, id) = setup();
        let arn = secrets
            .create(&id, &Zeroizing::new("hunter2".to_owned()))
            .unwrap();
        assert_eq!(secrets.fetch(&arn).unwrap().as_str(), "hunter2");
        // Another process with the same key file reads it too.
        let again = FileSecrets::open(
            &directory.path().join("secrets"),
            &directory.path().join("key"),
        )
        .unwrap();
        assert_eq!(again.fetch(&arn).unwrap().as_str(), "hunter2");
        secrets.delete(&id).unwrap();
        secrets.delete(&id).unwrap();
        assert!(matches!(secrets.fetch(&arn), Err(SecretError::Missing(_))));
    }

    #[test]
    fn a_secret_is_not_on_disk_in_the_clear_and_opens_for_its_own_enclave_only() {
        let (_directory, secrets, id) = setup();
        secrets
            .create(&id, &Zeroizing::new("hunter2".to_owned()))
            .unwrap();
        let sealed = fs::read(secrets.path(&id)).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        let other = EnclaveId::random().unwrap();
        fs::write(secrets.path(&other), &sealed).unwrap();
        assert!(matches!(
            secrets.fetch(&format!("file:{other}")),
            Err(SecretError::Unreadable(_))
        ));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(secrets.path(&id), &flipped).unwrap();
            assert!(
                matches!(
                    secrets.fetch(&format!("file:{id}")),
                    Err(SecretError::Unreadable(_))
                ),
                "bit {bit}"
            );
        }
        assert!(matches!(
            secrets.fetch("file:../../etc/passwd"),
            Err(SecretError::Missing(_))
        ));
    }
}
