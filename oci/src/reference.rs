//! Image references: `registry-host/namespace/image:tag`, with or without a digest.
//! Grammar: the `distribution/reference` package that Docker uses. Nothing here looks a name up.

use super::Digest;
use serde::{Deserialize, Serialize};

/// A parsed reference. Docker Hub's three host names are one, and its `library/` is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an image reference: {problem}. Write registry-host/namespace/image:tag")]
pub struct ReferenceError {
    text: String,
    problem: &'static str,
}

/// Whose registry a host name is. Decides which hint a person gets and which token realm is acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryKind {
    DockerHub,
    GitHub,
    Ecr,
    GoogleArtifactRegistry,
    Azure,
    SelfHosted,
}

pub(crate) const DOCKER_HUB: &str = "registry-1.docker.io";
const MAX_LEN: usize = 1024;
const MAX_REPOSITORY: usize = 255;

/// One name for each registry: Docker Hub is known by four.
pub fn canonical_host(host: &str) -> String {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            DOCKER_HUB.to_owned()
        }
        other => other.to_ascii_lowercase(),
    }
}

/// Whether this is `host[:port]` by the grammar of image references.
pub fn is_registry_host(host: &str) -> bool {
    let image = Reference::parse(&format!("{host}/a/b"));
    image.is_ok_and(|image| image.host() == canonical_host(host) && image.repository() == "a/b")
}

impl RegistryKind {
    /// By host name alone; a port does not matter.
    pub fn of(host: &str) -> RegistryKind {
        let name = host.split(':').next().unwrap_or(host);
        let amazon = [
            ".amazonaws.com",
            ".amazonaws.com.cn",
            ".on.aws",
            ".amazonaws.eu",
        ];
        if canonical_host(name) == DOCKER_HUB {
            RegistryKind::DockerHub
        } else if name == "ghcr.io" {
            RegistryKind::GitHub
        } else if name.contains(".dkr") && amazon.iter().any(|suffix| name.ends_with(suffix)) {
            RegistryKind::Ecr
        } else if name == "gcr.io" || name.ends_with(".gcr.io") || name.ends_with("-docker.pkg.dev")
        {
            RegistryKind::GoogleArtifactRegistry
        } else if name.ends_with(".azurecr.io") {
            RegistryKind::Azure
        } else {
            RegistryKind::SelfHosted
        }
    }

    /// What to check when this registry refuses credentials.
    pub fn credentials_hint(self) -> &'static str {
        match self {
            RegistryKind::DockerHub => {
                "use your Docker Hub user name and an access token with Read permission"
            }
            RegistryKind::GitHub => {
                "use your GitHub user name and a classic personal access token with read:packages; \
                 fine-grained tokens are not accepted there"
            }
            RegistryKind::Ecr => {
                "use the user name AWS and a fresh password from 'aws ecr get-login-password'; it lives 12 hours"
            }
            RegistryKind::GoogleArtifactRegistry => {
                "use the user name _json_key with the service account's JSON key, or oauth2accesstoken with an access token"
            }
            RegistryKind::Azure => {
                "use the registry's user name and password, or a service principal's id and secret"
            }
            RegistryKind::SelfHosted => {
                "check user name and password, and that the account may pull this repository"
            }
        }
    }
}

impl Reference {
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        let error = |problem| ReferenceError {
            text: text.chars().take(200).collect::<String>(),
            problem,
        };
        if text.len() > MAX_LEN {
            return Err(error("it is longer than 1024 characters"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse()
                        .map_err(|_| error("the digest is not sha256:<64 digits>"))?,
                ),
            ),
            None => (text, None),
        };
        let (host, path) = split_host(rest);
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => {
                return Err(error(
                    "the tag is not 1 to 128 letters, digits, '_', '.' or '-'",
                ));
            }
            None => (path, None),
        };
        let host = host.map_or_else(|| DOCKER_HUB.to_owned(), canonical_host);
        if !is_host(&host) {
            return Err(error(
                "the registry host is not a host name with an optional port",
            ));
        }
        if repository.is_empty() {
            return Err(error("the repository is missing"));
        }
        let repository = match host == DOCKER_HUB && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_component) {
            return Err(error(
                "a repository is made of lower-case letters, digits and single '.', '_', '-' between them",
            ));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference {
            host,
            repository,
            tag,
            digest,
        })
    }

    /// Registry host with an optional port, as it goes into URLs.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn kind(&self) -> RegistryKind {
        RegistryKind::of(&self.host)
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
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
    fn a_host_that_only_looks_like_amazon_is_not_ecr() {
        assert_eq!(
            RegistryKind::of("1.dkr.ecr.us-east-1.amazonaws.com.evil.example"),
            RegistryKind::SelfHosted
        );
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
}

impl explain::Explain for ReferenceError {
    fn code(&self) -> explain::Code {
        explain::Code::RequestInvalid
    }
}
