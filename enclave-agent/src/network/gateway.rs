//! Ends the workload's TCP connections, whatever address they dial, and opens a stream to the host
//! for those that the measured spec allows.
//!
//! One listener for each port of the egress list, in the agent's namespace: the routes of
//! [`super::link`] bring every dialled address to it, and the accepted socket's own address is the
//! dialled one. To a port without a rule no one listens: the kernel refuses it.

use super::link::AGENT_V4;
use super::names::{self, Names};
use super::refusals::Refusals;
use crate::capacity::Capacity;
use crate::egress::{self, ConnectError};
use crate::listen;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wire::io::Plain as _;
use wire::network::INSIDE;
use wire::spec::{Destination, NetworkRules};

/// Connections of a port that wait to be accepted; the kernel's own limit (net.core.somaxconn).
const BACKLOG: u32 = 4096;

struct Gateway {
    rules: NetworkRules,
    names: Arc<Names>,
    refusals: Arc<Refusals>,
    capacity: Capacity,
}

/// Listens in the background. Must be called in the agent's own namespace.
pub(super) fn serve(
    rules: &NetworkRules,
    names: Arc<Names>,
    refusals: Arc<Refusals>,
    capacity: Capacity,
) -> io::Result<()> {
    let ports: BTreeSet<u16> = rules.egress.iter().map(|rule| rule.port).collect();
    let gateway = Arc::new(Gateway {
        rules: rules.clone(),
        names,
        refusals,
        capacity,
    });
    for port in ports
        .into_iter()
        .chain([names::PORT])
        .collect::<BTreeSet<u16>>()
    {
        let gateway = gateway.clone();
        listen::spawn(bind(port)?, gateway.capacity.limit(), move |inside| {
            let gateway = gateway.clone();
            async move { gateway.carry(inside).await }
        });
    }
    Ok(())
}

/// For both families: an IPv4 address is embedded in an IPv6 one then (RFC 3493, 3.7).
fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    socket.listen(BACKLOG)
}

impl Gateway {
    async fn carry(&self, inside: TcpStream) {
        let Ok(dialled) = inside.local_addr() else {
            return;
        };
        let (address, port) = (dialled.ip().to_canonical(), dialled.port());
        if (address, port) == (AGENT_V4.into(), names::PORT) {
            // How a conversation ends concerns the client only.
            self.names.converse(inside).await.ok();
            return;
        }
        if let Err(Some(why)) = self.relay(inside, address, port).await {
            self.refusals.note(&why);
        }
    }

    /// Ends with the reason if there was no stream, and without one if it broke. The program sees
    /// either as a reset: it must not take a failure for the end of what it reads.
    async fn relay(
        &self,
        inside: TcpStream,
        address: IpAddr,
        port: u16,
    ) -> Result<(), Option<String>> {
        inside.reset_on_close().map_err(|_| None)?;
        let Some(host) = self.host(address) else {
            return Err(Some(format!("no name stands behind {address}")));
        };
        let to = Destination { host, port };
        if !self.rules.allows(&to.host, to.port) {
            return Err(Some(format!("network.egress does not allow {to}")));
        }
        let Some(place) = self.capacity.take() else {
            let limit = self.capacity.limit();
            return Err(Some(format!("{to}: {limit} connections are open")));
        };
        let opened = egress::open(&to, Some(place.window)).await;
        let (host, first) = opened.map_err(|error| match error {
            ConnectError::Refused(why) => Some(format!("{to}: {why}")),
            ConnectError::Io(error) => Some(format!("{to}: {error}")),
        })?;
        let relayed = place.relay(inside, host, first, egress::IDLE).await;
        relayed.map_err(|_| None)
    }

    /// What a dialled address stands for: a name, or itself.
    fn host(&self, address: IpAddr) -> Option<String> {
        if INSIDE.iter().any(|network| network.contains(address)) {
            return self.names.name_of(address);
        }
        Some(address.to_string())
    }
}
