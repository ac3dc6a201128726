//! A parent instance that is a few counters: its driver keeps the rules of the kernel's, its huge
//! pages are plain memory that nothing touches, and enclaves live until they are told to end.

use super::driver::{Memory, Parent, Vm, bytes};
use super::errors::{DriverError, DriverStep};
use super::host::HostResources;
use super::pages::{Pages, Piece, Plan};
use super::ports::Source;
use crate::sys::Mapping;
use crate::vsock::Stream;
use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

pub(super) const THREADS: u32 = 2;
const FIRST_CID: u64 = 16;

/// Cheap to clone; all clones are one machine.
#[derive(Debug, Clone)]
pub(super) struct FakeParent(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
struct State {
    cores: u32,
    free_cores: u32,
    pages: Pages,
    free: Pages,
    mappings: u32,
    slots: u32,
    starts: u64,
    /// What keeps a descriptor from hanging up, by CID.
    alive: BTreeMap<u64, PipeWriter>,
    fails: Option<(DriverStep, i32)>,
    /// NE_START_ENCLAVE does not return.
    holds_starts: bool,
    debug: Vec<bool>,
}

impl FakeParent {
    /// With so many cores in its pool, and these huge pages.
    pub(super) fn new(cores: u32, pages: &[(u64, u64)]) -> FakeParent {
        let pages: Pages = pages.iter().copied().collect();
        let state = State {
            cores,
            free_cores: cores,
            free: pages.clone(),
            pages,
            mappings: 0,
            slots: 0,
            starts: 0,
            alive: BTreeMap::new(),
            fails: None,
            holds_starts: false,
            debug: Vec::new(),
        };
        FakeParent(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// From now on a step fails with this number.
    pub(super) fn fail(&self, step: DriverStep, errno: i32) {
        self.state().fails = Some((step, errno));
    }

    /// From now on starts do not return, or return again.
    pub(super) fn hold_starts(&self, hold: bool) {
        self.state().holds_starts = hold;
        self.0.1.notify_all();
    }

    /// How often NE_START_ENCLAVE was called.
    pub(super) fn starts(&self) -> u64 {
        self.state().starts
    }

    /// Whether the last enclave was started in debug mode.
    pub(super) fn last_debug(&self) -> Option<bool> {
        self.state().debug.last().copied()
    }

    /// An enclave ends by itself.
    pub(super) fn end(&self, cid: u32) {
        assert!(self.state().alive.remove(&cid.into()).is_some());
    }

    /// Everything is as it was before the first launch.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.state();
        state.free == state.pages
            && state.free_cores == state.cores
            && (state.mappings, state.slots) == (0, 0)
            && state.alive.is_empty()
    }

    fn check(&self, step: DriverStep) -> io::Result<()> {
        match self.state().fails {
            Some((failing, errno)) if failing == step => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }
}

impl Parent for FakeParent {
    fn resources(&self) -> io::Result<HostResources> {
        let state = self.state();
        Ok(HostResources {
            cpu_pool: (THREADS..THREADS * (state.cores + 1)).collect(),
            threads_per_core: THREADS,
            node: None,
            free: state.free.clone(),
        })
    }

    fn map(&self, plan: &Plan, _: Option<u32>) -> io::Result<Box<dyn Memory>> {
        self.check(DriverStep::Map)?;
        let len = bytes(plan.bytes())?;
        let mapping = Mapping::reserve(len, 4096)?;
        mapping.place(0, len, None)?;
        let mut state = self.state();
        for run in plan.runs() {
            let free = state.free.get_mut(&run.size).unwrap();
            *free = free.checked_sub(run.count).expect("promised twice");
        }
        state.mappings += 1;
        Ok(Box::new(FakeMemory {
            parent: self.clone(),
            plan: plan.clone(),
            mapping,
        }))
    }

    fn check_driver(&self) -> Result<(), DriverError> {
        self.check(DriverStep::Open)
            .map_err(DriverStep::Open.failed())
    }

    fn create_vm(&self) -> Result<Box<dyn Vm>, DriverError> {
        self.check_driver()?;
        let created = self.check(DriverStep::CreateVm);
        created.map_err(DriverStep::CreateVm.failed())?;
        let (hangup, alive) = io::pipe().unwrap();
        self.state().slots += 1;
        Ok(Box::new(FakeVm {
            parent: self.clone(),
            hangup,
            slot: Mutex::new(Slot {
                alive: Some(alive),
                ..Slot::default()
            }),
        }))
    }
}

#[derive(Debug)]
struct FakeMemory {
    parent: FakeParent,
    plan: Plan,
    mapping: Mapping,
}

impl Memory for FakeMemory {
    fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn populate(&self, _: Piece) -> io::Result<()> {
        self.parent.check(DriverStep::Populate)
    }
}

impl Drop for FakeMemory {
    fn drop(&mut self) {
        let mut state = self.parent.state();
        for run in self.plan.runs() {
            *state.free.get_mut(&run.size).unwrap() += run.count;
        }
        state.mappings -= 1;
    }
}

#[derive(Debug)]
struct FakeVm {
    parent: FakeParent,
    hangup: PipeReader,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    bytes: u64,
    cores: u32,
    cpus: u32,
    cid: Option<u64>,
    alive: Option<PipeWriter>,
}

impl AsFd for FakeVm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hangup.as_fd()
    }
}

impl Vm for FakeVm {
    fn image_load_offset(&self) -> io::Result<u64> {
        self.parent.check(DriverStep::ImageLoadInfo)?;
        Ok(8 << 20)
    }

    fn add_memory(&self, _: &dyn Memory, piece: Piece) -> io::Result<()> {
        self.parent.check(DriverStep::AddMemory)?;
        self.slot.lock().unwrap().bytes += piece.len;
        Ok(())
    }

    fn add_vcpu(&self) -> io::Result<u32> {
        self.parent.check(DriverStep::AddVcpu)?;
        let mut slot = self.slot.lock().unwrap();
        if slot.cpus == slot.cores * THREADS {
            let mut state = self.parent.state();
            let left = state.free_cores.checked_sub(1);
            state.free_cores = left.ok_or_else(|| io::Error::from_raw_os_error(272))?;
            slot.cores += 1;
        }
        slot.cpus += 1;
        Ok(slot.cpus)
    }

    fn start(&self, debug: bool) -> io::Result<u64> {
        let mut state = self.parent.state();
        state.starts += 1;
        state.debug.push(debug);
        let cid = FIRST_CID + state.starts;
        while state.holds_starts {
            state = self.parent.0.1.wait(state).unwrap();
        }
        drop(state);
        self.parent.check(DriverStep::Start)?;
        let mut slot = self.slot.lock().unwrap();
        let rules = [
            (slot.bytes >= 64 << 20, 268),
            (slot.cpus > 0, 267),
            (slot.cpus == slot.cores * THREADS, 269),
        ];
        if let Some((_, errno)) = rules.iter().find(|(kept, _)| !kept) {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        slot.cid = Some(cid);
        let alive = slot.alive.take().unwrap();
        self.parent.state().alive.insert(cid, alive);
        Ok(cid)
    }
}

impl Drop for FakeVm {
    fn drop(&mut self) {
        let slot = self.slot.get_mut().unwrap();
        let mut state = self.parent.state();
        if let Some(cid) = slot.cid {
            state.alive.remove(&cid);
        }
        state.free_cores += slot.cores;
        state.slots -= 1;
    }
}

/// Accepts what its sender hands over.
pub(super) struct FakeSource(tokio::sync::Mutex<mpsc::Receiver<(Stream, u32)>>);

/// Connects as an enclave.
#[derive(Debug, Clone)]
pub(super) struct Dialler(mpsc::Sender<(Stream, u32)>);

pub(super) fn port() -> (FakeSource, Dialler) {
    let (sender, receiver) = mpsc::channel(256);
    (FakeSource(receiver.into()), Dialler(sender))
}

impl Dialler {
    /// The enclave's end of a connection.
    pub(super) async fn connect(&self, cid: u32) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        self.0.send((Stream::Unix(far), cid)).await.unwrap();
        near
    }
}

impl Source for FakeSource {
    async fn accept(&self) -> io::Result<(Stream, u32)> {
        let mut receiver = self.0.lock().await;
        receiver
            .recv()
            .await
            .ok_or(io::ErrorKind::BrokenPipe.into())
    }
}
