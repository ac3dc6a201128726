//! The root, in its directory.

use super::identity::{Root, root_certificate};
use crate::certificates::{Curve, Key, KeyError, pem, pem_of};
use attestation::{AnchorError, TrustAnchor};
use rustls_pki_types::pem::{Error as PemError, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Why a directory has no usable root.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be read or made.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// A file is not PEM, or holds something else.
    #[error("{path}: {problem}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: PemError,
    },
    /// `root.key` holds no P-384 key.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// Nothing can verify below the certificate in `root.pem`.
    #[error("{path}: {source}")]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: AnchorError,
    },
    /// The certificate in `root.pem` is that of another key than `root.key`.
    #[error("{0} is not the certificate of root.key beside it; delete it to have a new one made")]
    OtherKey(PathBuf),
}

impl Root {
    pub(super) fn open(directory: &Path) -> Result<Root, OpenError> {
        let key = open_key(directory.join("root.key"))?;
        let certificate = open_certificate(directory.join("root.pem"), &key)?;
        Ok(Root { key, certificate })
    }
}

fn open_key(path: PathBuf) -> Result<Key, OpenError> {
    let text = read_or_make(&path, 0o600, || {
        pem_of("PRIVATE KEY", Key::new(Curve::P384).pkcs8())
    })?;
    let pkcs8 = match PrivatePkcs8KeyDer::from_pem_slice(&text) {
        Ok(pkcs8) => pkcs8,
        Err(problem) => return Err(OpenError::Pem { path, problem }),
    };
    Key::from_pkcs8(Curve::P384, pkcs8.secret_pkcs8_der())
        .map_err(|source| OpenError::Key { path, source })
}

fn open_certificate(path: PathBuf, key: &Key) -> Result<Vec<u8>, OpenError> {
    let text = read_or_make(&path, 0o644, || pem(&root_certificate(key)))?;
    let der = match CertificateDer::from_pem_slice(&text) {
        Ok(der) => der.to_vec(),
        Err(problem) => return Err(OpenError::Pem { path, problem }),
    };
    if let Err(source) = TrustAnchor::from_der(&der) {
        return Err(OpenError::Anchor { path, source });
    }
    let info = key.info();
    if der.windows(info.len()).any(|window| window == info) {
        Ok(der)
    } else {
        Err(OpenError::OtherKey(path))
    }
}

/// The file's content. If there is no such file it is made, whole from the start; of two processes
/// that make it at once, both read what the first one made.
fn read_or_make(
    path: &Path,
    mode: u32,
    content: impl FnOnce() -> String,
) -> Result<Vec<u8>, OpenError> {
    let make_then_read = || {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(content().as_bytes())?;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(mode))?;
        match file.persist_noclobber(path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error.error);
            }
            _ => {}
        }
        std::fs::read(path)
    };
    make_then_read().map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })
}
