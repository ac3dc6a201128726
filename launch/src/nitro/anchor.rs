//! Whose signature documents of these enclaves must carry: AWS's, without a way around it.
//!
//! A program that is built with the feature `test-root` trusts another root in its place, for test
//! grounds whose NSM signs with keys of their own. No shipped program has that feature.

use crate::error::LaunchError;
use attestation::TrustAnchor;

#[cfg(not(feature = "test-root"))]
#[expect(clippy::unnecessary_wraps, reason = "with test-root it can fail")]
pub(super) fn anchor() -> Result<TrustAnchor, LaunchError> {
    Ok(TrustAnchor::aws())
}

/// The first certificate of the PEM file that `REDOUBT_TEST_ROOT` names.
#[cfg(feature = "test-root")]
pub(super) fn anchor() -> Result<TrustAnchor, LaunchError> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    let path = std::env::var("REDOUBT_TEST_ROOT");
    let path = path.map_err(|e| LaunchError::TestRoot(format!("REDOUBT_TEST_ROOT: {e}")))?;
    let bad = |error: &dyn std::fmt::Display| LaunchError::TestRoot(format!("{path}: {error}"));
    let der = CertificateDer::from_pem_file(&path).map_err(|e| bad(&e))?;
    let anchor = TrustAnchor::from_der(&der).map_err(|e| bad(&e))?;
    tracing::warn!(%path, "TEST BUILD: documents below this root are trusted, and AWS's are not");
    Ok(anchor)
}
