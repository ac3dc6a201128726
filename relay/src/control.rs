//! The host's side of the control connection (port 9001).

use api::WorkloadRecord;
use launch::{Listener, Logs};
use secrets::Signer;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use wire::control::{AbortReason, FromAgent, FromHost, WorkloadExit};
use wire::frame::Reader;
use wire::io::Accept as _;
use wire::kms::SignRefusal;

const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// An agent that runs its workload speaks twice a second; before that, mounting and starting take less than this.
const SILENCE: Duration = Duration::from_secs(60);
const QUEUE: usize = 16;
/// Longest text of an enclave that is shown, in characters.
const MAX_DETAIL: usize = 500;

/// What an enclave reports of its life. Its claims, not facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The workload runs.
    Started,
    /// It ended, and the enclave with it.
    Exited(WorkloadExit),
    /// The agent gave up before the workload ran, or could not go on.
    Failed {
        /// Which of its steps failed.
        reason: AbortReason,
        /// In the agent's words, at most 500 characters.
        detail: String,
    },
    /// The connection ended without a last word, or said something that makes no sense.
    Lost(String),
}

/// The connection to an agent that said hello. Dropping it hangs up.
#[derive(Debug)]
pub struct Control {
    orders: mpsc::Sender<FromHost>,
    reports: mpsc::Receiver<Report>,
    workload: watch::Receiver<WorkloadRecord>,
    /// The last report was given out.
    ended: bool,
}

impl Control {
    /// Waits for the agent, checks that it speaks this protocol, and lets it boot with what `boot` brings. Until the workload is started
    /// the signer signs for it.
    ///
    /// # Errors
    /// No agent connects in time, the connection ends, or it speaks another protocol.
    pub async fn accept(
        listener: &Listener,
        boot: FromHost,
        signer: Option<Signer>,
        logs: Logs,
    ) -> io::Result<Control> {
        let mut stream = timeout(HELLO_TIMEOUT, listener.next())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        let mut reader = Reader::default();
        let hello = timeout(HELLO_TIMEOUT, wire::io::read(&mut stream, &mut reader)).await;
        match hello.map_err(|_| io::ErrorKind::TimedOut)?? {
            Some(FromAgent::Hello {
                protocol: wire::PROTOCOL_VERSION,
                ..
            }) => {}
            Some(FromAgent::Hello { protocol, .. }) => {
                let message = format!(
                    "the agent speaks protocol {protocol}, this host {}",
                    wire::PROTOCOL_VERSION
                );
                return Err(io::Error::other(message));
            }
            _ => return Err(io::Error::other("the agent did not say hello")),
        }
        let written = timeout(WRITE_TIMEOUT, wire::io::write(&mut stream, &boot)).await;
        written.map_err(|_| io::ErrorKind::TimedOut)??;
        let (orders, taken) = mpsc::channel(QUEUE);
        let (sender, reports) = mpsc::channel(QUEUE);
        let (known, workload) = watch::channel(WorkloadRecord::default());
        tokio::spawn(async move {
            if let Some(last) =
                converse(stream, reader, signer, (&logs, &known), taken, &sender).await
            {
                sender.send(last).await.ok();
            }
        });
        Ok(Control {
            orders,
            reports,
            workload,
            ended: false,
        })
    }

    /// The next report; after the last one this never returns. Cancelling is safe.
    pub async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => {
                self.ended = report != Report::Started;
                report
            }
            None => std::future::pending().await,
        }
    }

    /// What the agent says of its workload, up to its last report.
    pub fn workload(&self) -> watch::Receiver<WorkloadRecord> {
        self.workload.clone()
    }

    /// Asks the workload to end within `deadline`, waits for the agent's last word, and hangs up: that is what the agent
    /// waits for before it powers off.
    pub async fn stop(mut self, deadline: Duration) {
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        if !self.ended
            && self
                .orders
                .send(FromHost::Stop { deadline_ms })
                .await
                .is_ok()
        {
            let last = async { while !self.ended && self.report().await == Report::Started {} };
            timeout(deadline + WRITE_TIMEOUT, last).await.ok();
        }
    }
}

/// Reads and answers until the last word, which it gives; `None` once nothing listens to it.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut reader: Reader,
    mut signer: Option<Signer>,
    (logs, workload): (&Logs, &watch::Sender<WorkloadRecord>),
    mut orders: mpsc::Receiver<FromHost>,
    reports: &mpsc::Sender<Report>,
) -> Option<Report> {
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            message = wire::io::read(&mut stream, &mut reader) => message,
            order = orders.recv() => match say(&mut stream, &order?).await {
                Ok(()) => continue,
                Err(error) => return Some(Report::Lost(format!("the control connection: {error}"))),
            },
            () = sleep_until(heard + SILENCE) => {
                return Some(Report::Lost(format!("it was silent for {} seconds", SILENCE.as_secs())));
            }
        };
        heard = Instant::now();
        if let Ok(Some(message)) = &message {
            workload.send_if_modified(|record| record.note(message));
        }
        match message {
            Ok(Some(FromAgent::Alive | FromAgent::Restarted { .. } | FromAgent::Health { .. })) => {
            }
            Ok(Some(FromAgent::Started { .. })) => {
                signer = None;
                reports.send(Report::Started).await.ok()?;
            }
            Ok(Some(FromAgent::Sign { body })) => {
                let answer = match &mut signer {
                    Some(signer) => signer.sign(&body).await,
                    None => Err(SignRefusal::NotAsked),
                };
                if let Err(error) = say(&mut stream, &FromHost::Signed { answer }).await {
                    return Some(Report::Lost(format!("the control connection: {error}")));
                }
            }
            Ok(Some(FromAgent::Log { dropped, lines })) => logs.add(dropped, lines),
            Ok(Some(FromAgent::Exited { status })) => return Some(Report::Exited(status)),
            Ok(Some(FromAgent::Failed { reason, detail })) => {
                let detail = detail
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(MAX_DETAIL)
                    .collect();
                return Some(Report::Failed { reason, detail });
            }
            Ok(Some(FromAgent::Hello { .. })) => {
                return Some(Report::Lost("the agent said hello twice".to_owned()));
            }
            Ok(None) => {
                return Some(Report::Lost(
                    "the enclave closed the control connection".to_owned(),
                ));
            }
            Err(error) => return Some(Report::Lost(format!("the control connection: {error}"))),
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), message: &FromHost) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, wire::io::write(stream, message))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: FromHost = FromHost::Boot { config: None };
    use api::{ExitRecord, LogEntry, LogStream};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{UnixListener, UnixStream};
    use wire::control::{OutputLine, OutputStream};

    async fn meet() -> (tempfile::TempDir, UnixStream, Listener) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s"))
            .unwrap()
            .into();
        let agent = UnixStream::connect(directory.path().join("s"))
            .await
            .unwrap();
        (directory, agent, listener)
    }

    fn hello(protocol: u32) -> FromAgent {
        FromAgent::Hello {
            protocol,
            agent_version: "test".into(),
        }
    }

    #[tokio::test]
    async fn carries_reports_logs_and_the_order_to_stop() {
        let (_directory, mut agent, listener) = meet().await;
        let logs = Logs::default();
        wire::io::write(&mut agent, &hello(wire::PROTOCOL_VERSION))
            .await
            .unwrap();
        let mut control = Control::accept(&listener, BOOT, None, logs.clone())
            .await
            .unwrap();
        let mut reader = Reader::default();
        assert_eq!(
            wire::io::read(&mut agent, &mut reader).await.unwrap(),
            Some(BOOT)
        );
        wire::io::write(&mut agent, &FromAgent::Started { pid: 7 })
            .await
            .unwrap();
        assert_eq!(control.report().await, Report::Started);
        let workload = control.workload();
        let stopping = tokio::spawn(control.stop(Duration::from_secs(3)));
        assert_eq!(
            wire::io::read(&mut agent, &mut reader).await.unwrap(),
            Some(FromHost::Stop { deadline_ms: 3000 })
        );
        let line = OutputLine {
            stream: OutputStream::Stderr,
            time_ms: 1,
            bytes: b"bye".to_vec(),
            partial: false,
        };
        let log = FromAgent::Log {
            dropped: 2,
            lines: vec![line],
        };
        wire::io::write(&mut agent, &log).await.unwrap();
        wire::io::write(
            &mut agent,
            &FromAgent::Exited {
                status: WorkloadExit::Signal(15),
            },
        )
        .await
        .unwrap();
        stopping.await.unwrap();
        // The agent sees that the host has read its last word.
        assert_eq!(
            wire::io::read::<FromHost, _>(&mut agent, &mut reader)
                .await
                .unwrap(),
            None
        );
        let bye = LogEntry::Line {
            time: "1970-01-01T00:00:00.001Z".to_owned(),
            stream: LogStream::Stderr,
            text: "bye".to_owned(),
            partial: false,
        };
        let dropped = LogEntry::Dropped { lines: 2 };
        assert_eq!(logs.reader().take(), [dropped, bye]);
        let workload = workload.borrow();
        assert_eq!(workload.last_exit, Some(ExitRecord::Signal(15)));
        assert_eq!(workload.dropped_lines, 2);
    }

    #[tokio::test]
    async fn nothing_is_signed_for_an_enclave_without_a_config() {
        let (_directory, mut agent, listener) = meet().await;
        wire::io::write(&mut agent, &hello(wire::PROTOCOL_VERSION))
            .await
            .unwrap();
        let _control = Control::accept(&listener, BOOT, None, Logs::default())
            .await
            .unwrap();
        let sign = FromAgent::Sign { body: vec![] };
        wire::io::write(&mut agent, &sign).await.unwrap();
        let mut reader = Reader::default();
        let answer = Err(SignRefusal::NotAsked);
        for expected in [BOOT, FromHost::Signed { answer }] {
            let heard = wire::io::read(&mut agent, &mut reader).await.unwrap();
            assert_eq!(heard, Some(expected));
        }
    }

    #[tokio::test]
    async fn an_agent_of_another_protocol_is_not_let_on() {
        let (_directory, mut agent, listener) = meet().await;
        wire::io::write(&mut agent, &hello(99)).await.unwrap();
        let error = Control::accept(&listener, BOOT, None, Logs::default())
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the agent speaks protocol 99, this host 1"
        );
    }

    #[tokio::test]
    async fn nonsense_and_a_sudden_end_are_a_lost_enclave() {
        for nonsense in [
            vec![],
            vec![0, 0, 0, 1],
            vec![0xff; 64],
            vec![0, 0, 0, 1, 0xf6],
        ] {
            let (_directory, mut agent, listener) = meet().await;
            wire::io::write(&mut agent, &hello(wire::PROTOCOL_VERSION))
                .await
                .unwrap();
            let mut control = Control::accept(&listener, BOOT, None, Logs::default())
                .await
                .unwrap();
            agent.write_all(&nonsense).await.unwrap();
            drop(agent);
            assert!(
                matches!(control.report().await, Report::Lost(_)),
                "{nonsense:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_agent_is_given_up() {
        let (mut agent, host) = tokio::io::duplex(64 * 1024);
        let (sender, _reports) = mpsc::channel(1);
        let (_orders, taken) = mpsc::channel(1);
        let talk = tokio::spawn(async move {
            let known = watch::channel(WorkloadRecord::default()).0;
            let kept = (&Logs::default(), &known);
            converse(host, Reader::default(), None, kept, taken, &sender).await
        });
        tokio::time::sleep(SILENCE - Duration::from_secs(1)).await;
        wire::io::write(&mut agent, &FromAgent::Alive)
            .await
            .unwrap();
        let began = Instant::now();
        assert_eq!(
            talk.await.unwrap(),
            Some(Report::Lost("it was silent for 60 seconds".into()))
        );
        assert_eq!(began.elapsed(), SILENCE);
    }
}
