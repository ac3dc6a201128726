//! How old a document may be.

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The greatest age of a document, by the caller's clock. In a file a number of seconds, or
/// `"certificate"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MaxAge {
    /// [`MaxAge::DEFAULT`] if the policy has no nonce. With a nonce as [`MaxAge::Certificate`]: the
    /// nonce shows that the document is not older than the request.
    #[default]
    Default,
    /// So many seconds, with a nonce or without.
    Seconds(u64),
    /// As old as the enclave's certificate, which is valid for three hours. Without a nonce, anyone
    /// who has seen a document can present it for as long.
    Certificate,
}

impl MaxAge {
    /// The greatest age of a document without a nonce, unless the policy sets another: 5 minutes.
    /// Enough for slow networks; what is older was more likely kept than delayed.
    pub const DEFAULT: Duration = Duration::from_secs(5 * 60);

    /// `None` if the enclave's certificate decides.
    pub(crate) fn limit(self, has_nonce: bool) -> Option<Duration> {
        match self {
            MaxAge::Default => (!has_nonce).then_some(MaxAge::DEFAULT),
            MaxAge::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            MaxAge::Certificate => None,
        }
    }
}

impl<'de> Deserialize<'de> for MaxAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MaxAge, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected seconds or \"certificate\"")]
        enum Written {
            Seconds(u64),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => Ok(MaxAge::Seconds(seconds)),
            Written::Word(word) if word == "certificate" => Ok(MaxAge::Certificate),
            Written::Word(word) => Err(D::Error::invalid_value(
                Unexpected::Str(&word),
                &"seconds or \"certificate\"",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_in_seconds_or_as_the_certificates() {
        let read = |text| serde_json::from_str::<MaxAge>(text);
        assert_eq!(read("300").unwrap(), MaxAge::Seconds(300));
        assert_eq!(read("\"certificate\"").unwrap(), MaxAge::Certificate);
        for bad in ["\"300\"", "\"default\"", "-1", "1.5", "true"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_without_a_nonce_has_a_limit_unless_it_says_otherwise() {
        let seconds = |max_age: MaxAge, nonce| max_age.limit(nonce).map(|limit| limit.as_secs());
        for (max_age, without, with) in [
            (MaxAge::Default, Some(300), None),
            (MaxAge::Seconds(7), Some(7), Some(7)),
            (MaxAge::Certificate, None, None),
        ] {
            assert_eq!(seconds(max_age, false), without, "{max_age:?}");
            assert_eq!(seconds(max_age, true), with, "{max_age:?}");
        }
    }
}
