//! What an IP address leads to: the one list of special-purpose addresses.
//!
//! Two questions are asked of it. Host egress asks [`AddressClass::is_internal`]: an enclave
//! reaches nothing but the public internet, unless the operator allows more. The registry client
//! asks [`AddressClass::is_local`]: a redirect never leads to this machine, its link or its
//! metadata service, but may lead into a private network.
//!
//! An IPv4 address that is embedded in an IPv6 address counts as itself: a translator or a tunnel
//! would deliver there.
//!
//! Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890); the RFC of each
//! range stands beside it. The documentation ranges (RFC 5737, RFC 3849) are not special here: they
//! are routed nowhere, so there is nothing behind them to protect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address leads to.
///
/// ```
/// use oci::address::AddressClass;
///
/// let class = |text: &str| AddressClass::of(text.parse().unwrap());
/// assert_eq!(class("8.8.8.8"), AddressClass::Global);
/// // A NAT64 translator would deliver this one to the metadata service.
/// assert_eq!(class("64:ff9b::169.254.169.254"), AddressClass::Metadata);
/// assert!(class("10.0.0.1").is_internal() && !class("10.0.0.1").is_local());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// The public internet: everything that is not special.
    Global,
    /// `0.0.0.0/8` (RFC 1122, 3.2.1.3) and `::` (RFC 4291, 2.5.2). Linux connects `0.0.0.0` and
    /// `::` to this machine.
    Unspecified,
    /// `127.0.0.0/8` (RFC 1122, 3.2.1.3) and `::1` (RFC 4291, 2.5.3).
    Loopback,
    /// `169.254.0.0/16` (RFC 3927) and `fe80::/10` (RFC 4291, 2.5.6), without
    /// [`AddressClass::Metadata`].
    LinkLocal,
    /// EC2's metadata service, `169.254.169.254` and `fd00:ec2::254` (EC2 User Guide, "Use the
    /// Instance Metadata Service"), and the rest of `fd00:ec2::/32`, where EC2 has its other
    /// services of the link.
    Metadata,
    /// `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16` (RFC 1918), `fc00::/7` (RFC 4193), the
    /// deprecated site-local `fec0::/10` (RFC 3879), and a network's own NAT64 prefix in
    /// `64:ff9b:1::/48` (RFC 8215).
    Private,
    /// `100.64.0.0/10`, between a carrier and its customers (RFC 6598).
    Shared,
    /// `224.0.0.0/4` (RFC 5771) and `ff00::/8` (RFC 4291, 2.7).
    Multicast,
    /// `255.255.255.255` (RFC 919).
    Broadcast,
    /// Not for general use: `192.0.0.0/24` (RFC 6890, 2.1), `198.18.0.0/15` (RFC 2544),
    /// `240.0.0.0/4` (RFC 1112, 4), `100::/64` (RFC 6666), `2001:2::/48` (RFC 5180) and Teredo's
    /// `2001::/32` (RFC 4380).
    Reserved,
}

impl AddressClass {
    /// The class of an address. Looks at nothing but the address; ports and names do not matter.
    pub fn of(address: IpAddr) -> AddressClass {
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// Whether it is anything but the public internet. Host egress refuses these.
    pub fn is_internal(self) -> bool {
        self != AddressClass::Global
    }

    /// Whether it is this machine, its link or its metadata service. A registry has no business
    /// redirecting there. Private networks are not local: a registry's storage may well be in one.
    pub fn is_local(self) -> bool {
        match self {
            AddressClass::Unspecified
            | AddressClass::Loopback
            | AddressClass::LinkLocal
            | AddressClass::Metadata
            | AddressClass::Broadcast => true,
            AddressClass::Global
            | AddressClass::Private
            | AddressClass::Shared
            | AddressClass::Multicast
            | AddressClass::Reserved => false,
        }
    }
}

fn of_v4(v4: Ipv4Addr) -> AddressClass {
    match v4.octets() {
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [169, 254, 169, 254] => AddressClass::Metadata,
        [169, 254, ..] => AddressClass::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressClass::Private,
        [100, 64..=127, ..] => AddressClass::Shared,
        [192, 0, 0, _] | [198, 18..=19, ..] => AddressClass::Reserved,
        [224..=239, ..] => AddressClass::Multicast,
        [255, 255, 255, 255] => AddressClass::Broadcast,
        [240..=255, ..] => AddressClass::Reserved,
        _ => AddressClass::Global,
    }
}

fn of_v6(v6: Ipv6Addr) -> AddressClass {
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // IPv4-compatible (RFC 4291, 2.5.5.1), IPv4-mapped (2.5.5.2), IPv4-translated (RFC 2765,
        // 2.1) and the well-known prefix of NAT64 (RFC 6052, 2.1).
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of_v4(v4(high, low)),
        [0x64, 0xff9b, 1, ..] => of_local_nat64(v6),
        // 6to4 (RFC 3056, 2): the packet goes to this IPv4 address.
        [0x2002, high, low, ..] => of_v4(v4(high, low)),
        // Teredo (RFC 4380, 4): the server, and the client with all bits inverted.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            let client = of_v4(v4(!client_high, !client_low));
            let server = of_v4(v4(high, low));
            let local = [client, server].into_iter().find(|class| class.is_local());
            local.unwrap_or(AddressClass::Reserved)
        }
        [0x100, 0, 0, 0, ..] | [0x2001, 2, 0, ..] => AddressClass::Reserved,
        [0xfd00, 0xec2, ..] => AddressClass::Metadata,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => AddressClass::Private,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        _ => AddressClass::Global,
    }
}

/// `64:ff9b:1::/48` is for translators of the network's own, which may use a prefix of 48, 56, 64
/// or 96 bits of it (RFC 6052, 2.2, has the four layouts). Which one cannot be seen: what is local
/// in any of them is local. The zeros that fill up one layout are no address in another.
fn of_local_nat64(v6: Ipv6Addr) -> AddressClass {
    let [
        _,
        _,
        _,
        _,
        _,
        _,
        o6,
        o7,
        _,
        o9,
        o10,
        o11,
        o12,
        o13,
        o14,
        o15,
    ] = v6.octets();
    let layouts = [
        [o6, o7, o9, o10],
        [o7, o9, o10, o11],
        [o9, o10, o11, o12],
        [o12, o13, o14, o15],
    ];
    let classes = layouts.map(|octets| of_v4(octets.into()));
    let mut embedded = classes
        .into_iter()
        .filter(|class| *class != AddressClass::Unspecified)
        .peekable();
    if embedded.peek().is_none() {
        return AddressClass::Unspecified;
    }
    let local = embedded.find(|class| class.is_local());
    local.unwrap_or(AddressClass::Private)
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::AddressClass::*;
    use super::*;

    fn class(text: &str) -> AddressClass {
        AddressClass::of(text.parse().unwrap())
    }

    /// Every range with its first and last address, and the class of the addresses before and after
    /// it.
    const RANGES: &[(&str, &str, AddressClass, [AddressClass; 2])] = &[
        ("0.0.0.0", "0.255.255.255", Unspecified, [Global, Global]),
        ("10.0.0.0", "10.255.255.255", Private, [Global, Global]),
        ("100.64.0.0", "100.127.255.255", Shared, [Global, Global]),
        ("127.0.0.0", "127.255.255.255", Loopback, [Global, Global]),
        (
            "169.254.0.0",
            "169.254.169.253",
            LinkLocal,
            [Global, Metadata],
        ),
        (
            "169.254.169.254",
            "169.254.169.254",
            Metadata,
            [LinkLocal, LinkLocal],
        ),
        (
            "169.254.169.255",
            "169.254.255.255",
            LinkLocal,
            [Metadata, Global],
        ),
        ("172.16.0.0", "172.31.255.255", Private, [Global, Global]),
        ("192.0.0.0", "192.0.0.255", Reserved, [Global, Global]),
        ("192.168.0.0", "192.168.255.255", Private, [Global, Global]),
        ("198.18.0.0", "198.19.255.255", Reserved, [Global, Global]),
        (
            "224.0.0.0",
            "239.255.255.255",
            Multicast,
            [Global, Reserved],
        ),
        (
            "240.0.0.0",
            "255.255.255.254",
            Reserved,
            [Multicast, Broadcast],
        ),
        (
            "255.255.255.255",
            "255.255.255.255",
            Broadcast,
            [Reserved, Broadcast],
        ),
        ("::", "::", Unspecified, [Unspecified, Loopback]),
        ("::1", "::1", Loopback, [Unspecified, Unspecified]),
        // The prefixes with IPv4 inside begin with 0.0.0.0 and end with 255.255.255.255.
        (
            "::ffff:255.255.255.255",
            "::ffff:255.255.255.255",
            Broadcast,
            [Reserved, Global],
        ),
        (
            "::ffff:0.0.0.0",
            "::ffff:0.255.255.255",
            Unspecified,
            [Global, Global],
        ),
        (
            "::255.255.255.255",
            "::255.255.255.255",
            Broadcast,
            [Reserved, Global],
        ),
        (
            "::0.0.0.2",
            "::0.255.255.255",
            Unspecified,
            [Loopback, Global],
        ),
        (
            "::ffff:0:0:0",
            "::ffff:0:0.255.255.255",
            Unspecified,
            [Global, Global],
        ),
        (
            "::ffff:0:255.255.255.255",
            "::ffff:0:255.255.255.255",
            Broadcast,
            [Reserved, Global],
        ),
        (
            "64:ff9b::",
            "64:ff9b::0.255.255.255",
            Unspecified,
            [Global, Global],
        ),
        (
            "64:ff9b::255.255.255.255",
            "64:ff9b::255.255.255.255",
            Broadcast,
            [Reserved, Global],
        ),
        (
            "64:ff9b:1::",
            "64:ff9b:1::",
            Unspecified,
            [Global, Unspecified],
        ),
        (
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            Broadcast,
            [Broadcast, Global],
        ),
        (
            "2002::",
            "2002:ff:ffff:ffff:ffff:ffff:ffff:ffff",
            Unspecified,
            [Global, Global],
        ),
        (
            "2002:ffff:ffff::",
            "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Broadcast,
            [Reserved, Global],
        ),
        (
            "100::",
            "100::ffff:ffff:ffff:ffff",
            Reserved,
            [Global, Global],
        ),
        ("2001::", "2001::", Broadcast, [Global, Unspecified]),
        (
            "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
            Unspecified,
            [Unspecified, Global],
        ),
        (
            "2001:2::",
            "2001:2:0:ffff:ffff:ffff:ffff:ffff",
            Reserved,
            [Global, Global],
        ),
        (
            "fc00::",
            "fd00:ec1:ffff:ffff:ffff:ffff:ffff:ffff",
            Private,
            [Global, Metadata],
        ),
        (
            "fd00:ec2::",
            "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff",
            Metadata,
            [Private, Private],
        ),
        (
            "fd00:ec3::",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Private,
            [Metadata, Global],
        ),
        (
            "fe80::",
            "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            LinkLocal,
            [Global, Private],
        ),
        (
            "fec0::",
            "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Private,
            [LinkLocal, Multicast],
        ),
        (
            "ff00::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Multicast,
            [Private, Multicast],
        ),
    ];

    fn bits(address: IpAddr) -> (u128, u128) {
        match address {
            IpAddr::V4(v4) => (v4.to_bits().into(), u32::MAX.into()),
            IpAddr::V6(v6) => (v6.to_bits(), u128::MAX),
        }
    }

    fn of_bits(bits: u128, like: IpAddr) -> AddressClass {
        AddressClass::of(match like {
            IpAddr::V4(_) => Ipv4Addr::from_bits(bits.try_into().unwrap()).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        })
    }

    #[test]
    fn every_range_begins_and_ends_where_its_rfc_says() {
        for (first, last, expected, [before, after]) in RANGES {
            let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(AddressClass::of(first), *expected, "{first}");
            assert_eq!(AddressClass::of(last), *expected, "{last}");
            let ((start, _), (end, max)) = (bits(first), bits(last));
            if start > 0 {
                assert_eq!(of_bits(start - 1, first), *before, "before {first}");
            }
            if end < max {
                assert_eq!(of_bits(end + 1, last), *after, "after {last}");
            }
        }
    }

    #[test]
    fn an_embedded_ipv4_address_counts_as_itself() {
        for (v4, expected) in [
            ("127.0.0.1", Loopback),
            ("169.254.169.254", Metadata),
            ("169.254.1.1", LinkLocal),
            ("10.1.2.3", Private),
            ("100.64.0.1", Shared),
            ("198.18.0.1", Reserved),
            ("224.0.0.1", Multicast),
            ("255.255.255.255", Broadcast),
            ("8.8.8.8", Global),
        ] {
            for prefix in ["::", "::ffff:", "::ffff:0:", "64:ff9b::"] {
                assert_eq!(class(&format!("{prefix}{v4}")), expected, "{prefix}{v4}");
            }
            let bits = v4.parse::<Ipv4Addr>().unwrap().to_bits();
            let (high, low) = (bits >> 16, bits & 0xffff);
            let six_to_four = format!("2002:{high:x}:{low:x}::1");
            assert_eq!(class(&six_to_four), expected, "{six_to_four} holds {v4}");

            let (not_high, not_low) = (high ^ 0xffff, low ^ 0xffff);
            let of_client = format!("2001:0:808:808:0:0:{not_high:x}:{not_low:x}");
            let of_server = format!("2001:0:{high:x}:{low:x}:0:0:f7f7:f7f7");
            for teredo in [of_client, of_server] {
                let (class, local) = (class(&teredo), expected.is_local());
                assert!(class.is_internal(), "{teredo} holds {v4}");
                assert_eq!(class.is_local(), local, "{teredo} holds {v4}");
            }
        }
    }

    #[test]
    fn a_networks_own_nat64_prefix_is_never_global() {
        // 127.0.0.1 behind prefixes of 96, 64, 56 and 48 bits (RFC 6052, 2.2).
        for local in [
            "64:ff9b:1::127.0.0.1",
            "64:ff9b:1:42:7f:0:100:0",
            "64:ff9b:1:427f:0:1::",
            "64:ff9b:1:7f00:0:100::",
        ] {
            assert_eq!(class(local), Loopback, "{local}");
        }
        assert_eq!(class("64:ff9b:1::169.254.169.254"), Metadata);
        for private in ["64:ff9b:1::8.8.8.8", "64:ff9b:1::10.0.0.1"] {
            assert_eq!(class(private), Private, "{private}");
        }
    }

    #[test]
    fn knows_addresses_that_lead_inwards() {
        for inward in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
        ] {
            assert!(class(inward).is_local(), "{inward}");
        }
        for outward in ["10.0.0.1", "192.0.2.1", "2001:db8::1"] {
            assert!(!class(outward).is_local(), "{outward}");
        }
    }

    #[test]
    fn knows_internal_addresses() {
        for internal in [
            "127.0.0.1",
            "169.254.169.254",
            "10.1.2.3",
            "192.168.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "224.0.0.1",
        ] {
            assert!(class(internal).is_internal(), "{internal}");
        }
        for outer in ["8.8.8.8", "100.128.0.1", "2001:db8::1"] {
            assert!(!class(outer).is_internal(), "{outer}");
        }
    }
}
