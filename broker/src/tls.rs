//! The broker's certificate. Its files are read again when they change, so that a new one needs no
//! restart. While they cannot be used, as between the writing of the two, the previous certificate
//! stays in effect.

use crate::watched::Watch;
use explain::{Code, Explain};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::TlsAcceptor;

/// The broker's certificate or private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or used.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// One of the two files is not named.
    #[error("broker.tls_cert and broker.tls_key belong together: set both or neither")]
    Half,
}

impl Explain for TlsError {
    fn code(&self) -> Code {
        Code::ConfigurationInvalid
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            TlsError::File { .. } => {
                "Provide PEM files that the daemon may read: broker.tls_cert with the certificate chain, leaf first, and broker.tls_key with its private key."
            }
            TlsError::Half => "Set broker.tls_cert and broker.tls_key, or neither.",
        }
        .into()
    }
}

/// The certificate in effect.
#[derive(Debug)]
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<(Watch, Arc<ServerConfig>)>,
}

impl Tls {
    /// `None` without files.
    pub(super) fn open(cert: &Path, key: &Path) -> Result<Option<Tls>, TlsError> {
        match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) => Ok(None),
            (false, false) => {
                let watch = Watch::new(vec![cert.to_owned(), key.to_owned()]);
                Ok(Some(Tls {
                    current: Mutex::new((watch, read(cert, key)?)),
                    cert: cert.to_owned(),
                    key: key.to_owned(),
                }))
            }
            _ => Err(TlsError::Half),
        }
    }

    /// For one connection. Reads the files if they changed.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.0.reread(|| read(&self.cert, &self.key)) {
            Some(Ok(fresh)) => current.1 = fresh,
            Some(Err(error)) => {
                tracing::warn!(%error, "the certificate cannot be used; the previous one stays in effect");
            }
            None => {}
        }
        TlsAcceptor::from(current.1.clone())
    }
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |path: &Path, e: &dyn std::fmt::Display| TlsError::File {
        path: path.to_owned(),
        problem: e.to_string(),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert)
        .map_err(|e| wrong(cert, &e))?
        .collect();
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
    let settings =
        ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(cert, &e))?
            .with_no_client_auth()
            .with_single_cert(chain.map_err(|e| wrong(cert, &e))?, private)
            .map_err(|e| wrong(cert, &e))?;
    Ok(Arc::new(settings))
}
