//! Version 2 of the PROXY protocol (haproxy.org, proxy-protocol.txt, 2.2): who connected, as the
//! first bytes of a stream.

use std::net::{IpAddr, SocketAddr};

/// Begins every header (2.2): no other protocol begins so.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the command PROXY: the connection is another one's.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a TCP connection from `source` to `destination`: 28 bytes for IPv4, 52 for IPv6,
/// no extensions. IPv4 addresses inside of IPv6 ones are written as IPv4; if the two are of
/// different families, both are written as IPv6.
pub fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let addresses = (source.ip().to_canonical(), destination.ip().to_canonical());
    let (family, mut body) = match addresses {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (TCP_OVER_IPV4, [from.octets(), to.octets()].concat())
        }
        (from, to) => (TCP_OVER_IPV6, [v6(from), v6(to)].concat()),
    };
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    let len = u16::try_from(body.len()).unwrap_or_default();
    [&SIGNATURE[..], &[PROXY, family], &len.to_be_bytes(), &body].concat()
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fields in the order of `union proxy_addr` (2.2), by hand.
    #[test]
    fn has_the_bytes_of_the_specification() {
        let header = header(
            "192.0.2.1:4660".parse().unwrap(),
            "198.51.100.2:443".parse().unwrap(),
        );
        let expected = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C\
            \xC0\x00\x02\x01\xC6\x33\x64\x02\x12\x34\x01\xBB";
        assert_eq!(header, expected);
    }

    /// A receiver as the specification has one in C (section 9), for `struct proxy_hdr_v2`.
    fn read(bytes: &[u8]) -> (SocketAddr, SocketAddr, usize) {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (port, len) = (number, 16 + usize::from(number(14)));
        assert_eq!(
            &bytes[..12],
            b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A"
        );
        assert_eq!((bytes[12] & 0xF0, bytes[12] & 0x0F), (0x20, 1));
        match bytes[13] {
            0x11 => {
                let ip = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
                ((ip(16), port(24)).into(), (ip(20), port(26)).into(), len)
            }
            0x21 => {
                let ip = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap();
                ((ip(16), port(48)).into(), (ip(32), port(50)).into(), len)
            }
            other => panic!("{other:#x}"),
        }
    }

    proptest! {
        #[test]
        fn a_receiver_reads_the_addresses_and_knows_where_the_stream_begins(
            source: SocketAddr, destination: SocketAddr
        ) {
            let bytes = header(source, destination);
            let (from, to, len) = read(&bytes);
            prop_assert_eq!(len, bytes.len());
            let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
            prop_assert_eq!((plain(from), plain(to)), (plain(source), plain(destination)));
        }
    }
}
