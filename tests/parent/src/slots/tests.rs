use super::*;
use proptest::prelude::*;

fn answer(slots: &mut Slots, command: Command) -> Result<Answer, Errno> {
    match slots.command(command)? {
        Step::Answer(answer) => Ok(answer),
        step => panic!("{command:?} wants {step:?}"),
    }
}

fn memory(slot: u64, address: u64, size: u64) -> Command {
    Command::AddMemory {
        slot,
        address,
        size,
    }
}

/// A slot that can be started.
fn ready(slots: &mut Slots, place: u64) -> u64 {
    let slot = answer(slots, Command::SlotAlloc).unwrap().slot;
    answer(slots, memory(slot, place * REGION, REGION)).unwrap();
    let cpu = place as u32;
    answer(slots, Command::AddCpu { slot, cpu }).unwrap();
    slot
}

fn start(slot: u64, cid: u64) -> Command {
    Command::EnclaveStart {
        slot,
        cid,
        flags: 0,
    }
}

#[test]
fn a_slot_lives_from_alloc_to_free() {
    let mut slots = Slots::new(Limits::default());
    let slot = ready(&mut slots, 1);
    let step = slots.command(start(slot, 0)).unwrap();
    assert_eq!(
        step,
        Step::Start {
            slot,
            cid: 16,
            flags: 0
        }
    );
    slots.started(slot, 16, 0);
    assert_eq!(slots.command(start(slot, 0)), Err(EINVAL));
    assert_eq!(slots.command(Command::SlotFree { slot }), Err(EBUSY));
    let found = answer(&mut slots, Command::GetSlot { cid: 16 }).unwrap();
    assert_eq!(found.slot, slot);
    let info = answer(&mut slots, Command::Info { slot }).unwrap();
    assert_eq!(
        (info.memory, info.cpus, info.state),
        (REGION, 1, State::Running)
    );
    assert!(slots.ended(slot) && !slots.ended(slot));
    let info = answer(&mut slots, Command::Info { slot }).unwrap();
    assert_eq!(info.state, State::Stopped);
    let freed = slots.command(Command::SlotFree { slot }).unwrap();
    let regions = vec![Region {
        address: REGION,
        size: REGION,
    }];
    assert_eq!(freed, Step::Free { slot, regions });
    assert_eq!(slots.command(Command::Info { slot }), Err(ENODEV));
}

#[test]
fn memory_is_whole_pieces_and_nobody_elses() {
    let mut slots = Slots::new(Limits {
        regions: 2,
        ..Limits::default()
    });
    let slot = answer(&mut slots, Command::SlotAlloc).unwrap().slot;
    for (address, size) in [
        (0, 0),
        (1, REGION),
        (0, REGION - 1),
        (u64::MAX - REGION + 1, REGION),
    ] {
        assert_eq!(answer(&mut slots, memory(slot, address, size)), Err(EINVAL));
    }
    answer(&mut slots, memory(slot, 4 * REGION, 2 * REGION)).unwrap();
    let other = answer(&mut slots, Command::SlotAlloc).unwrap().slot;
    for place in [3, 4, 5] {
        let overlapping = memory(other, place * REGION, 2 * REGION);
        assert_eq!(answer(&mut slots, overlapping), Err(EBUSY));
    }
    answer(&mut slots, memory(slot, 8 * REGION, REGION)).unwrap();
    assert_eq!(
        answer(&mut slots, memory(slot, 9 * REGION, REGION)),
        Err(ENOMEM)
    );
}

#[test]
fn cpus_are_given_once_one_by_one_or_in_bulk() {
    let mut slots = Slots::new(Limits::default());
    let slot = ready(&mut slots, 1);
    let other = answer(&mut slots, Command::SlotAlloc).unwrap().slot;
    let again = Command::AddCpu {
        slot: other,
        cpu: 1,
    };
    assert_eq!(slots.command(again), Err(EBUSY));
    let bulk = |count| Command::AddCpus { slot: other, count };
    assert_eq!(slots.command(bulk(0)), Err(EINVAL));
    answer(&mut slots, bulk(3)).unwrap();
    assert_eq!(slots.get(other).unwrap().cpus, [0, 2, 3]);
    assert_eq!(slots.get(slot).unwrap().cpus, [1]);
}

#[test]
fn cids_are_chosen_or_checked() {
    let mut slots = Slots::new(Limits::default());
    let (one, other) = (ready(&mut slots, 1), ready(&mut slots, 2));
    for cid in [1, 2, 3, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(slots.command(start(one, cid)), Err(EINVAL));
    }
    slots.started(one, 16, 0);
    assert_eq!(slots.command(start(other, 16)), Err(EBUSY));
    let Ok(Step::Start { cid, .. }) = slots.command(start(other, 0)) else {
        panic!("it does not start")
    };
    assert_eq!(cid, 17);
    let bare = answer(&mut slots, Command::SlotAlloc).unwrap().slot;
    assert_eq!(slots.command(start(bare, 0)), Err(EINVAL));
}

#[test]
fn slots_are_listed_and_bounded() {
    let mut slots = Slots::new(Limits {
        slots: 2,
        ..Limits::default()
    });
    let one = answer(&mut slots, Command::SlotAlloc).unwrap().slot;
    let other = answer(&mut slots, Command::SlotAlloc).unwrap().slot;
    assert_eq!(slots.command(Command::SlotAlloc), Err(ENOSPC));
    let next = |slots: &mut Slots, slot| answer(slots, Command::Next { slot }).map(|a| a.slot);
    assert_eq!(next(&mut slots, 0), Ok(one));
    assert_eq!(next(&mut slots, one), Ok(other));
    assert_eq!(next(&mut slots, other), Err(ENODEV));
    assert_eq!(next(&mut slots, u64::MAX), Err(ENODEV));
    assert_eq!(answer(&mut slots, Command::Count).unwrap().count, 2);
}

proptest! {
    /// Whatever is asked for, no memory and no CPU belongs to two slots.
    #[test]
    fn nothing_is_given_twice(steps in proptest::collection::vec((0u8..5, 0u64..4, 0u64..8), 0..60)) {
        let mut slots = Slots::new(Limits::default());
        let mut known = vec![0];
        for (kind, which, place) in steps {
            let slot = known[which as usize % known.len()];
            let command = match kind {
                0 => Command::SlotAlloc,
                1 => memory(slot, place * REGION, REGION * (1 + place % 3)),
                2 => Command::AddCpu { slot, cpu: place as u32 },
                3 => Command::AddCpus { slot, count: place },
                _ => Command::SlotFree { slot },
            };
            if let Ok(Step::Answer(answer)) = slots.command(command)
                && command == Command::SlotAlloc
            {
                known.push(answer.slot);
            }
        }
        let all = || slots.slots.values();
        let mut pieces: Vec<u64> = all().flat_map(|s| &s.regions)
            .flat_map(|r| (r.address..r.address + r.size).step_by(REGION as usize)).collect();
        let mut cpus: Vec<u32> = all().flat_map(|s| s.cpus.clone()).collect();
        let counts = (pieces.len(), cpus.len());
        pieces.sort_unstable();
        pieces.dedup();
        cpus.sort_unstable();
        cpus.dedup();
        prop_assert_eq!((pieces.len(), cpus.len()), counts);
    }
}
