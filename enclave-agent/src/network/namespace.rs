//! Network namespaces. The workload has one of its own, with nothing in it but loopback and what
//! this module's users put there; the agent stays in the one that the kernel booted with.
//!
//! A socket keeps the namespace that it was made in for life (network_namespaces(7)), so the agent
//! enters the workload's for the moment of making one, on a thread of its own that then ends.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The calling thread's own namespace (namespaces(7)).
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace, held open. It lasts at least as long as this.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// Makes a new one. Its loopback interface is up, and any user may listen on ports below 1024,
    /// as in other container engines: no one but the workload listens there.
    pub(crate) fn create() -> io::Result<Namespace> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            super::raise_loopback()?;
            // Both are settings of the namespace that the writer is in.
            std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
            Namespace::current()
        })?
    }

    /// The one that the calling thread is in.
    pub(crate) fn current() -> io::Result<Namespace> {
        Ok(Namespace(File::open(CURRENT)?.into()))
    }

    /// Runs `make` inside, on a thread that ends with it; blocks until then. What `make` leaves
    /// behind of sockets stays inside, whoever uses them. `make` is outside of the async runtime:
    /// sockets are made there in their plain form and handed to the runtime afterwards.
    pub(crate) fn within<T: Send>(&self, make: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            setns(self, CloneFlags::CLONE_NEWNET)?;
            Ok(make())
        })?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Namespaces are a thread's: this one's change ends with it.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread
            .join()
            .map_err(|_| io::Error::other("the thread panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::os::linux::fs::MetadataExt as _;

    fn identity(namespace: &Namespace) -> u64 {
        let link = format!("/proc/self/fd/{}", namespace.0.as_raw_fd());
        std::fs::metadata(link).unwrap().st_ino()
    }

    /// Namespaces need root; these tests check nothing without it.
    fn create() -> Option<Namespace> {
        nix::unistd::geteuid()
            .is_root()
            .then(|| Namespace::create().unwrap())
    }

    #[test]
    fn a_socket_stays_in_the_namespace_that_it_was_made_in() {
        let Some(inside) = create() else { return };
        let listener = inside
            .within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 80)))
            .unwrap()
            .unwrap();
        let address = listener.local_addr().unwrap();
        assert!(
            inside
                .within(|| TcpStream::connect(address))
                .unwrap()
                .is_ok()
        );
        let other = create().unwrap();
        let refused = other.within(|| TcpStream::connect(address)).unwrap();
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn the_caller_stays_where_it_was() {
        let Some(inside) = create() else { return };
        let before = identity(&Namespace::current().unwrap());
        let there = inside.within(Namespace::current).unwrap().unwrap();
        assert_eq!(identity(&there), identity(&inside));
        assert_ne!(identity(&there), before);
        assert_eq!(identity(&Namespace::current().unwrap()), before);
    }
}
