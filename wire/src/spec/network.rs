//! `[network]`: where an enclave may connect to, what may connect to it, and what stands for what
//! inside.

use super::destination::{Destination, EgressRule, Host, Hosts};
use super::error::{InvalidValue, SpecError};
use crate::network::{INSIDE, Network};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The longest list of rules, in entries.
const MAX_RULES: usize = 256;
/// The longest `idle_seconds` of an ingress: a day.
pub const MAX_IDLE_SECONDS: u32 = 24 * 60 * 60;

/// `[network]` as written. Without it nothing goes in or out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSpec {
    /// [`EgressRule`]s: where the enclave may connect to; 256 at most.
    pub egress: Vec<String>,
    /// Ports that the host lets clients connect to; 256 at most.
    pub ingress: Vec<IngressSpec>,
    /// Where the host lets relying parties ask the enclave for attestation documents; not measured.
    /// Nowhere if left out.
    pub attestation: Option<SocketAddr>,
    /// How many connections one source address may have there, and open each second; not measured.
    /// A quarter of all if left out.
    pub attestation_per_source: Option<u32>,
    /// Loopback addresses that stand for destinations; 256 at most.
    pub forward: Vec<ForwardSpec>,
}

/// One entry of `network.ingress`. The port is measured; what the host does with it is not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressSpec {
    /// The TCP port inside the enclave.
    pub port: u16,
    /// Where the host listens for it. A free port on 127.0.0.1 if left out.
    pub listen: Option<SocketAddr>,
    /// Whether each connection begins with who connected, as version 2 of the PROXY protocol writes
    /// it. The host says so; the enclave cannot check it.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// A connection on which nothing moved for so long is reset: 1 to [`MAX_IDLE_SECONDS`]. 15
    /// minutes if left out.
    pub idle_seconds: Option<u32>,
    /// How many connections one source address may have to the enclave's ports; at least 1. A
    /// quarter of those that the enclave takes if left out.
    pub per_source: Option<u32>,
}

/// One entry of `network.forward`, as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardSpec {
    /// `ADDRESS:PORT` on loopback inside the enclave.
    pub listen: String,
    /// `HOST:PORT` outside; the egress list has to cover it.
    pub to: String,
}

/// `network` of the measured spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRules {
    /// Where the enclave may connect to.
    pub egress: Vec<EgressRule>,
    /// TCP ports inside the enclave that may be connected to.
    pub ingress: Vec<u16>,
    /// What stands for what inside.
    pub forward: Vec<Forward>,
}

/// A loopback address inside the enclave that stands for one destination outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Where the agent listens: a loopback address inside the enclave.
    pub listen: SocketAddr,
    /// Where connections go; covered by the egress list.
    pub to: Destination,
}

impl NetworkSpec {
    pub(super) fn resolve(&self) -> Result<NetworkRules, SpecError> {
        let egress = self.egress.iter().map(|text| EgressRule::parse(text));
        let forward = self.forward.iter().map(ForwardSpec::resolve);
        Ok(NetworkRules {
            egress: egress.collect::<Result<_, _>>()?,
            ingress: self.ingress.iter().map(|rule| rule.port).collect(),
            forward: forward.collect::<Result<_, _>>()?,
        })
    }

    /// The host's part of it, which is in no measured spec.
    pub(super) fn check_host(&self) -> Result<(), SpecError> {
        let idle = |rule: &IngressSpec| rule.idle_seconds.unwrap_or(1);
        if !self
            .ingress
            .iter()
            .all(|rule| (1..=MAX_IDLE_SECONDS).contains(&idle(rule)))
        {
            return Err(InvalidValue::IdleSeconds.of("network.ingress"));
        }
        if self.ingress.iter().any(|rule| rule.per_source == Some(0)) {
            return Err(InvalidValue::PerSource.of("network.ingress"));
        }
        if self.attestation_per_source == Some(0) {
            return Err(InvalidValue::PerSource.of("network.attestation_per_source"));
        }
        Ok(())
    }
}

impl ForwardSpec {
    fn resolve(&self) -> Result<Forward, SpecError> {
        let bad = |_| InvalidValue::NotAnAddress(self.listen.clone()).of("forward.listen");
        Ok(Forward {
            listen: self.listen.parse().map_err(bad)?,
            to: Destination::parse(&self.to)?,
        })
    }
}

impl NetworkRules {
    /// Whether the enclave may connect to `host`:`port`. The host is a name or an address without
    /// brackets; what is neither is never allowed.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        Host::parse(host)
            .is_some_and(|host| self.egress.iter().any(|rule| rule.covers(&host, port)))
    }

    /// Whether there is a port of `host` that the enclave may connect to.
    pub fn names(&self, host: &Host) -> bool {
        self.egress.iter().any(|rule| rule.hosts.cover(host))
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let NetworkRules {
            egress,
            ingress,
            forward,
        } = self;
        for (key, count) in [
            ("network.egress", egress.len()),
            ("network.ingress", ingress.len()),
            ("network.forward", forward.len()),
        ] {
            if count > MAX_RULES {
                let limit = MAX_RULES;
                return Err(InvalidValue::TooMany { count, limit }.of(key));
            }
        }
        let inside = |network: &Network| {
            let same = |own: &Network| own.contains(network.address());
            INSIDE
                .iter()
                .any(|own| same(own) && network.bits() >= own.bits())
        };
        for rule in egress {
            if matches!(&rule.hosts, Hosts::Network(network) if inside(network)) {
                return Err(InvalidValue::InsideNetwork(rule.to_string()).of("network.egress"));
            }
        }
        for Forward { listen, to } in forward {
            if !listen.ip().is_loopback() {
                return Err(InvalidValue::NotLoopback(*listen).of("forward.listen"));
            }
            if !self.allows(&to.host, to.port) {
                return Err(InvalidValue::NotInEgress(to.to_string()).of("forward.to"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_256_rules_at_most() {
        let rules = |count| NetworkRules {
            ingress: vec![1; count],
            ..NetworkRules::default()
        };
        let many = InvalidValue::TooMany {
            count: 257,
            limit: 256,
        };
        assert_eq!(rules(256).check(), Ok(()));
        assert_eq!(rules(257).check(), Err(many.of("network.ingress")));
    }

    #[test]
    fn what_the_host_does_with_a_port_has_limits() {
        let check = |keys: &str| {
            let text = format!("[network]\ningress = [{{ port = 1, {keys} }}]");
            crate::spec::Spec::parse(&text).map(|_| ())
        };
        let of = |problem: InvalidValue| Err(problem.of("network.ingress"));
        for (keys, expected) in [
            ("idle_seconds = 0", of(InvalidValue::IdleSeconds)),
            ("idle_seconds = 1", Ok(())),
            ("idle_seconds = 86400", Ok(())),
            ("idle_seconds = 86401", of(InvalidValue::IdleSeconds)),
            ("per_source = 0", of(InvalidValue::PerSource)),
            ("per_source = 1", Ok(())),
        ] {
            assert_eq!(check(keys), expected, "{keys}");
        }
        let none = crate::spec::Spec::parse("[network]\nattestation_per_source = 0");
        let expected = InvalidValue::PerSource.of("network.attestation_per_source");
        assert_eq!(none, Err(expected));
    }

    #[test]
    fn refuses_rules_for_addresses_that_mean_nothing_outside() {
        let check = |text: &str| {
            let rules = NetworkRules {
                egress: vec![EgressRule::parse(text).unwrap()],
                ..NetworkRules::default()
            };
            rules.check()
        };
        for text in ["198.18.0.0/15:1", "198.19.255.255:1", "[fd00:18::2]:1"] {
            let expected = InvalidValue::InsideNetwork(text.to_owned()).of("network.egress");
            assert_eq!(check(text), Err(expected));
        }
        for text in ["198.0.0.0/8:1", "198.20.0.1:1", "0.0.0.0/0:1", "[::/0]:1"] {
            assert_eq!(check(text), Ok(()));
        }
    }

    #[test]
    fn refuses_forwards_that_listen_for_others() {
        let listen: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let rules = NetworkRules {
            forward: vec![Forward {
                listen,
                to: Destination::parse("db:1").unwrap(),
            }],
            ..NetworkRules::default()
        };
        let expected = InvalidValue::NotLoopback(listen).of("forward.listen");
        assert_eq!(rules.check(), Err(expected));
        let named = ForwardSpec {
            listen: "localhost:1".to_owned(),
            to: "db:1".to_owned(),
        };
        let expected = InvalidValue::NotAnAddress("localhost:1".to_owned()).of("forward.listen");
        assert_eq!(named.resolve(), Err(expected));
    }
}
