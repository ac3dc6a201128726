//! The credential broker's API: what is asked and answered, as it goes over HTTP. Both ends read and write it here.

pub mod client;
pub mod project;

use oci::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize, Serializer};

/// One sentence for what does not exist and what is somebody else's.
pub const UNKNOWN: &str = "there is no such project";

/// What the credentials are for: a project by its name, or whichever project an image is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Project(String),
    Image(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRequest {
    pub wanted: Wanted,
    pub action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ask for ?project=NAME (or ?image=HOST/PATH), and &action=pull or push")]
pub struct ParseRequestError;

/// What RFC 3986 leaves alone in a query, and cannot be mistaken for its separators.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@');

impl CredentialRequest {
    pub fn parse(query: &str) -> Result<CredentialRequest, ParseRequestError> {
        let (mut wanted, mut action) = (None, None);
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').ok_or(ParseRequestError)?;
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| ParseRequestError)?
                .into_owned();
            let earlier = match (key, value.as_str()) {
                ("project", _) => wanted.replace(Wanted::Project(value)).is_some(),
                ("image", _) => wanted.replace(Wanted::Image(value)).is_some(),
                ("action", "pull") => action.replace(Action::Pull).is_some(),
                ("action", "push") => action.replace(Action::Push).is_some(),
                _ => return Err(ParseRequestError),
            };
            if earlier {
                return Err(ParseRequestError);
            }
        }
        Ok(CredentialRequest {
            wanted: wanted.ok_or(ParseRequestError)?,
            action: action.unwrap_or_default(),
        })
    }

    pub fn query(&self) -> String {
        let (key, value) = match &self.wanted {
            Wanted::Project(name) => ("project", name),
            Wanted::Image(name) => ("image", name),
        };
        format!(
            "{key}={}&action={}",
            utf8_percent_encode(value, &ESCAPED),
            self.action.as_str()
        )
    }
}

/// The answer, as DESIGN's section 8 has it. Empty user name and password: the registry's users log in by themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct CredentialResponse {
    pub credentials: GrantedCredentials,
    /// The project's name.
    pub repository: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct GrantedCredentials {
    /// Host, and port if there is one.
    pub registry_url: String,
    pub username: String,
    #[serde(serialize_with = "exposed")]
    pub password: Secret,
    /// Seconds; null for what does not expire.
    pub expires_in: Option<u64>,
}

/// The one place where a password is written out: into the body of an answer.
fn exposed<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// What credentials are to be good for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Pull too.
    #[default]
    Push,
    Pull,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Push => "push",
            Action::Pull => "pull",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<(Wanted, Action), ParseRequestError> {
        CredentialRequest::parse(query).map(|CredentialRequest { wanted, action }| (wanted, action))
    }

    #[test]
    fn a_question_has_one_project_and_one_action() {
        let project = |name: &str| Wanted::Project(name.to_owned());
        assert_eq!(
            parse("project=my-app"),
            Ok((project("my-app"), Action::Push))
        );
        assert_eq!(
            parse("action=pull&project=a%2Fb"),
            Ok((project("a/b"), Action::Pull))
        );
        assert_eq!(
            parse("image=r:1/a%40b"),
            Ok((Wanted::Image("r:1/a@b".to_owned()), Action::Push))
        );
        for bad in [
            "",
            "project",
            "action=pull",
            "project=a&project=b",
            "project=a&image=b",
            "project=a&action=delete",
            "project=a&x=1",
            "project=%ff",
        ] {
            assert_eq!(parse(bad), Err(ParseRequestError), "{bad}");
        }
    }

    #[test]
    fn what_is_asked_arrives() {
        for name in [
            "my-app",
            "team/my-app",
            "a&action=push",
            "ä b%2f#?",
            "r:5000/a@sha256:1",
        ] {
            for wanted in [
                Wanted::Project(name.to_owned()),
                Wanted::Image(name.to_owned()),
            ] {
                let question = CredentialRequest {
                    wanted,
                    action: Action::Pull,
                };
                assert_eq!(CredentialRequest::parse(&question.query()), Ok(question));
            }
        }
    }
}
