//! The few messages of rtnetlink(7) that make links, addresses and routes. Each goes to the kernel
//! over a socket of the namespace that the calling thread is in, and waits for its answer.
//!
//! By hand, since there are four of them: the crates for this are larger than what they would save,
//! and the agent is measured.

use nix::errno::Errno;
use nix::libc::{self, IFA_ADDRESS, IFA_LOCAL, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};
use wire::network::Network;

/// linux/veth.h
const VETH_INFO_PEER: u16 = 1;
/// linux/netlink.h, NLMSG_ALIGNTO and NLA_ALIGNTO
const ALIGN: usize = 4;
/// linux/netlink.h, struct nlmsghdr: in bytes.
const HEADER: usize = 16;
/// Without IFA_F_NODAD the address of a fresh interface cannot be used for a second (RFC 4862,
/// 5.4). Both are linux/if_addr.h's, in a field of one byte.
const IFA_F_NODAD: u8 = 0x02;
const IFA_F_PERMANENT: u8 = 0x80;

/// What a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// A neighbour on the interface.
    Gateway(IpAddr),
    /// This machine: the addresses are its own.
    Local,
}

/// One message, with the kernel's own alignment and byte order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32) -> Message {
        let mut message = Message(vec![0; HEADER]);
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK);
        message.set(4, &kind.to_ne_bytes());
        message.set(6, &flags.unwrap_or_default().to_ne_bytes());
        message
    }

    /// A pair of virtual Ethernet interfaces: `name` here, `peer` in another namespace.
    pub(super) fn veth(name: &str, peer: &str, elsewhere: &impl AsFd) -> Message {
        let fd = elsewhere.as_fd().as_raw_fd();
        let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        message.interface(0, 0);
        message.attribute(IFLA_IFNAME, |m| m.text(name));
        message.attribute(libc::IFLA_LINKINFO, |m| {
            m.attribute(IFLA_INFO_KIND, |m| m.text("veth"));
            m.attribute(IFLA_INFO_DATA, |m| {
                m.attribute(VETH_INFO_PEER, |m| {
                    m.interface(0, 0);
                    m.attribute(IFLA_IFNAME, |m| m.text(peer));
                    m.attribute(libc::IFLA_NET_NS_FD, |m| m.put(&fd.to_ne_bytes()));
                });
            });
        });
        message.finish()
    }

    /// Brings an interface up.
    pub(super) fn up(index: u32) -> Message {
        let up = u32::try_from(libc::IFF_UP).unwrap_or_default();
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.interface(index, up);
        message.finish()
    }

    /// Gives an interface an address, and a route to the network that it is in.
    pub(super) fn address(index: u32, network: Network) -> Message {
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWADDR, create);
        let address = network.address();
        // struct ifaddrmsg: family, prefix length, flags, scope, interface.
        message.put(&[
            family(address),
            network.bits(),
            IFA_F_NODAD | IFA_F_PERMANENT,
            0,
        ]);
        message.put(&index.to_ne_bytes());
        for kind in [IFA_LOCAL, IFA_ADDRESS] {
            message.attribute(kind, |m| m.address_bytes(address));
        }
        message.finish()
    }

    /// A route in the main table.
    pub(super) fn route(index: u32, to: Network, via: Via) -> Message {
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWROUTE, create);
        let (scope, kind) = match via {
            Via::Gateway(_) => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST),
            Via::Local => (libc::RT_SCOPE_HOST, libc::RTN_LOCAL),
        };
        let (length, protocol) = (to.bits(), libc::RTPROT_BOOT);
        // struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope,
        // type, flags.
        message.put(&[family(to.address()), length, 0, 0]);
        message.put(&[libc::RT_TABLE_MAIN, protocol, scope, kind]);
        message.put(&[0; 4]);
        message.attribute(libc::RTA_DST, |m| m.address_bytes(to.address()));
        message.attribute(libc::RTA_OIF, |m| m.put(&index.to_ne_bytes()));
        if let Via::Gateway(gateway) = via {
            message.attribute(libc::RTA_GATEWAY, |m| m.address_bytes(gateway));
        }
        message.finish()
    }

    /// struct ifinfomsg: family, type, index, flags, and which flags change.
    fn interface(&mut self, index: u32, flags: u32) {
        self.put(&[0; 4]);
        for field in [index, flags, flags] {
            self.put(&field.to_ne_bytes());
        }
    }

    /// struct rtattr: length and type, then what `fill` puts.
    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.put(&[0; 2]);
        self.put(&kind.to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.0.len() - start).unwrap_or_default();
        self.set(start, &len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.put(text.as_bytes());
        self.put(&[0]);
    }

    fn address_bytes(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.put(&v4.octets()),
            IpAddr::V6(v6) => self.put(&v6.octets()),
        }
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(target) = self.0.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    fn finish(mut self) -> Message {
        let len = u32::try_from(self.0.len()).unwrap_or_default();
        self.set(0, &len.to_ne_bytes());
        self
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    u8::try_from(family).unwrap_or_default()
}

/// Sends messages one by one to the kernel of this thread's namespace; stops at the first that it
/// refuses.
pub(super) fn apply(messages: &[Message]) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    for Message(bytes) in messages {
        send(socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        let mut answer = [0; 1024];
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        result(answer.get(..len).unwrap_or_default())?;
    }
    Ok(())
}

/// An answer is a header and struct nlmsgerr: a negative errno, or 0.
fn result(answer: &[u8]) -> io::Result<()> {
    let code = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes)
        .ok_or_else(|| io::Error::other("the kernel's answer is too short"))?;
    match code {
        0 => Ok(()),
        code => Err(Errno::from_raw(code.saturating_neg()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::try_from(text.to_owned()).unwrap()
    }

    fn hex(Message(bytes): &Message) -> String {
        hex::encode(bytes)
    }

    /// What `ip -4 route add local 198.18.0.0/15 dev lo table main` sends, by strace, but for its
    /// sequence number.
    #[test]
    fn a_local_route_is_what_iproute2_sends() {
        let message = Message::route(1, network("198.18.0.0/15"), Via::Local);
        let header = "2c0000001800050600000000 00000000".replace(' ', "");
        let route = "020f0000fe03fe0200000000";
        let attributes = "08000100c6120000 0800040001000000".replace(' ', "");
        assert_eq!(hex(&message), format!("{header}{route}{attributes}"));
    }

    #[test]
    fn an_ipv6_route_by_a_gateway_holds_both_addresses_whole() {
        let gateway = Via::Gateway("fd00:18::1".parse().unwrap());
        let message = Message::route(2, network("2001:db8::/32"), gateway);
        let header = "4c00000018000506 0000000000000000".replace(' ', "");
        let route = "0a200000fe03000100000000";
        let to = "1400010020010db8000000000000000000000000";
        let via = "14000500fd000018000000000000000000000001";
        let expected = format!("{header}{route}{to}0800040002000000{via}");
        assert_eq!(hex(&message), expected);
    }

    #[test]
    fn an_address_is_used_at_once_and_for_good() {
        let message = Message::address(3, network("198.18.0.2/30"));
        let header = "2800000014000506 0000000000000000".replace(' ', "");
        let expected = format!("{header}021e8200030000000800 0200c612000208000100c6120002");
        assert_eq!(hex(&message), expected.replace(' ', ""));
    }

    #[test]
    fn lengths_of_nested_attributes_count_what_they_hold() {
        let mut message = Message::new(1, 0);
        message.attribute(2, |m| m.attribute(3, |m| m.text("ab")));
        let nested = "0c000200 07000300 61620000".replace(' ', "");
        assert_eq!(
            hex(&message.finish()),
            format!("1c00000001000500{:016}{nested}", 0)
        );
    }

    #[test]
    fn an_answer_is_an_errno_or_nothing() {
        let answer = |code: i32| [&[0; HEADER][..], &code.to_ne_bytes()].concat();
        assert!(result(&answer(0)).is_ok());
        let error = result(&answer(-libc::EPERM)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(result(&[0; HEADER]).is_err());
    }
}
