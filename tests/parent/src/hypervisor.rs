//! Answers the driver's commands, and keeps the enclaves.

use crate::faults::{Fault, Faults};
use crate::memory::Memory;
use crate::protocol::{self, Answer, Command, EINVAL, EIO, Errno, FRAME};
use crate::sibling::{Sibling, Surroundings};
use crate::slots::{Limits, Region, Slots, Step, of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// What happened, a line each. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// What happened so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line);
    }
}

/// The hypervisor of one parent.
#[derive(Debug)]
pub struct Hypervisor {
    surroundings: Surroundings,
    memory: Memory,
    faults: Faults,
    events: Events,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Slots,
    siblings: BTreeMap<u64, Sibling>,
    to_guest: UnixStream,
}

impl Hypervisor {
    pub(crate) fn new(
        surroundings: Surroundings,
        memory: Memory,
        faults: Faults,
        events: Events,
        to_guest: UnixStream,
    ) -> Hypervisor {
        Hypervisor {
            surroundings,
            memory,
            faults,
            events,
            inner: Mutex::new(Inner {
                slots: Slots::new(Limits::default()),
                siblings: BTreeMap::new(),
                to_guest,
            }),
        }
    }

    /// Answers commands until the guest's QEMU is gone; then every enclave ends.
    pub(crate) fn serve(self: Arc<Self>, mut from_guest: UnixStream) {
        let mut frame = [0; FRAME];
        while from_guest.read_exact(&mut frame).is_ok() {
            if let Err(error) = self.handle(&frame) {
                self.events.add(format!("the device hung up: {error}"));
                break;
            }
        }
        self.off();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(self: &Arc<Self>, frame: &[u8; FRAME]) -> io::Result<()> {
        let command = Command::parse(frame);
        if command == Command::Off {
            self.off();
            return Ok(());
        }
        let result = match self.faults.take(protocol::number(frame)) {
            Some(Fault::Silent) => return Ok(()),
            Some(Fault::Refused(errno)) => Err(errno),
            Some(Fault::Wrong(answer)) => Ok(answer),
            Some(Fault::Late(delay)) => {
                let result = self.carry_out(command);
                thread::sleep(delay);
                result
            }
            None => self.carry_out(command),
        };
        if let Err(Errno(errno)) = result {
            self.events.add(format!("{command:?}: errno {errno}"));
        }
        self.inner().to_guest.write_all(&protocol::reply(result))
    }

    fn carry_out(self: &Arc<Self>, command: Command) -> Result<Answer, Errno> {
        let step = self.inner().slots.command(command)?;
        match step {
            Step::Answer(answer) => Ok(answer),
            Step::Start { slot, cid, flags } => self.start(slot, cid, flags),
            Step::Stop { slot } => {
                if let Some(sibling) = self.inner().siblings.remove(&slot) {
                    let console = sibling.console();
                    self.events
                        .add(format!("slot {slot:x}: stopped; {console}"));
                }
                Ok(of(slot))
            }
            Step::Free { slot, regions } => {
                self.give_back(&regions)?;
                self.events.add(format!("slot {slot:x}: freed"));
                Ok(of(slot))
            }
        }
    }

    fn start(self: &Arc<Self>, number: u64, cid: u64, flags: u64) -> Result<Answer, Errno> {
        let began = Instant::now();
        let mut inner = self.inner();
        let slot = inner.slots.get(number).cloned().ok_or(EINVAL)?;
        let refuse = |error: io::Error| {
            self.events.add(format!("slot {number:x}: {error}"));
            EINVAL
        };
        let eif = self.surroundings.eif(number);
        let size = self.memory.extract(&slot.regions, &eif).map_err(refuse)?;
        self.memory.poison(&slot.regions).map_err(|_| EIO)?;
        let started = self.surroundings.start(number, &slot, cid, flags);
        let sibling = started.map_err(|error| {
            self.events.add(format!("slot {number:x}: {error}"));
            EIO
        })?;
        self.events.add(format!(
            "slot {number:x}: started CID {cid}, {} MiB in {} regions, CPUs {:?}, EIF {size} bytes, \
             flags {flags}, pid {}, {} ms",
            slot.memory() >> 20,
            slot.regions.len(),
            slot.cpus,
            sibling.process_id(),
            began.elapsed().as_millis()
        ));
        inner.siblings.insert(number, sibling);
        let answer = inner.slots.started(number, cid, flags);
        drop(inner);
        let this = Arc::clone(self);
        thread::spawn(move || this.watch(number));
        Ok(answer)
    }

    fn give_back(&self, regions: &[Region]) -> Result<(), Errno> {
        self.memory.scrub(regions).map_err(|_| EIO)
    }

    /// Waits for an enclave's end, and tells the parent if it was not the parent who ended it.
    fn watch(&self, number: u64) {
        loop {
            thread::sleep(POLL);
            let mut inner = self.inner();
            let Some(sibling) = inner.siblings.get_mut(&number) else {
                return;
            };
            let Some(status) = sibling.ended() else {
                continue;
            };
            let console = sibling.console();
            inner.siblings.remove(&number);
            inner.slots.ended(number);
            let line = format!("slot {number:x}: ended by itself ({status}); {console}");
            self.events.add(line);
            // A guest that is gone needs no event.
            inner.to_guest.write_all(&protocol::event()).ok();
            return;
        }
    }

    /// The driver let go of everything, or the guest was reset.
    fn off(&self) {
        let mut inner = self.inner();
        inner.siblings.clear();
        for (number, slot) in inner.slots.clear() {
            self.events
                .add(format!("slot {number:x}: the parent is gone"));
            self.give_back(&slot.regions).ok();
        }
    }

    /// How many enclaves there are, started or not.
    pub fn slots(&self) -> usize {
        self.inner().slots.len()
    }

    /// Ends an enclave as if it had crashed. Returns whether there was one at this CID.
    pub fn crash(&self, cid: u64) -> bool {
        self.signal(cid, Signal::SIGKILL)
    }

    /// Stops an enclave's processor for good. Returns whether there was one at this CID.
    pub fn freeze(&self, cid: u64) -> bool {
        self.signal(cid, Signal::SIGSTOP)
    }

    fn signal(&self, cid: u64, signal: Signal) -> bool {
        let inner = self.inner();
        let pid = inner.siblings.iter().find_map(|(number, sibling)| {
            let slot = inner.slots.get(*number)?;
            (slot.cid == cid).then(|| sibling.process_id())
        });
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        pid.is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
    }
}
