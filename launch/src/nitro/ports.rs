//! The ports that enclaves connect out to: one listener each for heartbeat, control and egress, for
//! all enclaves of this machine. A connection belongs to the enclave that has its CID, which the
//! hypervisor vouches for. A connection that came before its enclave's CID was known waits a
//! moment; one that belongs to none is closed.

use crate::error::LaunchError;
use crate::vsock::{Listener, Listeners, Stream};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use wire::Port;

/// The agent makes one connection for each of its workload's; more wait in the agent.
const EGRESS_QUEUE: usize = 64;
/// The agent makes one, and another if the first one breaks.
const CONTROL_QUEUE: usize = 2;
/// How long a connection waits for its enclave's CID: the driver returns it within milliseconds.
const PARKED_FOR: Duration = Duration::from_secs(10);
/// How many wait at once, for all CIDs.
const MAX_PARKED: usize = 64;
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Something that accepts connections, and tells the CID that each is from.
pub(super) trait Source: Send + Sync + 'static {
    /// Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Stream, u32)>> + Send;
}

impl Source for VsockListener {
    async fn accept(&self) -> io::Result<(Stream, u32)> {
        let (stream, address) = VsockListener::accept(self).await?;
        Ok((Stream::Vsock(stream), address.cid()))
    }
}

/// The three listeners. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Ports {
    routes: Routes,
    _accepting: JoinSet<()>,
}

/// An enclave's place among the routes. Dropping it closes what comes later from its CID.
#[derive(Debug)]
pub(super) struct Registration {
    routes: Routes,
    cid: u32,
    number: u64,
}

#[derive(Debug, Clone, Default)]
struct Routes(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    enclaves: HashMap<u32, Route>,
    parked: VecDeque<Parked>,
}

/// The queues of one enclave.
#[derive(Debug)]
struct Route {
    number: u64,
    /// Taken by the first connection.
    heartbeat: Option<mpsc::Sender<Stream>>,
    control: mpsc::Sender<Stream>,
    egress: mpsc::Sender<Stream>,
}

#[derive(Debug)]
struct Parked {
    cid: u32,
    kind: Kind,
    since: Instant,
    stream: Stream,
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Heartbeat,
    Control,
    Egress,
}

impl Ports {
    /// Listens on AF_VSOCK, at any CID of this machine. To be called inside of a tokio runtime.
    ///
    /// # Errors
    /// [`LaunchError::Port`], if another program has a port: nitro-cli has 9000 while it starts an
    /// enclave.
    pub(super) fn bind() -> Result<Ports, LaunchError> {
        let bind = |port: Port| {
            let bound = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port.0));
            bound.map_err(|source| LaunchError::Port {
                port: port.0,
                source,
            })
        };
        Ok(Ports::accepting(
            bind(wire::HEARTBEAT_PORT)?,
            bind(wire::CONTROL_PORT)?,
            bind(wire::EGRESS_PORT)?,
        ))
    }

    /// Accepts what comes, in the background.
    pub(super) fn accepting(
        heartbeat: impl Source,
        control: impl Source,
        egress: impl Source,
    ) -> Ports {
        let routes = Routes::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(heartbeat, Kind::Heartbeat, routes.clone()));
        accepting.spawn(accept(control, Kind::Control, routes.clone()));
        accepting.spawn(accept(egress, Kind::Egress, routes.clone()));
        Ports {
            routes,
            _accepting: accepting,
        }
    }

    /// From now on connections from this CID are an enclave's, and those that came since `started`.
    pub(super) fn register(&self, cid: u32, started: Instant) -> (Listeners, Registration) {
        let (heartbeat, heartbeats) = mpsc::channel(1);
        let (control, controls) = mpsc::channel(CONTROL_QUEUE);
        let (egress, egresses) = mpsc::channel(EGRESS_QUEUE);
        let mut table = self.routes.table();
        let number = table.next;
        table.next += 1;
        let route = Route {
            number,
            heartbeat: Some(heartbeat),
            control,
            egress,
        };
        table.enclaves.insert(cid, route);
        table.unpark(cid, started);
        let listeners = Listeners {
            heartbeat: Listener::queue(heartbeats),
            control: Listener::queue(controls),
            egress: Listener::queue(egresses),
        };
        let registration = Registration {
            routes: self.routes.clone(),
            cid,
            number,
        };
        (listeners, registration)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = self.routes.table();
        let is_own = |route: &Route| route.number == self.number;
        if table.enclaves.get(&self.cid).is_some_and(is_own) {
            table.enclaves.remove(&self.cid);
        }
    }
}

impl Routes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(source: impl Source, kind: Kind, routes: Routes) {
    loop {
        match timeout(PARKED_FOR, source.accept()).await {
            Ok(Ok((stream, cid))) => routes.table().deliver(cid, kind, stream),
            Ok(Err(error)) => {
                tracing::warn!(?kind, %error, "a connection from an enclave was not accepted");
                sleep(AFTER_ERROR).await;
            }
            // Nothing comes: time to close what has waited too long.
            Err(_) => routes.table().expire(Instant::now()),
        }
    }
}

impl Table {
    fn deliver(&mut self, cid: u32, kind: Kind, stream: Stream) {
        let now = Instant::now();
        self.expire(now);
        if let Some(route) = self.enclaves.get_mut(&cid) {
            return route.deliver(kind, stream);
        }
        if self.parked.len() == MAX_PARKED {
            self.parked.pop_front();
        }
        self.parked.push_back(Parked {
            cid,
            kind,
            since: now,
            stream,
        });
    }

    fn expire(&mut self, now: Instant) {
        self.parked
            .retain(|parked| now.duration_since(parked.since) < PARKED_FOR);
    }

    /// Hands over what waited for this enclave. What is older than the enclave is closed: it is
    /// from another one that had this CID before.
    fn unpark(&mut self, cid: u32, started: Instant) {
        let (own, others) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked: &Parked| parked.cid == cid);
        self.parked = others;
        let own: VecDeque<Parked> = own;
        for parked in own.into_iter().filter(|parked| parked.since >= started) {
            self.deliver(cid, parked.kind, parked.stream);
        }
    }
}

impl Route {
    /// A connection that finds its queue full, or its enclave gone, is closed.
    fn deliver(&mut self, kind: Kind, stream: Stream) {
        let queue = match kind {
            Kind::Heartbeat => self.heartbeat.take(),
            Kind::Control => Some(self.control.clone()),
            Kind::Egress => Some(self.egress.clone()),
        };
        if queue.is_none_or(|queue| queue.try_send(stream).is_err()) {
            tracing::debug!(?kind, "a connection from an enclave was closed");
        }
    }
}
