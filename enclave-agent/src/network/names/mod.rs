//! Answers the workload's questions for names: those that the measured spec lets it reach have an
//! address that stands for them inside, all others do not exist. No question leaves the enclave.

mod message;
mod table;

use super::link::AGENT_V4;
use super::refusals::Refusals;
use message::{Answer, Kind, Question};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Addresses, NoAddress, Table};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};
use wire::spec::NetworkRules;

pub(super) const PORT: u16 = 53;
/// The longest question over UDP (RFC 1035, 4.2.1), in bytes. What is longer is cut, and refused.
const MAX_UDP: usize = 512;
/// Of a connection between two questions.
const IDLE: Duration = Duration::from_secs(10);
/// An error of receiving is mostly a client that is gone; one that stays must not keep us busy.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// The names that the workload may reach, and the addresses that stand for them.
pub(super) struct Names {
    table: Mutex<Table>,
    refusals: Arc<Refusals>,
}

impl Names {
    pub(super) fn new(rules: NetworkRules, refusals: Arc<Refusals>) -> Names {
        Names {
            table: Mutex::new(Table::new(rules)),
            refusals,
        }
    }

    /// Nothing panics while it holds the lock; if it did, the table would still be whole.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name that an address inside stands for.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<String> {
        let now = Instant::now();
        self.table().name_of(address, now).map(str::to_owned)
    }

    /// Answers questions over UDP in the background.
    pub(super) async fn serve(self: Arc<Names>) -> io::Result<()> {
        let socket = UdpSocket::bind((AGENT_V4, PORT)).await?;
        tokio::spawn(async move {
            let mut question = [0; MAX_UDP];
            loop {
                let Ok((len, client)) = socket.recv_from(&mut question).await else {
                    sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                };
                let question = question.get(..len).unwrap_or_default();
                if let Some(answer) = self.answer(question) {
                    // A client that is gone misses nothing.
                    socket.send_to(&answer, client).await.ok();
                }
            }
        });
        Ok(())
    }

    /// Answers questions over one connection until its client is silent (RFC 7766): each has its
    /// length before it.
    pub(super) async fn converse(&self, mut client: TcpStream) -> io::Result<()> {
        loop {
            let exchange = async {
                let len = usize::from(client.read_u16().await?);
                let mut question = vec![0; len];
                client.read_exact(&mut question).await?;
                let answer = self.answer(&question).ok_or(io::ErrorKind::InvalidData)?;
                let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
                client
                    .write_all(&[&len.to_be_bytes()[..], &answer].concat())
                    .await
            };
            timeout(IDLE, exchange).await??;
        }
    }

    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        match message::parse(message) {
            Ok(question) => Some(question.answer(self.decide(&question))),
            Err(why) => message::refusal(message, why),
        }
    }

    fn decide(&self, question: &Question<'_>) -> Answer {
        let Question { name, kind, .. } = question;
        if !question.internet {
            return Answer::Refused;
        }
        // Not every C library knows that this name never leaves a machine (RFC 6761, 6.3).
        if name == "localhost" || name.ends_with(".localhost") {
            return of_kind(*kind, Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        }
        // Bound here, so that the lock is free below.
        let asked = self.table().ask(name, Instant::now());
        match asked {
            Ok(Addresses { v4, v6 }) => of_kind(*kind, v4, v6),
            Err(NoAddress::NotAllowed) => {
                self.refusals
                    .note(&format_args!("network.egress does not name '{name}'"));
                Answer::NoSuchName
            }
            Err(NoAddress::Full) => {
                self.refusals
                    .note(&format_args!("too many names are in use for '{name}'"));
                Answer::Failure
            }
        }
    }
}

fn of_kind(kind: Kind, v4: Ipv4Addr, v6: Ipv6Addr) -> Answer {
    match kind {
        Kind::A => Answer::Address(v4.into()),
        Kind::Aaaa => Answer::Address(v6.into()),
        Kind::Other => Answer::Nothing,
    }
}
