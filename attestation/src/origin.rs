//! For whom Redoubt's agent had a document made, as the document's user data says.

use crate::limits::MAX_FIELD;
use serde::{Deserialize, Serialize};

/// What every tag begins with: the program, and the version of the form.
const PREFIX: &str = "redoubt/1 ";
const END: u8 = b'\n';

/// For whom the agent of a Redoubt enclave had a document made.
///
/// The agent writes `redoubt/1 ORIGIN` and a line feed, in ASCII, at the beginning of the user data
/// of every document; what follows is the requester's own. A workload cannot choose the tag. Only the
/// agent writes it, so it counts together with registers that fix a Redoubt image: other code writes
/// what it likes, and so does a workload whose measured spec says `privileged`.
///
/// ```
/// use attestation::Origin;
///
/// let user_data = Origin::Workload.user_data(b"mine");
/// assert_eq!(user_data, b"redoubt/1 workload\nmine");
/// assert_eq!(Origin::of(&user_data), Some((Origin::Workload, &b"mine"[..])));
/// assert_eq!(Origin::of(b"mine"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Origin {
    /// The enclave's public endpoint. Any client chooses the nonce; there is no public key, and no
    /// user data behind the tag.
    Endpoint,
    /// The workload. It chooses nonce, public key, and the user data behind the tag.
    Workload,
    /// The agent itself, to ask KMS for the key of a sealed config.
    Kms,
    /// The agent itself, to learn time and mode. The document never leaves the enclave.
    Agent,
}

impl Origin {
    const ALL: [Origin; 4] = [
        Origin::Endpoint,
        Origin::Workload,
        Origin::Kms,
        Origin::Agent,
    ];

    /// The most bytes that fit behind the longest tag in the user data of a document.
    pub const MAX_USER_DATA: usize = MAX_FIELD - (PREFIX.len() + "workload".len() + 1);

    /// The word in the tag.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Endpoint => "endpoint",
            Origin::Workload => "workload",
            Origin::Kms => "kms",
            Origin::Agent => "agent",
        }
    }

    /// The user data of a document of this origin: the tag, then `own`.
    pub fn user_data(self, own: &[u8]) -> Vec<u8> {
        [PREFIX.as_bytes(), self.name().as_bytes(), &[END], own].concat()
    }

    /// The origin that user data is tagged with, and what follows the tag; `None` if it does not
    /// begin with the tag of a known origin.
    pub fn of(user_data: &[u8]) -> Option<(Origin, &[u8])> {
        let rest = user_data.strip_prefix(PREFIX.as_bytes())?;
        let after = |origin: Origin| {
            let rest = rest.strip_prefix(origin.name().as_bytes())?;
            Some((origin, rest.strip_prefix(&[END])?))
        };
        Origin::ALL.into_iter().find_map(after)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the origins are endpoint, workload, kms and agent")]
pub struct UnknownOrigin;

impl std::str::FromStr for Origin {
    type Err = UnknownOrigin;

    fn from_str(text: &str) -> Result<Origin, UnknownOrigin> {
        let named = |origin: &Origin| origin.name() == text;
        Origin::ALL.into_iter().find(named).ok_or(UnknownOrigin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_workload_supplies_its_documents_have_its_origin() {
        let forged = Origin::Endpoint.user_data(b"");
        for own in [&forged[..], b"", b"\n", b"redoubt/1 kms\nx"] {
            let user_data = Origin::Workload.user_data(own);
            assert_eq!(Origin::of(&user_data), Some((Origin::Workload, own)));
        }
    }

    #[test]
    fn each_origin_has_its_name_everywhere() {
        for origin in Origin::ALL {
            assert_eq!(origin.name().parse(), Ok(origin));
            let json = serde_json::to_string(&origin).unwrap();
            assert_eq!(json, format!("\"{origin}\""));
            assert_eq!(
                Origin::of(&origin.user_data(b"x")),
                Some((origin, &b"x"[..]))
            );
            let longest = vec![0; Origin::MAX_USER_DATA];
            assert!(origin.user_data(&longest).len() <= MAX_FIELD);
        }
        assert_eq!("Workload".parse::<Origin>(), Err(UnknownOrigin));
    }

    #[test]
    fn only_a_whole_tag_is_one() {
        for bad in [
            "",
            "redoubt/1 ",
            "redoubt/1 workload",
            "redoubt/1 workloads\n",
            "redoubt/1 work\n",
            "redoubt/1 WORKLOAD\n",
            "redoubt/2 workload\n",
            " redoubt/1 workload\n",
        ] {
            assert_eq!(Origin::of(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
