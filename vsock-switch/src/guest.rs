//! A guest's attachment: its sockets, and the thread that speaks vhost-user with its QEMU.

use crate::backend::Backend;
use crate::config::GuestConfig;
use crate::device::Memory;
use crate::engine::Engine;
use crate::error::SwitchError;
use crate::inbox::{Command, Inbox};
use crate::muxer::Host;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use vhost::vhost_user::Listener;
use vhost_user_backend::{ShutdownHandle, VhostUserDaemon};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

/// A guest that is attached to a switch. Dropping it detaches the guest: its sockets are removed,
/// its threads end, and every connection of its CID is reset for its peers. That blocks for as long
/// as the threads need, which is never long. A QEMU that is still connected loses its device.
///
/// When QEMU disconnects, the connections are reset too, but the guest stays attached: another QEMU
/// may connect.
#[derive(Debug)]
pub struct Guest {
    cid: u32,
    engine: Arc<Engine>,
    serving: Arc<Serving>,
    thread: Option<JoinHandle<()>>,
    _sockets: Vec<Socket>,
}

/// What the thread and the guest's owner share.
struct Serving {
    is_ending: AtomicBool,
    end: EventFd,
    /// The QEMU that is connected.
    connected: Mutex<Option<ShutdownHandle>>,
}

/// A socket's file, removed when it is dropped.
#[derive(Debug)]
struct Socket(PathBuf);

impl Guest {
    pub(crate) fn attach(engine: Arc<Engine>, config: GuestConfig) -> Result<Guest, SwitchError> {
        let GuestConfig { cid, socket, host } = config;
        if cid <= 2 || cid == u32::MAX {
            return Err(SwitchError::CidReserved(cid));
        }
        let mut sockets = Vec::new();
        let listener = listen(&socket, &mut sockets)?;
        let host = match host {
            Some(host) => {
                let listener = listen(&host.path, &mut sockets)?;
                listener.set_nonblocking(true).map_err(SwitchError::Start)?;
                let (cid, path) = (host.cid, host.path);
                Some(Host {
                    cid,
                    path,
                    listener,
                })
            }
            None => None,
        };
        let serving = Serving::new().map_err(SwitchError::Start)?;
        let (reply, attached) = channel();
        engine.inbox.send(Command::Attach(cid, host, reply));
        attached.recv().map_err(|_| SwitchError::Ended)??;
        let mut guest = Guest {
            cid,
            engine: engine.clone(),
            serving: serving.clone(),
            thread: None,
            _sockets: sockets,
        };
        let thread = std::thread::Builder::new().name(format!("vsock-guest-{cid}"));
        let thread = thread.spawn(move || serving.run(cid, &engine.inbox, listener));
        guest.thread = Some(thread.map_err(SwitchError::Start)?);
        Ok(guest)
    }

    /// The guest's CID.
    pub fn cid(&self) -> u32 {
        self.cid
    }
}

fn listen(path: &Path, sockets: &mut Vec<Socket>) -> Result<UnixListener, SwitchError> {
    let listener = UnixListener::bind(path).map_err(|source| SwitchError::Listen {
        path: path.to_owned(),
        source,
    })?;
    sockets.push(Socket(path.to_owned()));
    Ok(listener)
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.serving.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(cid = self.cid, "the thread of a guest panicked");
        }
        let (reply, detached) = channel();
        self.engine.inbox.send(Command::Detach(self.cid, reply));
        // A switch that has ended has no guests.
        detached.recv().ok();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a socket");
        }
    }
}

impl Serving {
    fn new() -> io::Result<Arc<Serving>> {
        Ok(Arc::new(Serving {
            is_ending: AtomicBool::new(false),
            end: EventFd::new(EFD_CLOEXEC)?,
            connected: Mutex::new(None),
        }))
    }

    fn stop(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        if let Err(error) = self.end.write(1) {
            tracing::error!(%error, "the thread of a guest cannot be woken");
        }
        if let Some(connected) = &*self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            connected.shutdown();
        }
    }

    /// Serves one QEMU after the other.
    fn run(&self, cid: u32, inbox: &Inbox, listener: UnixListener) {
        let fd = listener.as_raw_fd();
        let mut listener = Listener::from(listener);
        loop {
            match self.qemu_connects(fd) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::error!(cid, %error, "a guest cannot be served"),
            }
            let served = self.serve(cid, inbox, &mut listener);
            inbox.send(Command::Unplugged(cid));
            if let Err(error) = served {
                return tracing::error!(cid, %error, "a guest cannot be served");
            }
        }
    }

    /// Waits. False at the end.
    fn qemu_connects(&self, listener: RawFd) -> io::Result<bool> {
        let epoll = Epoll::new()?;
        for fd in [listener, self.end.as_raw_fd()] {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
        }
        while let Err(error) = epoll.wait(-1, &mut [EpollEvent::default()]) {
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(!self.is_ending.load(Ordering::SeqCst))
    }

    /// Serves one QEMU until it disconnects.
    fn serve(&self, cid: u32, inbox: &Inbox, listener: &mut Listener) -> io::Result<()> {
        let memory = Memory::new(GuestMemoryMmap::new());
        let backend = Arc::new(Backend::new(cid, inbox.clone(), memory.clone())?);
        let worker = backend.worker_descriptor();
        let name = format!("vhost-user-{cid}");
        let other = |error| io::Error::other(format!("{error}"));
        let mut daemon = VhostUserDaemon::new(name, backend, memory).map_err(other)?;
        daemon.start(listener).map_err(other)?;
        *self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = daemon.shutdown_handle();
        if self.is_ending.load(Ordering::SeqCst) {
            daemon.request_shutdown();
        }
        // Every way of disconnecting is an error to the crate.
        let ended = daemon.wait();
        tracing::debug!(cid, ?ended, "QEMU disconnected");
        *self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        drop(daemon);
        worker.close();
        Ok(())
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}
