//! Connections out of an enclave. The host checks its own copy of the measured list, resolves names itself, and refuses addresses
//! that an enclave has no business reaching: this machine, its link, its metadata service, private networks. Without a rule,
//! nothing leaves.

use launch::{LineLimiter, LineVerdict, Listener};
use oci::address::AddressClass;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use wire::frame::Reader;
use wire::io::Overflow;
use wire::network::Network;
use wire::relay::{ConnectRequest, MAX_HOST, OpenReply, RefuseReason};

/// As many as the agent opens for its workload; each has two descriptors.
const MAX_CONNECTIONS: usize = 16_384;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of the log for each enclave.
const REFUSALS_PER_MINUTE: u32 = 30;
const IDLE: Duration = Duration::from_secs(15 * 60);

/// What one enclave may reach.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    /// The measured list.
    pub network: wire::spec::NetworkRules,
    /// Exceptions of the operator from the refusal of internal addresses.
    pub allow_networks: Vec<Network>,
}

/// Serves one enclave until the future is dropped. Beyond the limit the enclave sees its connection close.
pub async fn serve(listener: Listener, policy: EgressPolicy) {
    let shared = Arc::new((policy, LineLimiter::new(REFUSALS_PER_MINUTE)));
    let handle = move |enclave| {
        let shared = shared.clone();
        async move {
            let (policy, refusals) = &*shared;
            if let Err(error) = carry(enclave, policy, refusals).await {
                tracing::debug!(%error, "an egress connection ended");
            }
        }
    };
    wire::io::serve(listener, MAX_CONNECTIONS, Overflow::Close, handle).await;
}

async fn carry(
    mut enclave: impl AsyncRead + AsyncWrite + Unpin,
    policy: &EgressPolicy,
    refusals: &LineLimiter,
) -> io::Result<()> {
    let mut reader = Reader::default();
    let request = timeout(REQUEST_TIMEOUT, wire::io::read(&mut enclave, &mut reader))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let Some(ConnectRequest { host, port }) = request else {
        return Ok(());
    };
    let dialled = dial(policy, &host, port).await;
    let outside = match dialled {
        Ok(outside) => outside,
        Err(why) => {
            log_refusal(&host, port, why, refusals);
            return wire::io::write(&mut enclave, &OpenReply::Refused { why }).await;
        }
    };
    wire::io::write(&mut enclave, &OpenReply::Opened).await?;
    wire::io::relay(outside, enclave, reader.into_rest(), IDLE).await?;
    Ok(())
}

/// An enclave can be refused as often as it likes: what it writes into the log is bounded.
fn log_refusal(host: &str, port: u16, why: RefuseReason, refusals: &LineLimiter) {
    if let LineVerdict::Write { left_out, is_last } = refusals.admit(Instant::now()) {
        let host: String = host.escape_debug().take(MAX_HOST).collect();
        tracing::info!(host, port, %why, left_out, rest_left_out = is_last, "egress refused");
    }
}

async fn dial(policy: &EgressPolicy, host: &str, port: u16) -> Result<TcpStream, RefuseReason> {
    if host.len() > MAX_HOST || !policy.network.allows(host, port) {
        return Err(RefuseReason::NotAllowed);
    }
    let found = timeout(RESOLVE_TIMEOUT, lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = found
        .map_err(|_| RefuseReason::Unresolved)?
        .map_err(|_| RefuseReason::Unresolved)?
        .collect();
    let allowed: Vec<SocketAddr> = addresses
        .iter()
        .copied()
        .filter(|address| policy.reaches(address.ip()))
        .collect();
    if allowed.is_empty() {
        return Err(if addresses.is_empty() {
            RefuseReason::Unresolved
        } else {
            RefuseReason::ForbiddenAddress
        });
    }
    let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(allowed.as_slice())).await;
    connecting
        .map_err(|_| RefuseReason::Unreachable)?
        .map_err(|_| RefuseReason::Unreachable)
}

impl EgressPolicy {
    fn reaches(&self, address: IpAddr) -> bool {
        !AddressClass::of(address).is_internal()
            || self
                .allow_networks
                .iter()
                .any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixStream};
    use wire::spec::EgressRule;

    fn policy(egress: &[String], allow: &[&str]) -> EgressPolicy {
        let egress = egress
            .iter()
            .map(|text| EgressRule::parse(text).unwrap())
            .collect();
        EgressPolicy {
            network: wire::spec::NetworkRules {
                egress,
                ..Default::default()
            },
            allow_networks: allow
                .iter()
                .map(|text| Network::try_from((*text).to_owned()).unwrap())
                .collect(),
        }
    }

    async fn ask(policy: EgressPolicy, host: &str, port: u16) -> (UnixStream, OpenReply) {
        let (mut agent, host_side) = UnixStream::pair().unwrap();
        tokio::spawn(async move { carry(host_side, &policy, &LineLimiter::new(1)).await });
        wire::io::write(
            &mut agent,
            &ConnectRequest {
                host: host.into(),
                port,
            },
        )
        .await
        .unwrap();
        let answer = wire::io::read(&mut agent, &mut Reader::default())
            .await
            .unwrap()
            .unwrap();
        (agent, answer)
    }

    #[tokio::test]
    async fn nothing_leaves_without_a_rule() {
        let refused = OpenReply::Refused {
            why: RefuseReason::NotAllowed,
        };
        assert_eq!(
            ask(policy(&[], &["0.0.0.0/0"]), "127.0.0.1", 80).await.1,
            refused
        );
        let only_443 = policy(&["127.0.0.1:443".into()], &["0.0.0.0/0"]);
        assert_eq!(ask(only_443, "127.0.0.1", 80).await.1, refused);
    }

    #[tokio::test]
    async fn a_rule_does_not_open_this_machine_but_the_operator_may() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let rule = [format!("127.0.0.1:{port}")];
        let forbidden = OpenReply::Refused {
            why: RefuseReason::ForbiddenAddress,
        };
        assert_eq!(
            ask(policy(&rule, &[]), "127.0.0.1", port).await.1,
            forbidden
        );
        let (mut agent, answer) = ask(policy(&rule, &["127.0.0.1/32"]), "127.0.0.1", port).await;
        assert_eq!(answer, OpenReply::Opened);
        let (mut outside, _) = server.accept().await.unwrap();
        agent.write_all(b"\0\0\0\x03out\0\0\0\0").await.unwrap();
        let mut heard = String::new();
        outside.read_to_string(&mut heard).await.unwrap();
        outside.write_all(b"back").await.unwrap();
        drop(outside);
        let mut answer = Vec::new();
        agent.read_to_end(&mut answer).await.unwrap();
        assert_eq!(
            (heard.as_str(), answer.as_slice()),
            ("out", &b"\0\0\0\x04back\0\0\0\0"[..])
        );
    }

    #[tokio::test]
    async fn reports_that_a_destination_does_not_answer() {
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (_, answer) = ask(
            policy(&[format!("127.0.0.1:{free}")], &["127.0.0.0/8"]),
            "127.0.0.1",
            free,
        )
        .await;
        assert_eq!(
            answer,
            OpenReply::Refused {
                why: RefuseReason::Unreachable
            }
        );
    }
}
