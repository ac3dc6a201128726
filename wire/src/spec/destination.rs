//! Where an enclave may connect to.

use super::{SpecError, value};
use serde::{Deserialize, Serialize};

/// `host:port`, or `*.domain:port` for every name below a domain. Lower case; names are not resolved here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    pub host: String,
    pub port: u16,
}

impl Destination {
    pub fn parse(text: &str) -> Result<Destination, SpecError> {
        let bad = |problem: &str| value("network", format!("'{text}' {problem}"));
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| bad("is not HOST:PORT"))?;
        let port = port
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| bad("has no valid port"))?;
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
            return Err(bad("has no valid host name"));
        }
        Ok(Destination { host, port })
    }

    /// `*.example.com` covers `a.example.com` and `a.b.example.com`, not `example.com`.
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
