//! The link between the workload's network namespace and the agent's: one pair of interfaces, and
//! routes for what the measured spec lets out. To the workload's kernel every other address is
//! unreachable; the agent's kernel takes the routed ones for its own and ends their connections
//! here ("AnyIP", `ip route add local`). No packet goes further: the agent's namespace has no other
//! interface and does not forward.

use super::namespace::Namespace;
use super::netlink::{self, Message, Via};
use nix::net::if_::if_nametoindex;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::network::{INSIDE, Network};
use wire::spec::{Hosts, NetworkRules};

/// The agent's end, where names are asked for.
pub(super) const AGENT_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const AGENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 2);
const WORKLOAD_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const WORKLOAD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 3);
/// Networks of two hosts: a third address on the link would be looked for in vain, for seconds.
const LINK_V4: u8 = 30;
const LINK_V6: u8 = 127;
/// What programs expect of a container.
const ETH0: &str = "eth0";
const PEER: &str = "workload";
const LOOPBACK: &str = "lo";

/// Settings of a namespace, below `/proc/sys/net`. IPv6 addresses are ours alone: no router
/// advertises any, there is no second of waiting for duplicates, and none are of the link alone.
const IPV6: [(&str, &str); 4] = [
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
];
/// A hundred thousand short connections to one address run out of ports if each waits a minute.
const WORKLOAD: [(&str, &str); 1] = [("ipv4/tcp_tw_reuse", "1")];
/// Every refusal is heard, not one a second; and an address that stands for a name is no host that
/// could be pinged.
const AGENT: [(&str, &str); 4] = [
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv4/icmp_echo_ignore_all", "1"),
    ("ipv6/icmp/ratelimit", "0"),
    ("ipv6/icmp/echo_ignore_all", "1"),
];

/// Connects both namespaces. The calling thread is in the agent's.
pub(super) fn connect(workload: &Namespace, rules: &NetworkRules) -> io::Result<()> {
    let networks = routed(rules);
    configure(&IPV6)?;
    configure(&AGENT)?;
    workload.within(|| configure(&IPV6).and_then(|()| configure(&WORKLOAD)))??;
    netlink::apply(&[Message::veth(PEER, ETH0, workload)])?;
    set_up(PEER, AGENT_V4.into(), AGENT_V6.into())?;
    workload.within(|| {
        set_up(ETH0, WORKLOAD_V4.into(), WORKLOAD_V6.into())?;
        route(ETH0, &networks, |to| {
            Via::Gateway(match to.address() {
                IpAddr::V4(_) => AGENT_V4.into(),
                IpAddr::V6(_) => AGENT_V6.into(),
            })
        })
    })??;
    // In the main table, not the local one, which is searched first: there `::/0` would win over
    // the link's own route, and no answer would find back.
    route(LOOPBACK, &networks, |_| Via::Local)
}

/// What is routed to the agent: the addresses that stand for names, and the networks of the rules
/// that can be reached over a link at all.
fn routed(rules: &NetworkRules) -> Vec<Network> {
    let mut networks = INSIDE.to_vec();
    for rule in &rules.egress {
        if let Hosts::Network(network) = rule.hosts
            && !networks.contains(&network)
            && crosses_a_link(network.address())
        {
            networks.push(network);
        }
    }
    networks
}

/// Loopback stays in the workload's own namespace, whatever a rule says; `forward` leads there.
fn crosses_a_link(first: IpAddr) -> bool {
    !first.is_loopback() && !first.is_multicast()
}

fn set_up(interface: &str, v4: IpAddr, v6: IpAddr) -> io::Result<()> {
    let index = if_nametoindex(interface)?;
    netlink::apply(&[
        Message::address(
            index,
            Network::new(v4, LINK_V4).ok_or(io::ErrorKind::InvalidInput)?,
        ),
        Message::address(
            index,
            Network::new(v6, LINK_V6).ok_or(io::ErrorKind::InvalidInput)?,
        ),
        Message::up(index),
    ])
}

fn route(interface: &str, networks: &[Network], via: impl Fn(&Network) -> Via) -> io::Result<()> {
    let index = if_nametoindex(interface)?;
    let routes: Vec<Message> = networks
        .iter()
        .map(|network| Message::route(index, *network, via(network)))
        .collect();
    netlink::apply(&routes)
}

fn configure(settings: &[(&str, &str)]) -> io::Result<()> {
    settings.iter().try_for_each(|(name, value)| {
        fs::write(format!("/proc/sys/net/{name}"), value)
            .map_err(|e| io::Error::new(e.kind(), format!("the setting {name}: {e}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use wire::spec::EgressRule;

    fn rules(texts: &[&str]) -> NetworkRules {
        let egress = texts.iter().map(|text| EgressRule::parse(text).unwrap());
        NetworkRules {
            egress: egress.collect(),
            ..NetworkRules::default()
        }
    }

    #[test]
    fn routes_what_rules_name_once_and_nothing_that_never_leaves_a_machine() {
        let routed = routed(&rules(&[
            "a.example:1",
            "10.0.0.0/8:1",
            "10.0.0.0/8:2",
            "127.0.0.1:1",
            "[::1]:1",
            "224.0.0.0/4:1",
            "[2001:db8::/32]:1",
        ]));
        let texts: Vec<String> = routed.into_iter().map(String::from).collect();
        let expected = [
            "198.18.0.0/15",
            "fd00:18::/32",
            "10.0.0.0/8",
            "2001:db8::/32",
        ];
        assert_eq!(texts, expected);
    }

    /// A gateway's namespace that listens on port 443, and a workload's that is linked to it.
    /// `None` without root: namespaces need it.
    fn linked(texts: &[&str]) -> Option<(Namespace, TcpListener)> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let (agent, workload) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let rules = rules(texts);
        let connected = agent.within(|| connect(&workload, &rules)).unwrap();
        connected.unwrap();
        let listener = agent.within(|| TcpListener::bind("[::]:443")).unwrap();
        Some((workload, listener.unwrap()))
    }

    #[test]
    fn a_dialled_address_arrives_as_it_was_dialled() {
        let rules = [
            "a.example:443",
            "8.8.8.0/24:443",
            "0.0.0.0/0:443",
            "[::/0]:443",
        ];
        let Some((workload, listener)) = linked(&rules) else {
            return;
        };
        for address in [
            "198.18.1.0:443",
            "8.8.8.8:443",
            "10.1.2.3:443",
            "[fd00:18:0:1::100]:443",
            "[2001:db8::77]:443",
        ] {
            let dialled: SocketAddr = address.parse().unwrap();
            let client = workload.within(|| TcpStream::connect(dialled)).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let own = accepted.local_addr().unwrap();
            let arrived = SocketAddr::new(own.ip().to_canonical(), own.port());
            assert_eq!(arrived, dialled);
            drop(client.unwrap());
        }
    }

    #[test]
    fn what_no_rule_names_is_refused_at_once() {
        let Some((workload, _listener)) = linked(&["a.example:443", "10.0.0.0/8:443"]) else {
            return;
        };
        let dial = |text: &str| {
            let address: SocketAddr = text.parse().unwrap();
            workload
                .within(|| TcpStream::connect(address))
                .unwrap()
                .unwrap_err()
                .kind()
        };
        for port in [
            "198.18.1.0:80",
            "198.18.0.1:22",
            "10.1.1.1:80",
            "[fd00:18:0:1::100]:80",
        ] {
            assert_eq!(dial(port), io::ErrorKind::ConnectionRefused, "{port}");
        }
        for address in ["8.8.8.8:443", "169.254.169.254:80", "[2001:db8::1]:443"] {
            assert_eq!(
                dial(address),
                io::ErrorKind::NetworkUnreachable,
                "{address}"
            );
        }
        let datagram = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect("198.18.1.0:443")?;
            socket.send(b"x")?;
            socket.recv(&mut [0])
        };
        // More than the kernel's usual six in a row.
        for _ in 0..20 {
            let error = workload.within(datagram).unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
