//! Where an enclave may connect to.

use super::error::{InvalidValue, SpecError};
use serde::{Deserialize, Serialize};

/// `host:port`, or `*.domain:port` for every name below a domain. Lower case; names are not
/// resolved here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    /// A host name or IPv4 address in lower case, or `*.` and a domain; 253 bytes at most without
    /// the `*.`.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
}

impl Destination {
    /// Parses `HOST:PORT` or `*.DOMAIN:PORT`.
    ///
    /// ```
    /// use wire::spec::Destination;
    ///
    /// let rule = Destination::parse("*.example.com:443")?;
    /// assert!(rule.covers("api.example.com", 443));
    /// assert!(!rule.covers("example.com", 443));
    /// assert!(!rule.covers("api.example.com", 80));
    /// # Ok::<(), wire::spec::SpecError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpecError::Value`] if the text has no colon, no port of 1 to 65535, or no valid host name.
    pub fn parse(text: &str) -> Result<Destination, SpecError> {
        let bad = |problem: fn(String) -> InvalidValue| problem(text.to_owned()).of("network");
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| bad(InvalidValue::NotHostAndPort))?;
        let port = port
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| bad(InvalidValue::DestinationPort))?;
        let host = host.to_ascii_lowercase();
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > crate::relay::MAX_HOST || !name.split('.').all(label) {
            return Err(bad(InvalidValue::DestinationHost));
        }
        Ok(Destination { host, port })
    }

    /// Whether a connection to `host`:`port` is one to this destination. Case does not matter, and
    /// names are compared, not resolved: `*.example.com` covers `a.example.com` and
    /// `a.b.example.com`, not `example.com`.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let named = match self.host.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.host,
        };
        named && port == self.port
    }
}

impl TryFrom<String> for Destination {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        Destination::parse(&text)
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.to_string()
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_names_below_the_domain_only() {
        let rule = Destination::parse("*.Example.com:443").unwrap();
        for (host, port, covered) in [
            ("a.example.com", 443, true),
            ("A.B.EXAMPLE.COM", 443, true),
            ("example.com", 443, false),
            ("badexample.com", 443, false),
            ("a.example.com", 80, false),
        ] {
            assert_eq!(rule.covers(host, port), covered, "{host}:{port}");
        }
    }

    #[test]
    fn refuses_destinations_that_are_no_host_and_port() {
        for text in [
            "",
            "host",
            "host:0",
            "host:70000",
            ":1",
            "a..b:1",
            "*:1",
            "-a:1",
            "a b:1",
            "a*.b:1",
            "*.*.b:1",
        ] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }
}
