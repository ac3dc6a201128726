//! `enclave.toml` as it was given, beside what it means.

use super::error::SpecError;
use super::written::Spec;
use serde::{Deserialize, Serialize};

/// The text of an `enclave.toml` that parses, and the [`Spec`] in it. Serialised as the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpecFile {
    text: String,
    spec: Spec,
}

impl SpecFile {
    /// Parses the text, and keeps it.
    ///
    /// # Errors
    /// As for [`Spec::parse`].
    pub fn parse(text: String) -> Result<SpecFile, SpecError> {
        let spec = Spec::parse(&text)?;
        Ok(SpecFile { text, spec })
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the text is empty: the image then runs as it is.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl std::ops::Deref for SpecFile {
    type Target = Spec;
    fn deref(&self) -> &Spec {
        &self.spec
    }
}

impl TryFrom<String> for SpecFile {
    type Error = SpecError;
    fn try_from(text: String) -> Result<SpecFile, SpecError> {
        SpecFile::parse(text)
    }
}

impl From<SpecFile> for String {
    fn from(file: SpecFile) -> String {
        file.text
    }
}
