//! Networks by prefix: `10.0.0.0/8`, or one address.
//!
//! Egress rules of a spec and the operator's exceptions are both of this type.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that an enclave has inside, for its own link and to stand for names:
/// `198.18.0.0/15`, which no network routes (RFC 2544, C.2.2), and `fd00:18::/32` (RFC 4193). They
/// mean nothing outside, and no egress rule may name them.
pub const INSIDE: [Network; 2] = [
    Network {
        address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)),
        bits: 15,
    },
    Network {
        address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0)),
        bits: 32,
    },
];

/// An address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not ADDRESS/BITS")]
pub struct ParseNetworkError(String);

impl Network {
    /// The network of the addresses that begin with the first `bits` bits of this one; `None` if
    /// there are not so many.
    pub fn new(address: IpAddr, bits: u8) -> Option<Network> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        (bits <= width).then_some(Network { address, bits })
    }

    /// The network that holds this address alone.
    pub fn of(address: IpAddr) -> Network {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Network { address, bits }
    }

    /// The address as it was written.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits of the address count: 32 at most for IPv4, 128 for IPv6.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether the address as written is the network's first: `10.0.0.0/8` is, `10.1.2.3/8` is not.
    pub fn starts_at_its_address(&self) -> bool {
        let trailing = match self.address {
            IpAddr::V4(v4) => v4.to_bits().trailing_zeros(),
            IpAddr::V6(v6) => v6.to_bits().trailing_zeros(),
        };
        let width = if self.address.is_ipv4() { 32 } else { 128 };
        trailing + u32::from(self.bits) >= width
    }

    /// Whether an address of the same family begins with these bits.
    pub fn contains(&self, address: IpAddr) -> bool {
        let prefix = |octets: &[u8]| {
            let number = octets
                .iter()
                .fold(0u128, |n, &byte| n << 8 | u128::from(byte));
            let width = u32::try_from(octets.len() * 8).unwrap_or(0);
            number
                .checked_shr(width.saturating_sub(u32::from(self.bits)))
                .unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                prefix(&own.octets()) == prefix(&other.octets())
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                prefix(&own.octets()) == prefix(&other.octets())
            }
            _ => false,
        }
    }
}

impl TryFrom<String> for Network {
    type Error = ParseNetworkError;
    fn try_from(text: String) -> Result<Self, ParseNetworkError> {
        let error = || ParseNetworkError(text.clone());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| error())?)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        Network::new(address, bits.unwrap_or(width)).ok_or_else(error)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        format!("{}/{}", network.address, network.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_compared_by_their_bits() {
        let network = |text: &str| Network::try_from(text.to_owned());
        let inside =
            |text: &str, address: &str| network(text).unwrap().contains(address.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.1.2") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("127.0.0.1", "127.0.0.1") && !inside("127.0.0.1", "127.0.0.2"));
        assert!(
            inside("fd00::/8", "fd12::1")
                && !inside("0.0.0.0/0", "::1")
                && inside("0.0.0.0/0", "1.2.3.4")
        );
        for (text, first) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/8", false),
            ("10.1.2.3", true),
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("2001:db8::/32", true),
            ("2001:db8::1/32", false),
        ] {
            assert_eq!(
                network(text).unwrap().starts_at_its_address(),
                first,
                "{text}"
            );
        }
        for bad in ["", "10.0.0.0/33", "host/8", "10.0.0.0/"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
