//! Networks by prefix: `10.0.0.0/8`, or one address.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
        let bits = bits.unwrap_or(width);
        if bits > width {
            Err(error())
        } else {
            Ok(Network { address, bits })
        }
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
        for bad in ["", "10.0.0.0/33", "host/8", "10.0.0.0/"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
