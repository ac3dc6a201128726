//! Image references: `registry-host/namespace/image:tag`, with or without a digest.
//! Grammar: the `distribution/reference` package that Docker uses. Nothing here looks a name up.

use crate::digest::Digest;
use crate::host::DOCKER_HUB;
pub use crate::host::{RegistryKind, canonical_host};
use explain::{Code, Explain};
use serde::{Deserialize, Serialize};

/// A parsed reference. Docker Hub's four host names are one, and its `library/` is filled in. In
/// JSON it is a string.
///
/// ```
/// use oci::Reference;
///
/// let reference = Reference::parse("ghcr.io/my-org/app:v1").unwrap();
/// assert_eq!((reference.host(), reference.repository()), ("ghcr.io", "my-org/app"));
///
/// // As Docker reads it: a default registry, a default namespace, a default tag.
/// let short = Reference::parse("alpine").unwrap();
/// assert_eq!(short.to_string(), "registry-1.docker.io/library/alpine:latest");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not a [`Reference`]. It quotes at most 200 characters of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an image reference: {problem}. Write registry-host/namespace/image:tag")]
pub struct ReferenceError {
    text: String,
    problem: ReferenceProblem,
}

/// What is wrong with a text that is not a [`Reference`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ReferenceProblem {
    #[error("it is longer than {MAX_LEN} characters")]
    TooLong,
    #[error("the digest is not sha256:<64 digits>")]
    Digest,
    #[error("the tag is not 1 to 128 letters, digits, '_', '.' or '-'")]
    Tag,
    #[error("the registry host is not a host name with an optional port")]
    Host,
    #[error("the repository is missing")]
    NoRepository,
    #[error(
        "a repository consists of lower-case letters and digits, with single '.', '_' or '-' between them"
    )]
    Repository,
}

impl Explain for ReferenceError {
    fn code(&self) -> Code {
        Code::RequestInvalid
    }

    fn next_step(&self) -> std::borrow::Cow<'_, str> {
        "Correct the image reference; write registry-host/namespace/image:tag.".into()
    }
}

/// The longest reference that is read, in bytes.
const MAX_LEN: usize = 1024;
/// The longest repository in bytes (distribution/reference, `RepositoryNameTotalLengthMax`).
const MAX_REPOSITORY: usize = 255;

/// Whether this is `host[:port]` by the grammar of image references.
pub fn is_registry_host(host: &str) -> bool {
    let image = Reference::parse(&format!("{host}/a/b"));
    image.is_ok_and(|image| image.host() == canonical_host(host) && image.repository() == "a/b")
}

impl Reference {
    /// Reads a reference as Docker does. Without a tag and a digest the tag is `latest`.
    ///
    /// # Errors
    /// The text does not follow the grammar, names another digest than sha256, or is longer than
    /// 1024 bytes.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        Reference::read(text).map_err(|problem| ReferenceError {
            text: text.chars().take(200).collect(),
            problem,
        })
    }

    fn read(text: &str) -> Result<Reference, ReferenceProblem> {
        if text.len() > MAX_LEN {
            return Err(ReferenceProblem::TooLong);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| ReferenceProblem::Digest)?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (host, path) = split_host(rest);
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => return Err(ReferenceProblem::Tag),
            None => (path, None),
        };
        let host = host.map_or_else(|| DOCKER_HUB.to_owned(), canonical_host);
        if !is_host(&host) {
            return Err(ReferenceProblem::Host);
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference {
            repository: full_repository(&host, repository)?,
            host,
            tag,
            digest,
        })
    }

    /// Registry host with an optional port, as it goes into URLs.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whose registry it is.
    pub fn kind(&self) -> RegistryKind {
        RegistryKind::of(&self.host)
    }

    /// The path at the registry, for example `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest that the manifest or index must have, if the reference names one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository and tag, with this digest: it means one manifest for ever.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// What the manifest is asked for by: the digest if there is one.
    pub(crate) fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Reference::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Docker's rule: the first component is a host if it has a dot or a port, or is `localhost`.
fn split_host(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

/// The repository's whole path: Docker Hub's official images are below `library/`.
fn full_repository(host: &str, repository: &str) -> Result<String, ReferenceProblem> {
    if repository.is_empty() {
        return Err(ReferenceProblem::NoRepository);
    }
    let repository = if host == DOCKER_HUB && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_component) {
        return Err(ReferenceProblem::Repository);
    }
    Ok(repository)
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253
        && name.split('.').all(label)
        && port.is_none_or(|port| {
            !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric);
    // Separators: one '.', one or two '_', any number of '-'.
    edges
        && bytes
            .iter()
            .all(|&b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"]
            .iter()
            .any(|bad| component.contains(bad))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_references_of_every_kind() {
        use RegistryKind::*;
        for (text, canonical, kind) in [
            (
                "registry-1.docker.io/my-org/private-app:v2.1",
                "registry-1.docker.io/my-org/private-app:v2.1",
                DockerHub,
            ),
            (
                "docker.io/alpine",
                "registry-1.docker.io/library/alpine:latest",
                DockerHub,
            ),
            (
                "alpine:3",
                "registry-1.docker.io/library/alpine:3",
                DockerHub,
            ),
            (
                "ghcr.io/my-org/private-service:main",
                "ghcr.io/my-org/private-service:main",
                GitHub,
            ),
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-app:latest",
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-app:latest",
                Ecr,
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a",
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a:latest",
                Ecr,
            ),
            (
                "europe-docker.pkg.dev/p/r/i:1",
                "europe-docker.pkg.dev/p/r/i:1",
                GoogleArtifactRegistry,
            ),
            (
                "myregistry.azurecr.io/my-image:stable",
                "myregistry.azurecr.io/my-image:stable",
                Azure,
            ),
            (
                "127.0.0.1:5000/org/app:v1",
                "127.0.0.1:5000/org/app:v1",
                SelfHosted,
            ),
            ("localhost/app", "localhost/app:latest", SelfHosted),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(
                (reference.to_string().as_str(), reference.kind()),
                (canonical, kind),
                "{text}"
            );
            assert_eq!(Reference::parse(canonical).unwrap(), reference);
        }
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let digest = Digest::of(b"x");
        let reference = Reference::parse(&format!("r.example/a:v1@{digest}")).unwrap();
        assert_eq!(reference.version(), digest.to_string());
        assert_eq!(reference.to_string(), format!("r.example/a:v1@{digest}"));
    }

    #[test]
    fn refuses_what_is_no_reference() {
        for text in [
            "",
            "r.example/",
            "r.example/UPPER",
            "r.example/a//b",
            "r.example/../b",
            "r.example/a:",
            "r.example/a:b:c",
            "r.example/a:-x",
            "r.example/a@sha256:12",
            "r.example:99999/a",
            "r.example:+80/a",
            "user@r.example/a",
            "https://r.example/a",
            "r.example/a b",
            "r.example/a?x",
            "r.example/a%2f",
            &"a/".repeat(600),
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_reference_is_a_usage_error_that_shows_the_form() {
        let error = Reference::parse("r.example/UPPER").unwrap_err();
        assert_eq!(error.class().exit(), explain::Exit::Usage);
        assert!(
            error
                .next_step()
                .contains("registry-host/namespace/image:tag")
        );
        let long = Reference::parse(&"a".repeat(MAX_LEN + 1)).unwrap_err();
        assert!(long.to_string().contains("longer than 1024") && long.to_string().len() < 400);
    }
}
