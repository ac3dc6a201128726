//! What the hypervisor remembers of each enclave, and which command is allowed when. Pure: starting
//! and stopping machines is the caller's.

use crate::protocol::{Answer, Command, EBUSY, EINVAL, ENODEV, ENOMEM, ENOSPC, Errno, State};
use std::collections::BTreeMap;

/// The granularity of an enclave's memory, in bytes (`NE_MIN_MEM_REGION_SIZE`).
pub const REGION: u64 = 2 << 20;

/// A piece of the guest's physical memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub address: u64,
    pub size: u64,
}

/// What this hypervisor gives. What Nitro gives is not documented; the defaults are invented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Physical regions of one slot.
    pub regions: u64,
    /// Slots at a time.
    pub slots: usize,
    /// The first CID that is chosen where the driver asks for none.
    pub first_cid: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            regions: 1024,
            slots: 16,
            first_cid: 16,
        }
    }
}

/// One enclave, before, while and after it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    pub regions: Vec<Region>,
    pub cpus: Vec<u32>,
    pub state: State,
    pub cid: u64,
    pub flags: u64,
}

impl Slot {
    /// In bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.regions.iter().map(|region| region.size).sum()
    }
}

/// All enclaves of one parent.
#[derive(Debug)]
pub struct Slots {
    limits: Limits,
    slots: BTreeMap<u64, Slot>,
    next: u64,
}

/// What a command wants done outside.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing but the answer.
    Answer(Answer),
    /// The machine of this slot is to be started with this CID; then `started`.
    Start { slot: u64, cid: u64, flags: u64 },
    /// The machine of this slot is to be stopped.
    Stop { slot: u64 },
    /// The memory of a slot goes back to the parent.
    Free { slot: u64, regions: Vec<Region> },
}

impl Slots {
    #[must_use]
    pub fn new(limits: Limits) -> Slots {
        Slots {
            limits,
            slots: BTreeMap::new(),
            // As on Nitro, slots are no small numbers.
            next: 0x10f1_0001,
        }
    }

    #[must_use]
    pub fn get(&self, slot: u64) -> Option<&Slot> {
        self.slots.get(&slot)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Everything that there is, which is then gone.
    pub fn clear(&mut self) -> BTreeMap<u64, Slot> {
        std::mem::take(&mut self.slots)
    }

    /// Decides on a command.
    ///
    /// # Errors
    /// The errno that the caller of the ioctl gets. Where the driver itself checks first, only a
    /// driver with a fault gets here.
    pub fn command(&mut self, command: Command) -> Result<Step, Errno> {
        let answer = match command {
            Command::Off | Command::Unknown(_) => return Err(EINVAL),
            Command::EnclaveStart { slot, cid, flags } => return self.start(slot, cid, flags),
            Command::EnclaveStop { slot } => return self.stop(slot),
            Command::SlotFree { slot } => return self.free(slot),
            Command::GetSlot { cid } => self.find(cid)?,
            Command::SlotAlloc => self.alloc()?,
            Command::AddMemory {
                slot,
                address,
                size,
            } => self.add_memory(slot, Region { address, size })?,
            Command::AddCpu { slot, cpu } => self.add_cpu(slot, cpu)?,
            Command::AddCpus { slot, count } => self.add_cpus(slot, count)?,
            Command::Count => Answer {
                count: self.slots.len() as u64,
                ..Answer::default()
            },
            Command::Next { slot } => {
                let after = slot.checked_add(1).ok_or(ENODEV)?;
                let (slot, _) = self.slots.range(after..).next().ok_or(ENODEV)?;
                of(*slot)
            }
            Command::Info { slot } => self.info(slot)?,
        };
        Ok(Step::Answer(answer))
    }

    /// The machine of a slot runs.
    pub fn started(&mut self, slot: u64, cid: u64, flags: u64) -> Answer {
        if let Some(found) = self.slots.get_mut(&slot) {
            (found.state, found.cid, found.flags) = (State::Running, cid, flags);
        }
        Answer { cid, ..of(slot) }
    }

    /// The machine of a slot is gone. Says whether it was running until now.
    pub fn ended(&mut self, slot: u64) -> bool {
        match self.slots.get_mut(&slot) {
            Some(found) if found.state == State::Running => {
                found.state = State::Stopped;
                true
            }
            _ => false,
        }
    }

    fn alloc(&mut self) -> Result<Answer, Errno> {
        if self.slots.len() == self.limits.slots {
            return Err(ENOSPC);
        }
        let slot = self.next;
        self.next += 1;
        self.slots.insert(slot, Slot::default());
        Ok(Answer {
            regions: self.limits.regions,
            ..of(slot)
        })
    }

    /// A slot that has not been started.
    fn being_made(&mut self, slot: u64) -> Result<&mut Slot, Errno> {
        let found = self.slots.get_mut(&slot).ok_or(ENODEV)?;
        if found.state == State::Init {
            Ok(found)
        } else {
            Err(EINVAL)
        }
    }

    fn add_memory(&mut self, slot: u64, region: Region) -> Result<Answer, Errno> {
        let Region { address, size } = region;
        if size == 0 || (address | size) % REGION != 0 {
            return Err(EINVAL);
        }
        let end = address.checked_add(size).ok_or(EINVAL)?;
        let overlaps = |taken: &Region| taken.address < end && address < taken.address + taken.size;
        if self.slots.values().flat_map(|s| &s.regions).any(overlaps) {
            return Err(EBUSY);
        }
        let most = self.limits.regions;
        let found = self.being_made(slot)?;
        if found.regions.len() as u64 == most {
            return Err(ENOMEM);
        }
        found.regions.push(region);
        Ok(of(slot))
    }

    fn add_cpu(&mut self, slot: u64, cpu: u32) -> Result<Answer, Errno> {
        if self.slots.values().any(|taken| taken.cpus.contains(&cpu)) {
            return Err(EBUSY);
        }
        self.being_made(slot)?.cpus.push(cpu);
        Ok(of(slot))
    }

    /// So many CPUs, whichever are free. The driver knows the command and never gives it.
    fn add_cpus(&mut self, slot: u64, count: u64) -> Result<Answer, Errno> {
        if count == 0 || count > 128 {
            return Err(EINVAL);
        }
        for _ in 0..count {
            let taken = |cpu: &u32| self.slots.values().any(|slot| slot.cpus.contains(cpu));
            let cpu = (0..).find(|cpu| !taken(cpu)).ok_or(ENOSPC)?;
            self.being_made(slot)?.cpus.push(cpu);
        }
        Ok(of(slot))
    }

    fn start(&mut self, slot: u64, cid: u64, flags: u64) -> Result<Step, Errno> {
        let first = self.limits.first_cid;
        let running: Vec<u64> = self
            .slots
            .values()
            .filter(|slot| slot.state == State::Running)
            .map(|slot| slot.cid)
            .collect();
        let found = self.being_made(slot)?;
        if found.cpus.is_empty() || found.regions.is_empty() {
            return Err(EINVAL);
        }
        let cid = match cid {
            0 => (first..).find(|cid| !running.contains(cid)).ok_or(ENOSPC)?,
            1..=3 => return Err(EINVAL),
            asked if running.contains(&asked) => return Err(EBUSY),
            asked if asked < u64::from(u32::MAX) => asked,
            _ => return Err(EINVAL),
        };
        Ok(Step::Start { slot, cid, flags })
    }

    fn stop(&mut self, slot: u64) -> Result<Step, Errno> {
        let found = self.slots.get_mut(&slot).ok_or(ENODEV)?;
        found.state = State::Stopped;
        Ok(Step::Stop { slot })
    }

    fn free(&mut self, slot: u64) -> Result<Step, Errno> {
        let found = self.slots.get(&slot).ok_or(ENODEV)?;
        if found.state == State::Running {
            return Err(EBUSY);
        }
        let regions = found.regions.clone();
        self.slots.remove(&slot);
        Ok(Step::Free { slot, regions })
    }

    fn find(&self, cid: u64) -> Result<Answer, Errno> {
        let mut running = self.slots.iter();
        let found = running.find(|(_, s)| s.state == State::Running && s.cid == cid);
        found.map(|(slot, _)| of(*slot)).ok_or(ENODEV)
    }

    fn info(&self, slot: u64) -> Result<Answer, Errno> {
        let found = self.slots.get(&slot).ok_or(ENODEV)?;
        Ok(Answer {
            cid: found.cid,
            regions: found.regions.len() as u64,
            memory: found.memory(),
            cpus: found.cpus.len() as u64,
            flags: found.flags,
            state: found.state,
            ..of(slot)
        })
    }
}

/// The answer that only names its slot.
#[must_use]
pub fn of(slot: u64) -> Answer {
    Answer {
        slot,
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests;
