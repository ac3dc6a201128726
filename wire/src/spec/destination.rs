//! Where an enclave may connect to: [`Host`] is what one connection names, [`Destination`] is a host
//! and its port, [`EgressRule`] is a set of them. Host and agent judge by the same functions.
//!
//! Nothing here resolves a name.

use super::error::{InvalidValue, SpecError};
use crate::network::Network;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// The longest label of a name, in bytes (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// A host as a connection names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A host name in lower case, 253 bytes at most. The host of the enclave resolves it.
    Name(String),
    /// An address. An IPv4 address that is embedded in an IPv6 address is the IPv4 address.
    Address(IpAddr),
}

impl Host {
    /// Parses a name, or an address without brackets. `None` for everything else, such as `127.1`
    /// or `0x7f000001`: a resolver would take them for addresses.
    ///
    /// ```
    /// use wire::spec::Host;
    ///
    /// assert_eq!(Host::parse("API.example.com"), Some(Host::Name("api.example.com".to_owned())));
    /// assert_eq!(Host::parse("::ffff:10.0.0.1"), Host::parse("10.0.0.1"));
    /// assert_eq!(Host::parse("10.1"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Host> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Host::Address(address.to_canonical()));
        }
        let name = text.to_ascii_lowercase();
        is_name(&name).then_some(Host::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// Letters, digits, `-` and `_` in labels. The last label is no number: the name would be an
/// address to a resolver (URL Standard, "ends in a number").
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let number = |label: &str| {
        label.bytes().all(|b| b.is_ascii_digit())
            || label
                .strip_prefix("0x")
                .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= crate::relay::MAX_HOST && name.split('.').all(label) && !number(last)
}

/// `host:port`: one host, a name or an address, and a TCP port. An IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    /// A host name in lower case, 253 bytes at most, or an address without brackets.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
}

impl Destination {
    /// Parses `NAME:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
    ///
    /// # Errors
    /// [`SpecError::Value`] if the text has no colon, no port of 1 to 65535, or no valid host.
    pub fn parse(text: &str) -> Result<Destination, SpecError> {
        let (host, port) = split(text)?;
        let host = match unbracketed(host).ok_or_else(|| bad_host(text))? {
            Bracketed::No(host) => Host::parse(host),
            Bracketed::Yes(host) => host
                .parse()
                .ok()
                .map(|v6: std::net::Ipv6Addr| Host::Address(IpAddr::V6(v6).to_canonical())),
        };
        let host = host.ok_or_else(|| bad_host(text))?.to_string();
        Ok(Destination { host, port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Destinations that an enclave may connect to: hosts and one TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EgressRule {
    /// The hosts.
    pub hosts: Hosts,
    /// The TCP port, never 0.
    pub port: u16,
}

/// Which hosts an [`EgressRule`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// One name, in lower case. Its addresses do not matter.
    Name(String),
    /// Every name below this domain, in lower case, but not the domain itself.
    Below(String),
    /// Addresses, if a connection names an address; never a name that resolves to one.
    Network(Network),
}

impl EgressRule {
    /// Parses `NAME:PORT`, `*.DOMAIN:PORT`, `ADDRESS:PORT`, `NETWORK:PORT`, and the last two with
    /// IPv6 in brackets.
    ///
    /// ```
    /// use wire::spec::{EgressRule, Host};
    ///
    /// let covers = |rule: &str, host: &str| {
    ///     EgressRule::parse(rule).unwrap().covers(&Host::parse(host).unwrap(), 443)
    /// };
    /// assert!(covers("*.example.com:443", "api.example.com"));
    /// assert!(!covers("*.example.com:443", "example.com"));
    /// assert!(covers("10.0.0.0/8:443", "10.1.2.3"));
    /// assert!(covers("[2001:db8::/32]:443", "2001:db8::1"));
    /// ```
    ///
    /// # Errors
    /// [`SpecError::Value`] if the text has no colon, no port of 1 to 65535, or neither a valid
    /// name nor a network that starts at its own first address.
    pub fn parse(text: &str) -> Result<EgressRule, SpecError> {
        let (host, port) = split(text)?;
        let hosts = match unbracketed(host).ok_or_else(|| bad_host(text))? {
            Bracketed::No(host) => Hosts::parse(host),
            Bracketed::Yes(host) => network(host)
                .filter(|network| network.address().is_ipv6())
                .map(Hosts::Network),
        };
        let hosts = hosts.ok_or_else(|| bad_host(text))?;
        Ok(EgressRule { hosts, port })
    }

    /// Whether a connection to `host`:`port` is allowed by this rule. Names are compared, not
    /// resolved: `*.example.com` covers `a.example.com` and `a.b.example.com`, not `example.com`.
    pub fn covers(&self, host: &Host, port: u16) -> bool {
        port == self.port && self.hosts.cover(host)
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Hosts> {
        if let Some(network) = network(text) {
            return network
                .address()
                .is_ipv4()
                .then_some(Hosts::Network(network));
        }
        let name = text.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(domain) => is_name(domain).then(|| Hosts::Below(domain.to_owned())),
            None => is_name(&name).then_some(Hosts::Name(name)),
        }
    }

    /// Whether `host` is one of these.
    pub fn cover(&self, host: &Host) -> bool {
        match (self, host) {
            (Hosts::Name(own), Host::Name(name)) => own == name,
            (Hosts::Below(domain), Host::Name(name)) => name
                .strip_suffix(domain.as_str())
                .and_then(|below| below.strip_suffix('.'))
                .is_some_and(|below| !below.is_empty()),
            (Hosts::Network(network), Host::Address(address)) => network.contains(*address),
            (Hosts::Network(_), Host::Name(_))
            | (Hosts::Name(_) | Hosts::Below(_), Host::Address(_)) => false,
        }
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.hosts {
            Hosts::Name(name) => write!(f, "{name}:{port}"),
            Hosts::Below(domain) => write!(f, "*.{domain}:{port}"),
            Hosts::Network(network) => {
                let address = network.address();
                let one = Network::of(address) == *network;
                let text = if one {
                    address.to_string()
                } else {
                    String::from(*network)
                };
                match address {
                    IpAddr::V4(_) => write!(f, "{text}:{port}"),
                    IpAddr::V6(_) => write!(f, "[{text}]:{port}"),
                }
            }
        }
    }
}

/// A network that is written as its first address, and not as IPv4 embedded in IPv6.
fn network(text: &str) -> Option<Network> {
    let network = Network::try_from(text.to_owned()).ok()?;
    let embedded = network.address().to_canonical() != network.address();
    (network.starts_at_its_address() && !embedded).then_some(network)
}

enum Bracketed<'a> {
    Yes(&'a str),
    No(&'a str),
}

/// What stands before the port; `None` if brackets are missing on one side, or around IPv6.
fn unbracketed(host: &str) -> Option<Bracketed<'_>> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').map(Bracketed::Yes),
        None if host.contains([':', ']']) => None,
        None => Some(Bracketed::No(host)),
    }
}

fn split(text: &str) -> Result<(&str, u16), SpecError> {
    let bad = |problem: fn(String) -> InvalidValue| problem(text.to_owned()).of("network");
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| bad(InvalidValue::NotHostAndPort))?;
    let port = port
        .parse()
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| bad(InvalidValue::DestinationPort))?;
    Ok((host, port))
}

fn bad_host(text: &str) -> SpecError {
    InvalidValue::DestinationHost(text.to_owned()).of("network")
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

impl TryFrom<String> for EgressRule {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        EgressRule::parse(&text)
    }
}

impl From<EgressRule> for String {
    fn from(rule: EgressRule) -> String {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(rule: &str, host: &str, port: u16) -> bool {
        let rule = EgressRule::parse(rule).unwrap();
        Host::parse(host).is_some_and(|host| rule.covers(&host, port))
    }

    #[test]
    fn a_wildcard_covers_names_below_the_domain_only() {
        let rule = "*.Example.com:443";
        for (host, port, covered) in [
            ("a.example.com", 443, true),
            ("A.B.EXAMPLE.COM", 443, true),
            ("example.com", 443, false),
            (".example.com", 443, false),
            ("badexample.com", 443, false),
            ("a.example.com.", 443, false),
            ("a.example.com", 80, false),
            ("a\0.example.com", 443, false),
            ("a/.example.com", 443, false),
        ] {
            assert_eq!(covers(rule, host, port), covered, "{host}:{port}");
        }
    }

    #[test]
    fn a_network_covers_its_addresses_and_no_name() {
        for (rule, host, covered) in [
            ("10.0.0.0/8:443", "10.255.0.1", true),
            ("10.0.0.0/8:443", "::ffff:10.255.0.1", true),
            ("10.0.0.0/8:443", "11.0.0.1", false),
            ("10.0.0.0/8:443", "10.255.1", false),
            ("10.0.0.0/8:443", "ten.example.com", false),
            ("10.0.0.1:443", "10.0.0.1", true),
            ("10.0.0.1:443", "10.0.0.2", false),
            ("0.0.0.0/0:443", "::1", false),
            ("[2001:db8::/32]:443", "2001:db8:1::1", true),
            ("[2001:db8::/32]:443", "2001:db9::1", false),
            ("[::/0]:443", "10.0.0.1", false),
            ("[::1]:443", "0:0::1", true),
        ] {
            assert_eq!(covers(rule, host, 443), covered, "{rule} {host}");
            assert!(!covers(rule, host, 444), "{rule} {host}");
        }
    }

    #[test]
    fn a_rule_and_a_destination_are_written_as_they_are_read() {
        for text in [
            "a_b.example.com:1",
            "*.example.com:65535",
            "10.0.0.1:80",
            "10.0.0.0/8:80",
            "[::1]:80",
            "[2001:db8::/32]:80",
        ] {
            assert_eq!(EgressRule::parse(text).unwrap().to_string(), text);
        }
        for text in ["a.example.com:1", "10.0.0.1:80", "[::1]:80"] {
            assert_eq!(Destination::parse(text).unwrap().to_string(), text);
        }
        let embedded = Destination::parse("[::ffff:10.0.0.1]:80").unwrap();
        assert_eq!(embedded.to_string(), "10.0.0.1:80");
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
            "10.1:1",
            "0x7f000001:1",
            "a.0x7f:1",
            "127.0.0.01:1",
            "*.5:1",
            "::1:1",
            "[::1:1",
            "::1]:1",
            "[10.0.0.1]:1",
            "[a.example.com]:1",
            "10.0.0.1/8:1",
            "10.0.0.0/33:1",
            "[::1/64]:1",
            "[::ffff:10.0.0.0/104]:1",
            "[fe80::1%eth0]:1",
        ] {
            assert!(EgressRule::parse(text).is_err(), "{text}");
            assert!(Destination::parse(text).is_err(), "{text}");
        }
        for text in ["*.example.com:1", "10.0.0.0/8:1", "[::/0]:1"] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }
}
