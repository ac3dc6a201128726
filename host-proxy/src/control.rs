//! The host's side of the control connection (port 9001), and the heartbeat before it (port 9000).

use crate::frames;
use crate::logs::{Logs, Piece};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::control::{Exit, Failure, FromAgent, FromHost};
use wire::frame::Reader;

const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const QUEUE: usize = 16;
/// Longest text of an enclave that is shown, in characters.
const MAX_DETAIL: usize = 500;

/// What an enclave reports of its life. Its claims, not facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Started,
    Exited(Exit),
    Failed {
        failure: Failure,
        detail: String,
    },
    /// The connection ended without a last word, or said something that makes no sense.
    Lost(String),
}

/// Answers the enclave's one byte. Bounded by the caller.
pub async fn heartbeat(listener: &UnixListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        if matches!(timeout(WRITE_TIMEOUT, stream.read_u8()).await, Ok(Ok(wire::HEARTBEAT))) {
            return stream.write_all(&[wire::HEARTBEAT]).await;
        }
    }
}

/// The connection to an agent that said hello.
#[derive(Debug)]
pub struct Control {
    output: OwnedWriteHalf,
    reports: mpsc::Receiver<Report>,
}

impl Control {
    /// Waits for the agent, checks that it speaks this protocol, and lets it boot.
    pub async fn accept(listener: &UnixListener, logs: Logs) -> io::Result<Control> {
        let (stream, _) =
            timeout(HELLO_TIMEOUT, listener.accept()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let (mut input, mut output) = stream.into_split();
        let mut reader = Reader::default();
        let hello = timeout(HELLO_TIMEOUT, frames::read(&mut input, &mut reader))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        match hello {
            Some(FromAgent::Hello { protocol: wire::PROTOCOL_VERSION, .. }) => {}
            Some(FromAgent::Hello { protocol, .. }) => {
                let message =
                    format!("the agent speaks protocol {protocol}, this host {}", wire::PROTOCOL_VERSION);
                return Err(io::Error::other(message));
            }
            _ => return Err(io::Error::other("the agent did not say hello")),
        }
        frames::write(&mut output, &FromHost::Boot).await?;
        let (sender, reports) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let last = listen(&mut input, &mut reader, &logs, &sender).await;
            let _ = sender.send(last).await;
        });
        Ok(Control { output, reports })
    }

    /// The next report; after the last one this never returns. Cancelling is safe.
    pub async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }

    /// Asks the workload to end within `deadline`.
    pub async fn stop(&mut self, deadline: Duration) -> io::Result<()> {
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let order = FromHost::Stop { deadline_ms };
        let writing = frames::write(&mut self.output, &order);
        timeout(WRITE_TIMEOUT, writing).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// Reads until the last word, which it gives.
async fn listen(
    input: &mut (impl tokio::io::AsyncRead + Unpin),
    reader: &mut Reader,
    logs: &Logs,
    reports: &mpsc::Sender<Report>,
) -> Report {
    loop {
        match frames::read(input, reader).await {
            Ok(Some(FromAgent::Started { .. })) => {
                if reports.send(Report::Started).await.is_err() {
                    return Report::Lost("nobody listens".to_owned());
                }
            }
            Ok(Some(FromAgent::Log { stream, bytes })) => logs.add(Piece { stream, bytes }),
            Ok(Some(FromAgent::Exited { status })) => return Report::Exited(status),
            Ok(Some(FromAgent::Failed { failure, detail })) => {
                let detail = detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
                return Report::Failed { failure, detail };
            }
            Ok(Some(FromAgent::Hello { .. })) => {
                return Report::Lost("the agent said hello twice".to_owned());
            }
            Ok(None) => return Report::Lost("the enclave closed the control connection".to_owned()),
            Err(error) => return Report::Lost(format!("the control connection: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;
    use wire::control::Stream;

    async fn meet() -> (tempfile::TempDir, UnixStream, UnixListener) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let agent = UnixStream::connect(folder.path().join("s")).await.unwrap();
        (folder, agent, listener)
    }

    fn hello(protocol: u32) -> FromAgent {
        FromAgent::Hello { protocol, agent_version: "test".into() }
    }

    #[tokio::test]
    async fn carries_reports_logs_and_the_order_to_stop() {
        let (_folder, mut agent, listener) = meet().await;
        let logs = Logs::default();
        frames::write(&mut agent, &hello(wire::PROTOCOL_VERSION)).await.unwrap();
        let mut control = Control::accept(&listener, logs.clone()).await.unwrap();
        let mut reader = Reader::default();
        assert_eq!(frames::read(&mut agent, &mut reader).await.unwrap(), Some(FromHost::Boot));
        frames::write(&mut agent, &FromAgent::Started { pid: 7 }).await.unwrap();
        assert_eq!(control.report().await, Report::Started);
        control.stop(Duration::from_secs(3)).await.unwrap();
        assert_eq!(
            frames::read(&mut agent, &mut reader).await.unwrap(),
            Some(FromHost::Stop { deadline_ms: 3000 })
        );
        let line = FromAgent::Log { stream: Stream::Stderr, bytes: b"bye\n".to_vec() };
        frames::write(&mut agent, &line).await.unwrap();
        frames::write(&mut agent, &FromAgent::Exited { status: Exit::Signal(15) }).await.unwrap();
        assert_eq!(control.report().await, Report::Exited(Exit::Signal(15)));
        assert_eq!(logs.follow().0, [Piece { stream: Stream::Stderr, bytes: b"bye\n".to_vec() }]);
    }

    #[tokio::test]
    async fn an_agent_of_another_protocol_is_not_let_on() {
        let (_folder, mut agent, listener) = meet().await;
        frames::write(&mut agent, &hello(99)).await.unwrap();
        let error = Control::accept(&listener, Logs::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "the agent speaks protocol 99, this host 1");
    }

    #[tokio::test]
    async fn nonsense_and_a_sudden_end_are_a_lost_enclave() {
        for nonsense in [vec![], vec![0, 0, 0, 1], vec![0xff; 64], vec![0, 0, 0, 1, 0xf6]] {
            let (_folder, mut agent, listener) = meet().await;
            frames::write(&mut agent, &hello(wire::PROTOCOL_VERSION)).await.unwrap();
            let mut control = Control::accept(&listener, Logs::default()).await.unwrap();
            agent.write_all(&nonsense).await.unwrap();
            drop(agent);
            assert!(matches!(control.report().await, Report::Lost(_)), "{nonsense:?}");
        }
    }

    #[tokio::test]
    async fn only_the_right_byte_is_a_heartbeat() {
        let (folder, mut wrong, listener) = meet().await;
        wrong.write_all(&[0]).await.unwrap();
        let mut right = UnixStream::connect(folder.path().join("s")).await.unwrap();
        right.write_all(&[wire::HEARTBEAT]).await.unwrap();
        heartbeat(&listener).await.unwrap();
        assert_eq!(right.read_u8().await.unwrap(), wire::HEARTBEAT);
    }
}
