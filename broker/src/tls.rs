//! The broker's certificate: read again when its files change, so that a new one needs no restart. While they cannot be used, say between the
//! writing of the two, the certificate before serves.

use super::watch::Watch;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("broker.tls_cert and broker.tls_key belong together: give both, or none")]
    Half,
}

#[derive(Debug)]
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: Arc<ServerConfig>,
    watch: Watch,
}

impl Tls {
    /// `None` without files.
    pub(super) fn open(cert: &Path, key: &Path) -> Result<Option<Tls>, TlsError> {
        match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) => Ok(None),
            (false, false) => {
                let watch = Watch::new(vec![cert.to_owned(), key.to_owned()]);
                let (cert, key, current) = (cert.to_owned(), key.to_owned(), read(cert, key)?);
                Ok(Some(Tls {
                    cert,
                    key,
                    current,
                    watch,
                }))
            }
            _ => Err(TlsError::Half),
        }
    }

    pub(super) fn acceptor(&mut self) -> TlsAcceptor {
        match self.watch.reread(|| read(&self.cert, &self.key)) {
            Some(Ok(fresh)) => self.current = fresh,
            Some(Err(error)) => {
                tracing::warn!(%error, "the certificate cannot be used; the one before serves")
            }
            None => {}
        }
        TlsAcceptor::from(self.current.clone())
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
