//! A fake launcher: enclaves that are tasks of this process. It speaks the agent's side of the
//! wire, and its documents are signed below the kit's own root, so that a whole deploy runs in
//! milliseconds. It isolates nothing.

use api::Finding;
use attestation::{Measurements, Origin, Pcr, TrustAnchor};
use eif_builder::eif::Eif;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use launch::{
    Console, Evidence, Instance, LaunchError, LaunchRequest, Launcher, Launching, Listener,
    Listeners, Machine, MemoryPool, Reservation, Stream, Vsock,
};
use pki::{Plan, bytes, cbor, pcrs, utc};
use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wire::control::{FromAgent, FromHost, WorkloadExit};
use wire::frame::Reader;
use wire::relay::{OpenReply, OpenRequest};
use wire::spec::Resources;

/// What every service of a fake enclave answers.
pub const GREETING: &str = "hello from a fake enclave\n";

/// How an enclave behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conduct {
    #[default]
    Good,
    /// It starts, and says nothing.
    Silent,
    /// It ends after its heartbeat.
    Dies,
    /// Its documents carry another PCR0.
    OtherImage,
    /// Its documents are for another nonce.
    StaleNonce,
    /// It answers with what its workload had made, for the right nonce.
    WorkloadsDocument,
    /// It runs in debug mode if that was not asked for, and not if it was.
    OtherMode,
}

#[derive(Debug)]
pub struct FakeLauncher {
    conduct: Conduct,
    next: Mutex<Option<Conduct>>,
    memory_mib: u64,
    pool: MemoryPool,
    evidence: Evidence,
}

impl FakeLauncher {
    /// On a machine with so much memory for enclaves.
    #[must_use]
    pub fn new(conduct: Conduct, memory_mib: u64) -> FakeLauncher {
        let root = certified().mint().root;
        FakeLauncher {
            conduct,
            next: Mutex::default(),
            memory_mib,
            pool: MemoryPool::default(),
            evidence: Evidence::signed(TrustAnchor::from_der(&root).unwrap()),
        }
    }

    /// Only the next enclave behaves like this.
    pub fn next(&self, conduct: Conduct) {
        self.next.lock().unwrap().replace(conduct);
    }

    async fn start(
        &self,
        request: LaunchRequest<'_>,
        reservation: Reservation,
    ) -> Result<(Instance, Listeners), LaunchError> {
        let conduct = self.next.lock().unwrap().take().unwrap_or(self.conduct);
        let mut measurements = Eif::open(request.eif).unwrap().measure().unwrap();
        if request.debug != (conduct == Conduct::OtherMode) {
            // As the hypervisor does.
            measurements.pcr0 = Pcr::ZERO;
            measurements.pcr1 = Pcr::ZERO;
            measurements.pcr2 = Pcr::ZERO;
        }
        let directory = TempDir::with_prefix_in("e-", request.run_dir).unwrap();
        let path = directory.path().join("v");
        let inward = UnixListener::bind(&path).unwrap();
        let (heartbeat, heartbeats) = line();
        let (control, controls) = line();
        let (egress, egresses) = mpsc::channel(1);
        let agent = FakeAgent {
            conduct,
            measurements,
            inward,
        };
        let task = tokio::spawn(async move {
            agent.live(heartbeat, control).await;
            drop(egress);
        });
        let listeners = Listeners {
            heartbeat: Listener::queue(heartbeats),
            control: Listener::queue(controls),
            egress: Listener::queue(egresses),
        };
        let machine = FakeMachine {
            task,
            _directory: directory,
            _reservation: reservation,
        };
        let instance = Instance::new(Vsock::unix(path), Console::default(), Box::new(machine));
        Ok((instance, listeners))
    }
}

/// The agent's end of a connection, and the queue that brings the other end to the host.
fn line() -> (UnixStream, mpsc::Receiver<Stream>) {
    let (agent, host) = UnixStream::pair().unwrap();
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(Stream::Unix(host)).unwrap();
    (agent, receiver)
}

impl Launcher for FakeLauncher {
    fn preflight(&self) -> Result<Finding, LaunchError> {
        Ok(Finding::passed("launcher", "a fake"))
    }

    fn reserve(&self, resources: Resources) -> Result<Reservation, LaunchError> {
        self.pool.reserve(resources, Some(self.memory_mib))
    }

    fn launch<'a>(&'a self, request: LaunchRequest<'a>, reservation: Reservation) -> Launching<'a> {
        Box::pin(self.start(request, reservation))
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

#[derive(Debug)]
struct FakeMachine {
    task: JoinHandle<()>,
    _directory: TempDir,
    _reservation: Reservation,
}

impl Machine for FakeMachine {
    fn ended(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if !self.task.is_finished() {
                (&mut self.task).await.ok();
            }
        })
    }

    fn kill(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.task.abort() })
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct FakeAgent {
    conduct: Conduct,
    measurements: Measurements,
    inward: UnixListener,
}

impl FakeAgent {
    async fn live(self, mut heartbeat: UnixStream, control: UnixStream) {
        if self.conduct == Conduct::Silent {
            std::future::pending::<()>().await;
        }
        heartbeat.write_u8(wire::HEARTBEAT).await.unwrap();
        assert_eq!(heartbeat.read_u8().await.unwrap(), wire::HEARTBEAT);
        if self.conduct == Conduct::Dies {
            return;
        }
        tokio::select! {
            () = self.serve() => {}
            () = work(control) => {}
        }
    }

    /// Answers what connects in, as vsock-switch hands it over.
    async fn serve(&self) {
        loop {
            let (stream, _) = self.inward.accept().await.unwrap();
            let (conduct, measurements) = (self.conduct, self.measurements);
            tokio::spawn(async move { answer(stream, conduct, measurements).await.ok() });
        }
    }
}

/// The control connection, until the host asks the workload to stop.
async fn work(mut control: UnixStream) {
    let hello = FromAgent::Hello {
        protocol: wire::PROTOCOL_VERSION,
        agent_version: "fake".to_owned(),
    };
    wire::io::write(&mut control, &hello).await.unwrap();
    let mut reader = Reader::default();
    let boot: Option<FromHost> = wire::io::read(&mut control, &mut reader).await.unwrap();
    assert!(matches!(boot, Some(FromHost::Boot { .. })), "{boot:?}");
    wire::io::write(&mut control, &FromAgent::Started { pid: 1 })
        .await
        .unwrap();
    let stop: Option<FromHost> = wire::io::read(&mut control, &mut reader).await.unwrap();
    if let Some(FromHost::Stop { .. }) = stop {
        let exited = FromAgent::Exited {
            status: WorkloadExit::Code(0),
        };
        wire::io::write(&mut control, &exited).await.unwrap();
    }
}

async fn answer(
    mut stream: UnixStream,
    conduct: Conduct,
    measurements: Measurements,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await?);
    }
    stream.write_all(b"OK 1\n").await?;
    if line == format!("CONNECT {}\n", wire::ATTESTATION_PORT.0).as_bytes() {
        attest(stream, conduct, measurements).await;
        return Ok(());
    }
    let open: Option<OpenRequest> = wire::io::read(&mut stream, &mut Reader::default())
        .await
        .unwrap();
    assert!(open.is_some());
    wire::io::write(&mut stream, &OpenReply::Opened)
        .await
        .unwrap();
    let (mut service, plain) = tokio::io::duplex(1024);
    service.write_all(GREETING.as_bytes()).await?;
    drop(service);
    wire::io::relay(
        plain,
        BufReader::new(stream),
        Vec::new(),
        Duration::from_secs(5),
    )
    .await?;
    Ok(())
}

async fn attest(stream: UnixStream, conduct: Conduct, measurements: Measurements) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        let query = request.uri().query().unwrap_or_default();
        let nonce = hex::decode(query.trim_start_matches("nonce=")).unwrap();
        let document = document(&measurements, &nonce, conduct).document;
        Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(document))))
    });
    let http = hyper::server::conn::http1::Builder::new();
    http.serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// The kit's chain, valid for decades.
fn certified() -> Plan {
    let mut plan = Plan::default();
    for certificate in &mut plan.certificates {
        certificate.validity = ["191028132805Z", "491028142805Z"].map(utc);
    }
    plan
}

/// A document made now, below the kit's root, over what was measured.
fn document(measurements: &Measurements, nonce: &[u8], conduct: Conduct) -> pki::Minted {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let registers: Vec<(u64, Vec<u8>)> = [measurements.pcr0, measurements.pcr1, measurements.pcr2]
        .iter()
        .enumerate()
        .map(|(index, pcr)| (index as u64, pcr.as_bytes().to_vec()))
        .map(|(index, pcr)| match conduct {
            Conduct::OtherImage if index == 0 => (index, vec![7; 48]),
            _ => (index, pcr),
        })
        .collect();
    let nonce = if conduct == Conduct::StaleNonce {
        b"from yesterday"
    } else {
        nonce
    };
    let mut plan = certified();
    plan.set("timestamp", cbor(|e| e.u64(since.as_millis() as u64)));
    plan.set("pcrs", pcrs(&registers));
    plan.set("nonce", bytes(nonce));
    let origin = if conduct == Conduct::WorkloadsDocument {
        Origin::Workload
    } else {
        Origin::Endpoint
    };
    plan.set("user_data", bytes(&origin.user_data(b"")));
    plan.mint()
}

/// A kernel and an agent that a build takes, and that nothing could run.
pub fn artifacts(directory: &Path) -> [String; 2] {
    let (kernel, agent) = (directory.join("bzImage"), directory.join("enclave-agent"));
    std::fs::write(&kernel, vec![0; 4096]).unwrap();
    // A 64-bit x86 ELF header without segments.
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(64, 0);
    elf[18] = 62;
    std::fs::write(&agent, elf).unwrap();
    [kernel, agent].map(|path| path.display().to_string())
}
