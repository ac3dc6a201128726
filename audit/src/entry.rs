//! What a line says. Foreign text gets in here alone, escaped and cut.

use explain::Code;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The longest text in a field, in characters after escaping.
const MAX_TEXT: usize = 300;

/// Foreign text on one line: what does not print is escaped, and the end is cut.
fn bounded(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let stays =
            matches!(c, '"' | '\'' | '\\') || !c.is_control() && c.escape_debug().len() == 1;
        let plain = stays.then_some(c);
        plain
            .into_iter()
            .chain(c.escape_debug().filter(move |_| !stays))
    });
    escaped.take(MAX_TEXT).collect()
}

/// Who did it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    /// User id of the process at the other end of the API's socket.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    /// Its process id at the time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<i32>,
    /// Subject of the token that the broker accepted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<String>,
    /// Where a caller of the broker connected from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
}

impl Actor {
    /// The daemon itself: nothing is written of it.
    pub fn daemon() -> Actor {
        Actor::default()
    }

    /// A process that uses the API's socket.
    pub fn process(uid: Option<u32>, pid: Option<i32>) -> Actor {
        Actor {
            uid,
            pid,
            ..Actor::default()
        }
    }

    /// A caller of the broker; without a subject if its token was not accepted.
    pub fn caller(subject: Option<&str>, address: IpAddr) -> Actor {
        Actor {
            subject: subject.map(bounded),
            address: Some(address.to_string()),
            ..Actor::default()
        }
    }
}

/// What was ordered, or happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// An enclave is to be created.
    Create,
    /// An enclave is to be deployed again.
    Redeploy,
    /// An enclave is to go back to the image before.
    Rollback,
    /// An enclave gets another sealed config.
    Configure,
    /// An enclave is to be destroyed.
    Terminate,
    /// Issued credentials are to be forgotten.
    ForgetCredentials,
    /// Credentials for a registry: for a caller of the broker, or for a deploy.
    Credentials,
    /// An enclave came to a state: `outcome` names it.
    Enclave,
    /// The log itself: it was repaired at the daemon's start.
    Log,
}

impl AuditAction {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            AuditAction::Create => "create",
            AuditAction::Redeploy => "redeploy",
            AuditAction::Rollback => "rollback",
            AuditAction::Configure => "configure",
            AuditAction::Terminate => "terminate",
            AuditAction::ForgetCredentials => "forget-credentials",
            AuditAction::Credentials => "credentials",
            AuditAction::Enclave => "enclave",
            AuditAction::Log => "log",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// An order arrived, and nothing is done yet. Another line names this one in `order`.
    Begun,
    /// The order is on disk. Of credentials: the caller may have some, and logs in without us.
    Accepted,
    /// It was refused, with `code`.
    Refused,
    /// Credentials were handed out.
    Issued,
    /// The enclave attested what was built.
    Deployed,
    /// The enclave ended, or could not be deployed; `code` says why.
    Failed,
    /// The enclave is gone, with its credentials and files.
    Destroyed,
    /// An unfinished line was set aside.
    Recovered,
    /// A line of the file before is wrong: the chain starts again here.
    Broken,
}

impl AuditOutcome {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            AuditOutcome::Begun => "begun",
            AuditOutcome::Accepted => "accepted",
            AuditOutcome::Refused => "refused",
            AuditOutcome::Issued => "issued",
            AuditOutcome::Deployed => "deployed",
            AuditOutcome::Failed => "failed",
            AuditOutcome::Destroyed => "destroyed",
            AuditOutcome::Recovered => "recovered",
            AuditOutcome::Broken => "broken",
        }
    }
}

/// What a line says, without its place in the chain. Made with [`AuditEntry::new`] and the methods
/// below; read from a log, it may hold what a later version wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditEntry {
    /// One of [`AuditAction`].
    pub action: String,
    /// One of [`AuditOutcome`].
    pub outcome: String,
    /// Who did it; empty for the daemon.
    pub by: Actor,
    /// Number of the line with which this order began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// Id of the enclave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enclave: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image as it was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The digest that it was resolved to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// PCR0 of the enclave image, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcr0: Option<String>,
    /// Project whose credentials were issued, and for what: `pull` or `push`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// See `project`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// When issued credentials expire, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// `x-request-id` of the broker's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The error's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How often this was refused since the last such line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What was found when the log was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl AuditEntry {
    /// An entry that says no more than this.
    pub fn new(action: AuditAction, outcome: AuditOutcome, by: Actor) -> AuditEntry {
        AuditEntry {
            action: action.as_str().to_owned(),
            outcome: outcome.as_str().to_owned(),
            by,
            ..AuditEntry::default()
        }
    }

    /// Says which enclave.
    #[must_use]
    pub fn enclave(mut self, id: Option<&str>, name: Option<&str>) -> AuditEntry {
        self.enclave = id.map(bounded).or(self.enclave);
        self.name = name.map(bounded).or(self.name);
        self
    }

    /// Says which image.
    #[must_use]
    pub fn image(mut self, image: &str) -> AuditEntry {
        self.image = Some(bounded(image));
        self
    }

    /// Says of all of an enclave what its record holds.
    #[must_use]
    pub fn record(self, record: &api::Record) -> AuditEntry {
        let mut entry = self
            .enclave(Some(record.id.as_str()), Some(&record.name))
            .image(&record.image.to_string());
        entry.digest = record.image_digest.as_ref().map(ToString::to_string);
        entry.pcr0 = record
            .measurements
            .map(|measured| measured.pcr0.to_string());
        entry
    }

    /// Says what credentials are for (`pull`, `push`), and until when.
    #[must_use]
    pub fn credentials(
        mut self,
        project: &str,
        access: &str,
        expires_at: Option<&str>,
    ) -> AuditEntry {
        self.project = Some(bounded(project));
        self.access = Some(bounded(access));
        self.expires_at = expires_at.map(bounded);
        self
    }

    /// Says in which request to the broker.
    #[must_use]
    pub fn request(mut self, id: &str) -> AuditEntry {
        self.request = Some(bounded(id));
        self
    }

    /// Says why it was refused or failed.
    #[must_use]
    pub fn code(mut self, code: Code) -> AuditEntry {
        self.code = Some(code.as_str().to_owned());
        self
    }

    pub(crate) fn note(mut self, note: &str) -> AuditEntry {
        self.note = Some(bounded(note));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        assert_eq!(bounded("a\"b\\ä日"), "a\"b\\ä日");
        assert_eq!(bounded("x\n\u{1b}[0m\u{202e}"), "x\\n\\u{1b}[0m\\u{202e}");
        assert_eq!(bounded(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
        assert_eq!(bounded(&"x".repeat(MAX_TEXT + 1)).len(), MAX_TEXT);
        assert_eq!(bounded(&"\n".repeat(MAX_TEXT)).len(), MAX_TEXT);
    }
}
