//! The operator's rule file: what a subject may ask for beside its token's own `projects`. It is
//! read again when it changes; a file that cannot be read leaves the rules as they were.

use crate::watched::{Watch, WatchedFileError, read_bounded};
use api::credentials::project::Project;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// `[[rule]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The whole subject, or a prefix of it that ends in `*`.
    subject: String,
    /// Whole names of projects.
    projects: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    rule: Vec<Rule>,
}

/// The rules in effect.
#[derive(Debug)]
pub(super) struct Rules {
    path: PathBuf,
    current: Mutex<(Watch, Table)>,
}

impl Rules {
    /// `None` without a file.
    pub(super) fn open(path: &Path) -> Result<Option<Rules>, WatchedFileError> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let current = (Watch::new(vec![path.to_owned()]), read(path)?);
        Ok(Some(Rules {
            path: path.to_owned(),
            current: Mutex::new(current),
        }))
    }

    /// The projects that all rules together allow to a subject.
    pub(super) fn projects_of(&self, subject: &str) -> Vec<String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.0.reread(|| read(&self.path)) {
            Some(Ok(table)) => current.1 = table,
            Some(Err(error)) => {
                tracing::warn!(%error, "the rules cannot be read; the previous rules stay in effect")
            }
            None => {}
        }
        let matching = current.1.rule.iter().filter(|rule| rule.covers(subject));
        matching.flat_map(|rule| rule.projects.clone()).collect()
    }
}

impl Rule {
    fn covers(&self, subject: &str) -> bool {
        match self.subject.strip_suffix('*') {
            Some(prefix) => subject.starts_with(prefix),
            None => self.subject == subject,
        }
    }
}

/// A rule that can never match is an error.
fn read(path: &Path) -> Result<Table, WatchedFileError> {
    let text = String::from_utf8_lossy(&read_bounded(path)?).into_owned();
    let table: Table = toml::from_str(&text).map_err(|e| WatchedFileError::content(path, e))?;
    for Rule { subject, projects } in &table.rule {
        let prefix = subject.strip_suffix('*').unwrap_or(subject);
        if prefix.contains('*') {
            return Err(WatchedFileError::content(
                path,
                format!("'*' is allowed only at the end of a subject, and not as in '{subject}'"),
            ));
        }
        if let Some(name) = projects.iter().find(|name| Project::parse(name).is_err()) {
            return Err(WatchedFileError::content(
                path,
                format!("projects must be whole names, and '{name}' is not one"),
            ));
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<Rules>, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("rules"), text).unwrap();
        Rules::open(&directory.path().join("rules")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_subject_is_whole_or_begins_so() {
        let rules = "[[rule]]\nsubject = 'repo:org/*'\nprojects = ['a', 'b']\n[[rule]]\nsubject = 'me'\nprojects = ['c']";
        let rules = of(rules).unwrap().unwrap();
        assert_eq!(rules.projects_of("repo:org/x"), ["a", "b"]);
        assert_eq!(rules.projects_of("me"), ["c"]);
        assert!(
            rules.projects_of("me2").is_empty() && rules.projects_of("repo:organ/x").is_empty()
        );
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for (rule, words) in [
            (
                "subject = 'repo:*:main'\nprojects = ['a']",
                "end of a subject",
            ),
            ("subject = 'a'\nprojects = ['*']", "'*' is not one"),
            ("subject = 'a'\nprojects = ['a/*']", "'a/*' is not one"),
            ("subject = 'a'\nproject = ['a']", "unknown field"),
        ] {
            let error = of(&format!("[[rule]]\n{rule}")).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(Rules::open(Path::new("")).unwrap().is_none());
    }
}
