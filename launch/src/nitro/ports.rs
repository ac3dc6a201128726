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
/// How many wait at once, for all CIDs, and of one: none can push out those of many others.
const MAX_PARKED: usize = 64;
const MAX_PARKED_OF_ONE: usize = 4;
/// No enclave has a lower CID (ne_misc_dev.c, NE_START_ENCLAVE): 3 is the parent itself.
const FIRST_CID: u32 = 4;
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

#[cfg(test)]
impl Ports {
    /// It knows no enclave.
    pub(super) fn is_idle(&self) -> bool {
        self.routes.table().enclaves.is_empty()
    }

    pub(super) fn parked(&self) -> usize {
        self.routes.table().parked.len()
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
        let of_one = self.parked.iter().filter(|parked| parked.cid == cid);
        if cid < FIRST_CID || of_one.count() == MAX_PARKED_OF_ONE {
            return;
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

#[cfg(test)]
mod tests {
    use super::super::fake::{Dialler, port};
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;
    use wire::io::Accept as _;

    struct Ends {
        heartbeat: Dialler,
        control: Dialler,
        egress: Dialler,
    }

    fn ports() -> (Ports, Ends) {
        let [
            (heartbeats, heartbeat),
            (controls, control),
            (egresses, egress),
        ] = [port(), port(), port()];
        let ends = Ends {
            heartbeat,
            control,
            egress,
        };
        (Ports::accepting(heartbeats, controls, egresses), ends)
    }

    /// The host's end of this connection was dropped.
    async fn is_closed(mut stream: UnixStream) {
        let end = timeout(Duration::from_secs(60), stream.read(&mut [0])).await;
        assert_eq!(end.unwrap().unwrap(), 0);
    }

    /// That the next connection is this one.
    async fn brings(listener: &Listener, mut near: UnixStream) {
        let mut far = listener.next().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut near, b"x")
            .await
            .unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn connections_go_to_the_enclave_that_has_the_cid() {
        let (ports, ends) = ports();
        let (first, _registered) = ports.register(16, Instant::now());
        let (second, _registered) = ports.register(17, Instant::now());
        let of_second = ends.control.connect(17).await;
        let of_first = ends.control.connect(16).await;
        brings(&first.control, of_first).await;
        brings(&second.control, of_second).await;
        let of_first = ends.egress.connect(16).await;
        brings(&first.egress, of_first).await;
    }

    #[tokio::test]
    async fn an_enclave_has_one_heartbeat() {
        let (ports, ends) = ports();
        let (listeners, _registered) = ports.register(16, Instant::now());
        let stranger = ends.heartbeat.connect(17).await;
        let own = ends.heartbeat.connect(16).await;
        is_closed(ends.heartbeat.connect(16).await).await;
        brings(&listeners.heartbeat, own).await;
        assert_eq!(ports.parked(), 1);
        drop(stranger);
    }

    #[tokio::test]
    async fn what_is_too_much_is_closed() {
        let (ports, ends) = ports();
        let (listeners, registered) = ports.register(16, Instant::now());
        let mut waiting = Vec::new();
        for _ in 0..EGRESS_QUEUE {
            waiting.push(ends.egress.connect(16).await);
        }
        is_closed(ends.egress.connect(16).await).await;
        brings(&listeners.egress, waiting.remove(0)).await;
        // There is room for one again.
        waiting.push(ends.egress.connect(16).await);
        brings(&listeners.egress, waiting.remove(0)).await;
        // And an enclave that takes none any more has them closed.
        drop(listeners);
        is_closed(ends.control.connect(16).await).await;
        drop(registered);
        assert!(ports.is_idle());
    }

    #[tokio::test]
    async fn nothing_of_an_earlier_enclave_reaches_the_next_one_with_its_cid() {
        let (ports, ends) = ports();
        let (_listeners, registered) = ports.register(16, Instant::now());
        drop(registered);
        let late = ends.heartbeat.connect(16).await;
        while ports.parked() == 0 {
            tokio::task::yield_now().await;
        }
        let (listeners, _registered) = ports.register(16, Instant::now());
        is_closed(late).await;
        let own = ends.heartbeat.connect(16).await;
        brings(&listeners.heartbeat, own).await;
    }

    #[tokio::test]
    async fn an_old_registration_does_not_take_the_new_ones_place() {
        let (ports, ends) = ports();
        let (_listeners, old) = ports.register(16, Instant::now());
        let (listeners, _new) = ports.register(16, Instant::now());
        drop(old);
        let own = ends.control.connect(16).await;
        brings(&listeners.control, own).await;
    }

    #[tokio::test]
    async fn one_stranger_cannot_push_out_the_others() {
        let (ports, ends) = ports();
        let mut waiting = Vec::new();
        for _ in 0..MAX_PARKED_OF_ONE {
            waiting.push(ends.egress.connect(200).await);
        }
        is_closed(ends.egress.connect(200).await).await;
        waiting.push(ends.egress.connect(201).await);
        for cid in 0..FIRST_CID {
            is_closed(ends.egress.connect(cid).await).await;
        }
        assert_eq!(ports.parked(), MAX_PARKED_OF_ONE + 1);
    }

    #[tokio::test]
    async fn strangers_wait_in_a_bounded_number_and_for_a_bounded_time() {
        let (ports, ends) = ports();
        let oldest = ends.egress.connect(100).await;
        let mut others = Vec::new();
        for cid in (200..).take(MAX_PARKED) {
            others.push(ends.egress.connect(cid).await);
        }
        is_closed(oldest).await;
        assert_eq!(ports.parked(), MAX_PARKED);
        let mut table = ports.routes.table();
        table.expire(Instant::now());
        assert_eq!(table.parked.len(), MAX_PARKED);
        table.expire(Instant::now() + PARKED_FOR);
        assert_eq!(table.parked.len(), 0);
    }
}
