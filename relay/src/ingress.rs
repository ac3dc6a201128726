//! Connections into an enclave: for each ingress port of its spec a TCP listener on the host, which the operator may choose, and
//! one for relying parties who ask for attestation documents.

use api::Ingress;
use explain::{Code, Explain};
use launch::{Stream, Vsock};
use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::frame::Reader;
use wire::io::{Overflow, Plain as _, SourceLimit, Sources};
use wire::proxy_protocol;
use wire::relay::{OpenReply, OpenRequest, chunk, connection_limit, ingress_limit};
use wire::spec::{IngressSpec, NetworkSpec, Resources};

/// Half of what the agent answers at a time: the daemon's own requests have a place.
const MAX_REQUESTS: usize = 32;
/// One source may have this part of the connections, so that no stranger has them all.
const PER_SOURCE: usize = 4;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// What is held of each direction.
const CHUNK: usize = 16 * 1024;
/// The agent itself waits a few seconds for a service that was just started.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(15 * 60);

/// The listeners of one enclave. Dropping it closes them and cuts every connection.
#[derive(Debug)]
pub struct IngressListeners {
    /// Where the host listens for each port of the enclave.
    pub addresses: Vec<Ingress>,
    /// Where it listens for relying parties.
    pub attestation: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<JoinSet<()>>,
    /// Of listeners before these.
    earlier: OpenConnections,
}

/// Connections whose listeners are closed. Dropping it cuts them.
#[derive(Debug, Default)]
pub struct OpenConnections(Vec<JoinSet<()>>);

impl IngressListeners {
    /// Closes the listeners for certain before it returns: clients are refused from then on, and the addresses are free. What is open
    /// goes on.
    pub async fn close(mut self) -> OpenConnections {
        self.stop.send_replace(true);
        let mut open = self.earlier;
        while let Some(connections) = self.tasks.join_next().await {
            open.0.extend(connections);
        }
        open
    }

    /// Has connections of earlier listeners for as long as its own.
    pub fn keep(&mut self, open: OpenConnections) {
        self.earlier.0.extend(open.0);
    }
}

/// Listens for every port. An address that is taken is an error; without one a free port of 127.0.0.1 is used.
///
/// # Errors
/// The host cannot listen on one of the addresses; then it listens on none.
pub async fn open(
    network: &NetworkSpec,
    resources: Resources,
    vsock: &Vsock,
) -> Result<IngressListeners, ListenError> {
    // All of them first: a task that accepts would hold its address for a moment longer than an error does.
    let (mut bound, mut addresses, mut attestation) = (Vec::new(), Vec::new(), None);
    // Counted together: a stranger does not get more by way of another port.
    let clients = Sources::default();
    for spec in &network.ingress {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = bind(spec.listen.unwrap_or(listen)).await?;
        addresses.push(Ingress {
            port: spec.port,
            address: local(&listener)?,
        });
        bound.push((
            listener,
            ListenerRules::of_port(spec, resources, &clients, vsock),
        ));
    }
    if let Some(listen) = network.attestation {
        let listener = bind(listen).await?;
        attestation = Some(local(&listener)?);
        bound.push((listener, ListenerRules::of_attestation(network, vsock)));
    }
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for (listener, rules) in bound {
        tasks.spawn(accept(listener, rules, stopped.clone()));
    }
    Ok(IngressListeners {
        addresses,
        attestation,
        stop,
        tasks,
        earlier: OpenConnections::default(),
    })
}

/// Where it listens: the system may have chosen.
fn local(listener: &TcpListener) -> Result<SocketAddr, ListenError> {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    listener.local_addr().map_err(|source| ListenError {
        address: unknown,
        source,
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// The host cannot listen where the spec asks it to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl Explain for ListenError {
    fn code(&self) -> Code {
        Code::LaunchFailed
    }

    fn next_step(&self) -> Cow<'_, str> {
        "Choose another 'listen' address in enclave.toml, or leave it out.".into()
    }
}

/// What a listener leads to.
#[derive(Debug, Clone)]
enum Target {
    Port(IngressSpec),
    Attestation,
}

/// A listener's rules.
#[derive(Debug, Clone)]
struct ListenerRules {
    target: Target,
    vsock: Vsock,
    limit: usize,
    sources: Sources,
    per_source: SourceLimit,
}

impl ListenerRules {
    fn of_port(
        spec: &IngressSpec,
        resources: Resources,
        clients: &Sources,
        vsock: &Vsock,
    ) -> ListenerRules {
        let memory = u64::from(resources.memory_mib) << 20;
        let limit = saturating(ingress_limit(connection_limit(memory)));
        ListenerRules {
            target: Target::Port(spec.clone()),
            vsock: vsock.clone(),
            limit,
            sources: clients.clone(),
            per_source: SourceLimit {
                open: spec.per_source.map_or(limit / PER_SOURCE, saturating),
                per_second: None,
            },
        }
    }

    fn of_attestation(network: &NetworkSpec, vsock: &Vsock) -> ListenerRules {
        let own = network.attestation_per_source.map(saturating);
        let open = own.unwrap_or(MAX_REQUESTS / PER_SOURCE);
        ListenerRules {
            target: Target::Attestation,
            vsock: vsock.clone(),
            limit: MAX_REQUESTS,
            sources: Sources::default(),
            per_source: SourceLimit {
                open,
                per_second: u32::try_from(open).ok(),
            },
        }
    }

    /// Handles one client. The client sees a reset unless it is served to its end.
    async fn serve(&self, client: TcpStream) -> io::Result<()> {
        match &self.target {
            Target::Port(spec) => carry(client, spec, &self.vsock).await,
            Target::Attestation => attest(client, &self.vsock).await,
        }
    }
}

fn saturating(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

async fn accept(
    listener: TcpListener,
    rules: ListenerRules,
    mut stop: watch::Receiver<bool>,
) -> JoinSet<()> {
    let limit = rules.limit;
    let handle = move |client: TcpStream| {
        let rules = rules.clone();
        let peer = client.peer_addr();
        let admit = |peer: SocketAddr| {
            let now = Instant::now();
            rules.sources.admit(peer.ip(), rules.per_source, now)
        };
        // A client that is gone already has no address.
        let place = peer.as_ref().ok().and_then(|peer| admit(*peer));
        let admitted = client.reset_on_close().map(|()| place);
        async move {
            let ended = match admitted {
                Ok(Some(_place)) => rules.serve(client).await,
                Ok(None) => Err(io::Error::other(
                    "its source has as many connections as it may",
                )),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::debug!(target = ?rules.target, ?peer, %error, "an ingress connection ended");
            }
        }
    };
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    wire::io::serve_until(stopped, listener, limit, Overflow::Wait, handle).await
}

/// HTTP between a relying party and the agent, as it is: the agent limits what it reads and how long it takes.
async fn attest(mut client: TcpStream, vsock: &Vsock) -> io::Result<()> {
    client.set_nodelay(true)?;
    let exchange = async {
        let mut enclave = vsock.connect(wire::ATTESTATION_PORT).await?;
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut enclave, CHUNK, CHUNK).await
    };
    timeout(REQUEST_TIMEOUT, exchange)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    client.end_on_close()
}

async fn carry(client: TcpStream, spec: &IngressSpec, vsock: &Vsock) -> io::Result<()> {
    client.set_nodelay(true)?;
    let opening = async {
        let (mut enclave, first) = dial(vsock, spec.port).await?;
        if spec.proxy_protocol {
            let header = proxy_protocol::header(client.peer_addr()?, client.local_addr()?);
            enclave.write_all(&chunk(&header)).await?;
        }
        Ok::<_, io::Error>((enclave, first))
    };
    let (enclave, first) = timeout(OPEN_TIMEOUT, opening)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let idle = spec.idle_seconds.map(u64::from).map(Duration::from_secs);
    wire::io::relay(client, enclave, first, idle.unwrap_or(IDLE)).await?;
    Ok(())
}

async fn dial(vsock: &Vsock, port: u16) -> io::Result<(Stream, Vec<u8>)> {
    let mut enclave = vsock.connect(wire::INGRESS_PORT).await?;
    wire::io::write(&mut enclave, &OpenRequest { port }).await?;
    let mut reader = Reader::default();
    match wire::io::read(&mut enclave, &mut reader).await? {
        Some(OpenReply::Opened) => Ok((enclave, reader.into_rest())),
        Some(OpenReply::Refused { why }) => Err(io::Error::other(why)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use tempfile::TempDir;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpSocket, UnixListener, UnixStream};

    /// An agent whose services send back what they get.
    async fn enclave(spec: &str) -> (TempDir, IngressListeners) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move { drop(answer(stream).await) });
            }
        });
        let spec = wire::spec::Spec::parse(&format!("[network]\n{spec}")).unwrap();
        let vsock = Vsock::unix(path);
        let opened = open(&spec.network, spec.resources, &vsock).await;
        (directory, opened.unwrap())
    }

    async fn answer(mut stream: UnixStream) -> io::Result<()> {
        while stream.read_u8().await? != b'\n' {}
        stream.write_all(b"OK 1\n").await?;
        let mut reader = Reader::default();
        let _asked: Option<OpenRequest> = wire::io::read(&mut stream, &mut reader).await?;
        wire::io::write(&mut stream, &OpenReply::Opened).await?;
        let (service, plain) = tokio::io::duplex(1024);
        let (mut from, mut to) = tokio::io::split(service);
        tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        wire::io::relay(plain, stream, reader.into_rest(), IDLE).await?;
        Ok(())
    }

    async fn connect(source: [u8; 4], listeners: &IngressListeners) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        socket.connect(listeners.addresses[0].address).await
    }

    async fn echo(client: &mut TcpStream) -> io::Result<u8> {
        client.write_u8(7).await?;
        client.read_u8().await
    }

    #[tokio::test]
    async fn a_client_is_announced_before_it_speaks() {
        let (_directory, listeners) =
            enclave("ingress = [{ port = 1, proxy_protocol = true }]").await;
        let mut client = connect([127, 0, 0, 2], &listeners).await.unwrap();
        let own = client.local_addr().unwrap();
        assert_eq!(own.ip(), IpAddr::from([127, 0, 0, 2]));
        let expected = proxy_protocol::header(own, listeners.addresses[0].address);
        let mut header = vec![0; expected.len()];
        client.read_exact(&mut header).await.unwrap();
        assert_eq!(header, expected);
        assert_eq!(echo(&mut client).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_source_has_its_part_and_others_have_theirs() {
        let (_directory, listeners) = enclave("ingress = [{ port = 1, per_source = 1 }]").await;
        let mut held = connect([127, 0, 0, 2], &listeners).await.unwrap();
        assert_eq!(echo(&mut held).await.unwrap(), 7);
        let mut second = connect([127, 0, 0, 2], &listeners).await.unwrap();
        let error = second.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut other = connect([127, 0, 0, 3], &listeners).await.unwrap();
        assert_eq!(echo(&mut other).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn closed_listeners_refuse_and_what_is_open_goes_on() {
        let (_directory, listeners) = enclave("ingress = [{ port = 1 }]").await;
        let mut client = connect([127, 0, 0, 1], &listeners).await.unwrap();
        assert_eq!(echo(&mut client).await.unwrap(), 7);
        let address = listeners.addresses[0].address;
        let open = listeners.close().await;
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(echo(&mut client).await.unwrap(), 7);
        drop(open);
        let cut = client.read_u8().await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn one_source_has_a_quarter() {
        let spec = wire::spec::Spec::parse("[network]\ningress = [{ port = 1 }]").unwrap();
        let vsock = Vsock::unix("v".into());
        let clients = Sources::default();
        let rules =
            ListenerRules::of_port(&spec.network.ingress[0], spec.resources, &clients, &vsock);
        assert_eq!((rules.limit, rules.per_source.open), (3072, 768));
        let rules = ListenerRules::of_attestation(&spec.network, &vsock);
        let expected = SourceLimit {
            open: 8,
            per_second: Some(8),
        };
        assert_eq!((rules.limit, rules.per_source), (32, expected));
    }
}
