//! What every provider does: issue credentials for one project.

use super::error::ProviderError;
use api::credentials::Action;
use api::credentials::project::Project;
use oci::{Reference, Secret};
use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

/// Credentials for one project, as a registry's own service issued them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCredentials {
    /// `host` or `host:port`.
    pub registry_url: String,
    /// User name and password; `None` where the registry's users log in themselves.
    pub login: Option<(String, Secret)>,
    /// As reported by the issuer; `None` if there is nothing to expire.
    pub expires_at: Option<SystemTime>,
}

impl IssuedCredentials {
    /// When they expire, for the audit log (RFC 3339).
    pub fn expiry_rfc3339(&self) -> Option<String> {
        time::OffsetDateTime::from(self.expires_at?)
            .format(&time::format_description::well_known::Rfc3339)
            .ok()
    }
}

/// What [`RegistryProvider::issue`] returns.
pub type IssueFuture<'a> =
    Pin<Box<dyn Future<Output = Result<IssuedCredentials, ProviderError>> + Send + 'a>>;

/// A registry whose own service issues credentials.
pub trait RegistryProvider: std::fmt::Debug + Send + Sync {
    /// New credentials for one project and nothing else. The caller caches them, and limits the
    /// time.
    fn issue<'a>(&'a self, project: &'a Project, action: Action) -> IssueFuture<'a>;

    /// The projects that an image may belong to, likeliest first; none if this provider has no
    /// credentials to pull it with.
    fn projects_of(&self, image: &Reference) -> Vec<Project>;
}
