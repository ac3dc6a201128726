//! The agent's side of the control connection.

use crate::config::BootPayload;
use crate::error::BootError;
use crate::output::Batch;
use crate::parent;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_vsock::{OwnedReadHalf, OwnedWriteHalf};
use wire::control::{FromAgent, FromHost, WorkloadExit, WorkloadHealth};
use wire::frame::Reader;
use wire::kms::{SignRefusal, SignedHeaders};

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the host may take to read the last message.
const FAREWELL: Duration = Duration::from_secs(5);
const STOPPED: &str = "the host stopped the enclave before it booted";
const TWICE: &str = "the host sent Boot twice";
const UNASKED: &str = "the host signed what it was not asked to";
/// The longest words about the workload's health, in characters.
const MAX_HEALTH_DETAIL: usize = 500;

#[derive(Debug)]
pub(crate) enum Report {
    Started(u32),
    Alive,
    Log(Batch),
    Restarted {
        exit: WorkloadExit,
        count: u32,
    },
    Health {
        state: WorkloadHealth,
        detail: String,
    },
    Exited(WorkloadExit),
    Failed(BootError),
}

#[derive(Debug)]
pub(crate) enum Order {
    Stop { deadline: Duration },
}

pub(crate) struct Control {
    input: Option<OwnedReadHalf>,
    output: OwnedWriteHalf,
    reader: Reader,
    /// The host reads no more: further reports are dropped.
    broken: bool,
}

impl Control {
    /// Connects, says hello and waits for the host's `Boot`.
    pub(crate) async fn connect() -> io::Result<(Control, BootPayload)> {
        let connecting = parent::connect(wire::CONTROL_PORT);
        let stream = timeout(TIMEOUT, connecting)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        let (input, output) = stream.into_split();
        let mut control = Control {
            input: Some(input),
            output,
            reader: Reader::default(),
            broken: false,
        };
        let hello = FromAgent::Hello {
            protocol: wire::PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let written = timeout(TIMEOUT, wire::io::write(&mut control.output, &hello)).await;
        written.map_err(|_| io::ErrorKind::TimedOut)??;
        let first = timeout(TIMEOUT, control.next()).await;
        match first.map_err(|_| io::ErrorKind::TimedOut)?? {
            FromHost::Boot { config } => Ok((control, BootPayload { config })),
            FromHost::Stop { .. } => Err(io::Error::other(STOPPED)),
            FromHost::Signed { .. } => Err(io::Error::other(UNASKED)),
        }
    }

    async fn next(&mut self) -> io::Result<FromHost> {
        match &mut self.input {
            Some(input) => {
                let message = wire::io::read(input, &mut self.reader).await?;
                message.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            None => std::future::pending().await,
        }
    }

    /// What the host wants. Cancel-safe.
    pub(crate) async fn order(&mut self) -> io::Result<Order> {
        match self.next().await? {
            FromHost::Stop { deadline_ms } => Ok(Order::Stop {
                deadline: Duration::from_millis(u64::from(deadline_ms)),
            }),
            FromHost::Boot { .. } => Err(io::Error::other(TWICE)),
            FromHost::Signed { .. } => Err(io::Error::other(UNASKED)),
        }
    }

    /// Has the host sign a request to KMS; not once orders are awaited. After an error the
    /// connection is of no use.
    pub(crate) async fn sign(
        &mut self,
        body: Vec<u8>,
    ) -> io::Result<Result<SignedHeaders, SignRefusal>> {
        let exchange = async {
            wire::io::write(&mut self.output, &FromAgent::Sign { body }).await?;
            match self.next().await? {
                FromHost::Signed { answer } => Ok(answer),
                FromHost::Stop { .. } => Err(io::Error::other(STOPPED)),
                FromHost::Boot { .. } => Err(io::Error::other(TWICE)),
            }
        };
        let signed = timeout(TIMEOUT, exchange).await;
        signed.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// No orders are expected any more; [`Control::order`] never returns again.
    pub(crate) fn expect_no_orders(&mut self) {
        self.input = None;
    }

    pub(crate) async fn send(&mut self, report: Report) {
        if self.broken {
            return;
        }
        let message = match report {
            Report::Started(pid) => FromAgent::Started { pid },
            Report::Alive => FromAgent::Alive,
            Report::Log(Batch { dropped, lines }) => FromAgent::Log { dropped, lines },
            Report::Restarted { exit, count } => FromAgent::Restarted { exit, count },
            Report::Health { state, detail } => FromAgent::Health {
                state,
                detail: detail.chars().take(MAX_HEALTH_DETAIL).collect(),
            },
            Report::Exited(status) => FromAgent::Exited { status },
            Report::Failed(BootError { reason, detail }) => FromAgent::Failed {
                reason,
                detail: detail.chars().take(2000).collect(),
            },
        };
        let sent = timeout(TIMEOUT, wire::io::write(&mut self.output, &message)).await;
        self.broken = !matches!(sent, Ok(Ok(())));
    }

    /// Sends the last report and waits until the host has read it: power would cut it off on the
    /// way.
    pub(crate) async fn finish(mut self, last: Report) {
        self.send(last).await;
        if let Some(mut input) = self.input.take() {
            let mut rest = [0; 256];
            let closed = async { while matches!(input.read(&mut rest).await, Ok(n) if n > 0) {} };
            timeout(FAREWELL, closed).await.ok();
        }
    }
}
