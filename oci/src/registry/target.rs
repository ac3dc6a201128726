//! What is asked for, where, and as whom.

use crate::error::PullError;
use crate::secret::Credentials;
use hyper::Uri;

/// One repository of one registry, and who asks for it.
#[derive(Debug)]
pub(super) struct Target {
    /// Host and port, as in the reference.
    pub(super) host: String,
    /// Whether the operator lets this host be reached without TLS.
    pub(super) is_plain_http: bool,
    pub(super) repository: String,
    pub(super) credentials: Option<Credentials>,
}

impl Target {
    /// The URL of a path below `/v2/<repository>/`.
    pub(super) fn uri(&self, path: &str) -> Result<Uri, PullError> {
        let scheme = if self.is_plain_http { "http" } else { "https" };
        let (host, repository) = (&self.host, &self.repository);
        format!("{scheme}://{host}/v2/{repository}/{path}")
            .parse::<Uri>()
            .map_err(|e| PullError::invalid("the image's URL", e))
    }
}
