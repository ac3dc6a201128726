//! How many connections the enclave carries at one time: in proportion to its memory, and counted
//! together, whoever opened them.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use wire::io::Plain as _;
use wire::relay::{connection_limit, ingress_limit, window};

/// Connections have so long to go when they are cut: one turn of each.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Places for connections. Cheap to clone: the clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    places: Arc<Semaphore>,
    limit: u32,
    cut: watch::Sender<()>,
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    /// What the kernel keeps of its stream with the host, in bytes.
    pub(crate) window: u64,
    cut: watch::Receiver<()>,
}

impl Capacity {
    /// In proportion to the memory that the kernel has.
    pub(crate) fn of_this_enclave() -> io::Result<Capacity> {
        let memory = total(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
        Ok(Capacity::new(connection_limit(memory)))
    }

    fn new(limit: u32) -> Capacity {
        Capacity {
            places: Arc::new(Semaphore::new(usize_of(limit))),
            limit,
            cut: watch::Sender::new(()),
        }
    }

    /// How many there are in all.
    pub(crate) fn limit(&self) -> usize {
        usize_of(self.limit)
    }

    /// How many of them connections into the enclave may have.
    pub(crate) fn ingress(&self) -> usize {
        usize_of(ingress_limit(self.limit))
    }

    /// One of them, if one is free.
    pub(crate) fn take(&self) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        Some(Place {
            _permit: permit,
            window: window(free, self.limit),
            cut: self.cut.subscribe(),
        })
    }

    /// Resets every connection, and waits until they are gone. Before the workload is killed: the
    /// kernel ends the connections of a killed process in order (close(2)), and their other ends
    /// would take what they have for the whole.
    pub(crate) async fn cut(&self) {
        self.cut.send_replace(());
        let gone = self.places.acquire_many(self.limit);
        drop(timeout(CUT_TIMEOUT, gone).await);
    }
}

impl Place {
    /// [`wire::io::relay`], until the end or the cut. The place is free then.
    ///
    /// # Errors
    /// Those of the relay, and [`io::ErrorKind::ConnectionAborted`] for the cut.
    pub(crate) async fn relay(
        mut self,
        plain: TcpStream,
        host: impl AsyncRead + AsyncWrite,
        first: Vec<u8>,
        idle: Duration,
    ) -> io::Result<()> {
        plain.reset_on_close()?;
        tokio::select! {
            ended = wire::io::relay(plain, host, first, idle) => ended.map(drop),
            _ = self.cut.changed() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

fn usize_of(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Bytes of memory in all (proc_meminfo(5)).
fn total(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn reads_how_much_memory_there_is() {
        let text = "MemTotal:  500 kB\nMemFree: 1 kB\n";
        assert_eq!(total(text), Some(500 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn connections_out_have_what_is_left_of_those_that_come_in() {
        let capacity = Capacity::new(8);
        let inward: Vec<Place> = (0..capacity.ingress())
            .map_while(|_| capacity.take())
            .collect();
        let outward = [capacity.take(), capacity.take()];
        assert!(outward.iter().all(Option::is_some) && capacity.take().is_none());
        drop(inward);
        assert!(capacity.take().is_some());
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_nothing_later() {
        let capacity = Capacity::new(2);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut others = Vec::new();
        let open = async || {
            let program = TcpStream::connect(address).await.unwrap();
            let (plain, _) = listener.accept().await.unwrap();
            let (host, other) = tokio::io::duplex(64);
            let place = capacity.take().unwrap();
            tokio::spawn(place.relay(plain, host, Vec::new(), Duration::from_secs(60)));
            (program, other)
        };
        for _ in 0..2 {
            others.push(open().await);
        }
        assert!(capacity.take().is_none());
        capacity.cut().await;
        for (program, _) in &mut others {
            let error = program.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        let (mut program, mut other) = open().await;
        program.write_all(b"x").await.unwrap();
        other.read_exact(&mut [0; 5]).await.unwrap();
    }
}
