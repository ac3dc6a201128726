//! Names that go into a repository's ARN and path. They are checked against ECR's grammar before
//! they reach either, since a `*`, a `?` or a `${…}` in them would widen what a session may do (ECR
//! API reference, CreateRepository, "repositoryName").

use oci::Reference;
use oci::reference::canonical_host;
use serde::Deserialize;

/// ECR's limits for a whole repository name, in characters.
const LEN: std::ops::RangeInclusive<usize> = 2..=256;

/// A text that is not a [`Project`] or a [`Prefix`], or makes no [`Repository`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// For a prefix.
    #[error("repo_prefix is empty, or such names that each end in '/'")]
    Prefix,
    /// For a project.
    #[error(
        "a project is lower-case letters and digits, with single '.', '_', '-' or '/' between them"
    )]
    Grammar,
    /// For a project, and for prefix and project together.
    #[error("a repository name has 2 to 256 characters, prefix included")]
    Length,
}

/// A project's name: one or more path components, 1 to 256 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Project(String);

/// What comes before the project in the repository's name: empty, or components that each end with
/// `/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// Prefix and project: the name of one repository, 2 to 256 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository(String);

/// `[a-z0-9]+([._-][a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let pieces = || text.split(['.', '_', '-']);
    !text.is_empty() && pieces().all(|piece| !piece.is_empty() && piece.bytes().all(plain))
}

impl Project {
    /// Checks a name.
    ///
    /// # Errors
    /// It is longer than 256 characters, or does not follow the grammar.
    pub fn parse(text: &str) -> Result<Project, ProjectError> {
        if text.len() > *LEN.end() {
            return Err(ProjectError::Length);
        }
        if text.split('/').all(is_component) {
            Ok(Project(text.to_owned()))
        } else {
            Err(ProjectError::Grammar)
        }
    }

    /// The name, as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// From `my-org/apps`, with or without a slash at its end, or from an empty text.
    ///
    /// # Errors
    /// A component does not follow the grammar.
    pub fn of_namespace(namespace: &str) -> Result<Prefix, ProjectError> {
        match namespace.strip_suffix('/').unwrap_or(namespace) {
            "" => Ok(Prefix::default()),
            namespace => Prefix::try_from(format!("{namespace}/")),
        }
    }

    /// The project of a repository: the inverse of [`Prefix::join`]. `None` for a repository that
    /// does not start with this prefix.
    pub fn project_of(&self, repository: &str) -> Option<Project> {
        Project::parse(repository.strip_prefix(&self.0)?).ok()
    }

    /// The repository of a project.
    ///
    /// # Errors
    /// The whole name has fewer than 2 or more than 256 characters.
    pub fn join(&self, project: &Project) -> Result<Repository, ProjectError> {
        let name = format!("{}{}", self.0, project.0);
        if LEN.contains(&name.len()) {
            Ok(Repository(name))
        } else {
            Err(ProjectError::Length)
        }
    }
}

/// The repository of an image, if it is on this registry (`host` or `host:port`).
pub fn on_registry<'a>(registry: &str, image: &'a Reference) -> Option<&'a str> {
    (canonical_host(registry) == image.host()).then(|| image.repository())
}

impl TryFrom<String> for Prefix {
    type Error = ProjectError;
    fn try_from(text: String) -> Result<Self, ProjectError> {
        let good = text.is_empty()
            || text
                .strip_suffix('/')
                .is_some_and(|rest| rest.split('/').all(is_component));
        if good {
            Ok(Prefix(text))
        } else {
            Err(ProjectError::Prefix)
        }
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.0
    }
}

impl Repository {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an attacker would put into a name to reach more than one repository.
    const HOSTILE: [&str; 24] = [
        "",
        "*",
        "my-*",
        "?",
        "my-ap?",
        "${aws:username}",
        "my-${aws:username}",
        "..",
        "../other",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        "a.",
        "-a",
        "a--b",
        "a._b",
        "A",
        "ä",
        "a b",
        "a\n",
        "a\0",
        "a:b",
        "a%2fb",
    ];

    #[test]
    fn names_cannot_widen_what_they_stand_for() {
        for name in HOSTILE {
            assert_eq!(Project::parse(name), Err(ProjectError::Grammar), "{name:?}");
            let prefix = format!("{name}/");
            assert!(Prefix::try_from(prefix).is_err(), "{name:?}");
        }
        for name in ["a", "my-app", "team/my-app", "a.b_c-d/0"] {
            assert_eq!(Project::parse(name).unwrap().as_str(), name);
        }
        assert!(
            Prefix::try_from("rise".to_owned()).is_err(),
            "it would run into the project's name"
        );
    }

    #[test]
    fn an_image_leads_back_to_its_project() {
        let prefix = Prefix::of_namespace("team/apps").unwrap();
        assert_eq!(Prefix::of_namespace("team/apps/"), Ok(prefix.clone()));
        assert!(Prefix::of_namespace("/").is_ok() && Prefix::of_namespace("a//").is_err());
        let of = |image: &str| {
            let image = Reference::parse(image).unwrap();
            on_registry("R.example:5000", &image).and_then(|name| prefix.project_of(name))
        };
        assert_eq!(
            of("r.example:5000/team/apps/my-app:v1"),
            Project::parse("my-app").ok()
        );
        for other in [
            "r.example/team/apps/my-app",
            "r.example:5000/team/my-app",
            "r.example:5000/team/apps-x/a",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_repository_has_2_to_256_characters() {
        let join = |prefix: &str, project: &str| {
            let prefix = Prefix::try_from(prefix.to_owned()).unwrap();
            prefix
                .join(&Project::parse(project)?)
                .map(|repository| repository.as_str().len())
        };
        assert_eq!(join("", "a"), Err(ProjectError::Length));
        assert_eq!(join("", "ab"), Ok(2));
        assert_eq!(join("", &"a".repeat(256)), Ok(256));
        assert_eq!(join("", &"a".repeat(257)), Err(ProjectError::Length));
        assert_eq!(join("p/", &"a".repeat(255)), Err(ProjectError::Length));
        assert_eq!(join("p/", &"a".repeat(254)), Ok(256));
    }
}
