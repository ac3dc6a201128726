//! Which address stands for which name. Addresses inside the enclave mean nothing outside; the host
//! resolves the name when a connection is opened, and no one else does.
//!
//! A name of the spec has one for ever. A name below a wildcard gets one with the first question
//! and may lose it once it was not asked for or dialled for [`HOLD`]; its address goes to another
//! name only after all others had their turn.

use super::message::TTL;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use wire::spec::{Host, Hosts, NetworkRules};

/// Names below wildcards at one time.
const MAX_NAMES: usize = 8192;
/// An answer is kept for a minute; a program may take some more to dial what it got.
const HOLD: Duration = Duration::from_secs(5 * TTL as u64);
/// Numbers of addresses: 198.18.0.0/15 has so many, and the first 256 are the link's.
const NUMBERS: std::ops::Range<u32> = 256..1 << 17;
const V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 1, 0, 0, 0, 0);

/// The addresses that stand for one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// No rule names it.
    NotAllowed,
    /// Too many names below wildcards are in use.
    Full,
}

pub(super) struct Table {
    rules: NetworkRules,
    numbers: HashMap<String, u32>,
    names: HashMap<u32, Entry>,
    next: u32,
    limit: usize,
}

struct Entry {
    name: String,
    /// `None` for a name of the spec.
    used: Option<Instant>,
}

impl Table {
    pub(super) fn new(rules: NetworkRules) -> Table {
        let mut table = Table {
            rules,
            numbers: HashMap::new(),
            names: HashMap::new(),
            next: NUMBERS.start,
            limit: MAX_NAMES,
        };
        for rule in table.rules.egress.clone() {
            if let Hosts::Name(name) = rule.hosts
                && !table.numbers.contains_key(&name)
            {
                table.allot(name, None);
            }
        }
        table.limit = MAX_NAMES + table.names.len();
        table
    }

    /// The addresses for a name in lower case.
    pub(super) fn ask(&mut self, name: &str, now: Instant) -> Result<Addresses, NoAddress> {
        if let Some(&number) = self.numbers.get(name) {
            self.touch(number, now);
            return Ok(addresses(number));
        }
        let host = Host::parse(name).filter(|host| matches!(host, Host::Name(_)));
        if !host.is_some_and(|host| self.rules.names(&host)) {
            return Err(NoAddress::NotAllowed);
        }
        if self.names.len() >= self.limit {
            self.forget_one(now)?;
        }
        Ok(addresses(self.allot(name.to_owned(), Some(now))))
    }

    /// The name that an address stands for.
    pub(super) fn name_of(&mut self, address: IpAddr, now: Instant) -> Option<&str> {
        let number = number(address)?;
        self.touch(number, now);
        self.names.get(&number).map(|entry| entry.name.as_str())
    }

    fn touch(&mut self, number: u32, now: Instant) {
        if let Some(used) = self.names.get_mut(&number).and_then(|e| e.used.as_mut()) {
            *used = now;
        }
    }

    /// There are more numbers than names: one is free.
    fn allot(&mut self, name: String, used: Option<Instant>) -> u32 {
        let mut number = self.next;
        while self.names.contains_key(&number) {
            number = after(number);
        }
        self.next = after(number);
        self.numbers.insert(name.clone(), number);
        self.names.insert(number, Entry { name, used });
        number
    }

    fn forget_one(&mut self, now: Instant) -> Result<(), NoAddress> {
        let used = |(&number, entry): (&u32, &Entry)| Some((entry.used?, number));
        let (used, number) = self
            .names
            .iter()
            .filter_map(used)
            .min()
            .ok_or(NoAddress::Full)?;
        if now.duration_since(used) < HOLD {
            return Err(NoAddress::Full);
        }
        if let Some(Entry { name, .. }) = self.names.remove(&number) {
            self.numbers.remove(&name);
        }
        Ok(())
    }
}

fn after(number: u32) -> u32 {
    let next = number + 1;
    if NUMBERS.contains(&next) {
        next
    } else {
        NUMBERS.start
    }
}

fn addresses(number: u32) -> Addresses {
    Addresses {
        v4: Ipv4Addr::from_bits(V4.to_bits() | number),
        v6: Ipv6Addr::from_bits(V6.to_bits() | u128::from(number)),
    }
}

fn number(address: IpAddr) -> Option<u32> {
    let number = match address {
        IpAddr::V4(v4) => v4.to_bits().wrapping_sub(V4.to_bits()),
        IpAddr::V6(v6) => u32::try_from(v6.to_bits().wrapping_sub(V6.to_bits())).ok()?,
    };
    NUMBERS.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::spec::EgressRule;

    fn table(rules: &[&str]) -> Table {
        let egress = rules.iter().map(|rule| EgressRule::parse(rule).unwrap());
        Table::new(NetworkRules {
            egress: egress.collect(),
            ..NetworkRules::default()
        })
    }

    #[test]
    fn both_addresses_lead_back_to_the_name() {
        let now = Instant::now();
        let mut table = table(&["a.example:443", "a.example:80", "*.example.com:443"]);
        for name in ["a.example", "b.example.com", "c.example.com"] {
            let Addresses { v4, v6 } = table.ask(name, now).unwrap();
            assert_eq!(table.ask(name, now), Ok(Addresses { v4, v6 }));
            assert_eq!(table.name_of(v4.into(), now), Some(name));
            assert_eq!(table.name_of(v6.into(), now), Some(name));
        }
        let first = Addresses {
            v4: Ipv4Addr::new(198, 18, 1, 0),
            v6: "fd00:18:0:1::100".parse().unwrap(),
        };
        assert_eq!(table.ask("a.example", now), Ok(first));
    }

    #[test]
    fn a_name_without_a_rule_has_no_address_and_no_address_has_a_foreign_name() {
        let now = Instant::now();
        let mut table = table(&["a.example:443", "*.example.com:443", "10.0.0.0/8:1"]);
        for name in [
            "",
            "example",
            "b.example",
            "example.com",
            "10.0.0.1",
            "a\\046b.example.com",
            "a.example.com.",
        ] {
            assert_eq!(table.ask(name, now), Err(NoAddress::NotAllowed), "{name}");
        }
        for address in ["198.18.0.1", "198.18.1.1", "10.0.0.1", "::", "fd00:18::2"] {
            assert_eq!(
                table.name_of(address.parse().unwrap(), now),
                None,
                "{address}"
            );
        }
    }

    #[test]
    fn an_address_in_use_is_not_given_to_another_name() {
        let start = Instant::now();
        let mut table = table(&["a.example:443", "*.example.com:443"]);
        let name = |n: usize| format!("{n}.example.com");
        for n in 0..MAX_NAMES {
            table.ask(&name(n), start).unwrap();
        }
        let first = table.ask(&name(0), start).unwrap();
        assert_eq!(table.ask("x.example.com", start), Err(NoAddress::Full));
        let nearly = start + HOLD - Duration::from_secs(1);
        assert_eq!(table.ask("x.example.com", nearly), Err(NoAddress::Full));
        // Dialled just now: another one makes room, and the newcomer gets a fresh address.
        table.name_of(first.v4.into(), nearly);
        let fresh = table.ask("x.example.com", start + HOLD).unwrap();
        assert_eq!(
            table.name_of(first.v4.into(), nearly),
            Some(name(0).as_str())
        );
        assert_eq!(
            table.name_of(fresh.v6.into(), nearly),
            Some("x.example.com")
        );
        assert_eq!(table.names.len(), MAX_NAMES + 1);
        let known = table.ask("a.example", start).unwrap();
        assert_eq!(
            known.v4,
            Ipv4Addr::new(198, 18, 1, 0),
            "a name of the spec stays"
        );
    }

    #[test]
    fn a_forgotten_address_waits_until_all_others_had_their_turn() {
        let mut now = Instant::now();
        let mut table = table(&["*.example.com:443"]);
        table.limit = 1;
        let first = table.ask("0.example.com", now).unwrap();
        let turns = NUMBERS.len();
        for n in 1..turns {
            now += HOLD;
            assert_ne!(table.ask(&format!("{n}.example.com"), now), Ok(first));
        }
        assert_eq!(table.ask("last.example.com", now + HOLD), Ok(first));
    }
}
