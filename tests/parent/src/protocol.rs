//! What goes over the socket between QEMU's `nitro-enclaves-pci` and the hypervisor: the commands
//! and replies of drivers/virt/nitro_enclaves/ne_pci_dev.h (Linux 6.12), each in a frame of a
//! little-endian word and 240 bytes.

/// A frame, in bytes: the word and the device's register area for data.
pub const FRAME: usize = 4 + DATA;
const DATA: usize = 240;
const REPLY: u32 = 1;
const EVENT: u32 = 2;

/// An errno of Linux, as the driver hands it to the caller of its ioctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

pub const EIO: Errno = Errno(5);
pub const ENOMEM: Errno = Errno(12);
pub const EBUSY: Errno = Errno(16);
pub const ENODEV: Errno = Errno(19);
pub const EINVAL: Errno = Errno(22);
pub const ENOSPC: Errno = Errno(28);

/// What the driver asks for. Slots are numbers that `SlotAlloc` gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The driver turned the device off, or the guest was reset: everything is to be stopped. Has no
    /// reply.
    Off,
    EnclaveStart {
        slot: u64,
        cid: u64,
        flags: u64,
    },
    GetSlot {
        cid: u64,
    },
    EnclaveStop {
        slot: u64,
    },
    SlotAlloc,
    SlotFree {
        slot: u64,
    },
    AddMemory {
        slot: u64,
        address: u64,
        size: u64,
    },
    AddCpu {
        slot: u64,
        cpu: u32,
    },
    Count,
    Next {
        slot: u64,
    },
    Info {
        slot: u64,
    },
    AddCpus {
        slot: u64,
        count: u64,
    },
    Unknown(u32),
}

impl Command {
    /// Reads a frame. Whatever bytes they are, they are some command.
    #[must_use]
    pub fn parse(frame: &[u8; FRAME]) -> Command {
        let slot = word(frame, 0);
        match number(frame) {
            0 => Command::Off,
            1 => Command::EnclaveStart {
                slot,
                cid: word(frame, 8),
                flags: word(frame, 16),
            },
            2 => Command::GetSlot { cid: slot },
            3 => Command::EnclaveStop { slot },
            4 => Command::SlotAlloc,
            5 => Command::SlotFree { slot },
            6 => Command::AddMemory {
                slot,
                address: word(frame, 8),
                size: word(frame, 16),
            },
            7 => Command::AddCpu {
                slot,
                // The upper half is padding.
                cpu: (word(frame, 8) & u64::from(u32::MAX)) as u32,
            },
            8 => Command::Count,
            9 => Command::Next { slot },
            10 => Command::Info { slot },
            11 => Command::AddCpus {
                slot,
                count: word(frame, 8),
            },
            other => Command::Unknown(other),
        }
    }
}

/// The number of a frame's command.
#[must_use]
pub fn number(frame: &[u8; FRAME]) -> u32 {
    u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]])
}

fn word(frame: &[u8; FRAME], at: usize) -> u64 {
    let bytes = frame[4 + at..].first_chunk();
    u64::from_le_bytes(*bytes.expect("all fields are within the frame"))
}

/// What an enclave is doing, in the driver's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Init,
    Running,
    Stopped,
}

impl State {
    fn number(self) -> u16 {
        match self {
            State::Init => 0,
            State::Running => 2,
            State::Stopped => u16::MAX,
        }
    }
}

/// A reply's fields; those that a command does not speak of stay 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    pub slot: u64,
    pub cid: u64,
    pub count: u64,
    /// How many physical regions the slot may have, or has.
    pub regions: u64,
    /// In bytes.
    pub memory: u64,
    pub cpus: u64,
    pub flags: u64,
    pub state: State,
}

/// The frame that answers a command.
#[must_use]
pub fn reply(result: Result<Answer, Errno>) -> [u8; FRAME] {
    let mut out = [0; FRAME];
    out[..4].copy_from_slice(&REPLY.to_le_bytes());
    match result {
        Err(Errno(errno)) => out[4..8].copy_from_slice(&(-errno).to_le_bytes()),
        Ok(answer) => {
            let fields = [
                answer.slot,
                answer.cid,
                answer.count,
                answer.regions,
                answer.memory,
                answer.cpus,
                answer.flags,
            ];
            for (field, place) in fields.iter().zip(out[12..68].chunks_exact_mut(8)) {
                place.copy_from_slice(&field.to_le_bytes());
            }
            out[68..70].copy_from_slice(&answer.state.number().to_le_bytes());
        }
    }
    out
}

/// The frame that tells the driver to look at its enclaves' states.
#[must_use]
pub fn event() -> [u8; FRAME] {
    let mut out = [0; FRAME];
    out[..4].copy_from_slice(&EVENT.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(command: u32, words: &[u64]) -> [u8; FRAME] {
        let mut out = [0; FRAME];
        out[..4].copy_from_slice(&command.to_le_bytes());
        for (word, place) in words.iter().zip(out[4..].chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    #[test]
    fn commands_are_those_of_the_driver() {
        let start = Command::parse(&frame(1, &[7, 16, 1]));
        assert_eq!(
            start,
            Command::EnclaveStart {
                slot: 7,
                cid: 16,
                flags: 1
            }
        );
        let memory = Command::parse(&frame(6, &[7, 0x4000_0000, 0x20_0000]));
        assert_eq!(
            memory,
            Command::AddMemory {
                slot: 7,
                address: 0x4000_0000,
                size: 0x20_0000
            }
        );
        // struct slot_add_vcpu_req: the word behind the number is padding.
        let cpu = Command::parse(&frame(7, &[7, 0xffff_ffff_0000_0003]));
        assert_eq!(cpu, Command::AddCpu { slot: 7, cpu: 3 });
        assert_eq!(Command::parse(&frame(12, &[])), Command::Unknown(12));
    }

    #[test]
    fn replies_have_the_drivers_layout() {
        // struct ne_pci_dev_cmd_reply: rc 0, slot_uid 8, enclave_cid 16, slot_count 24,
        // mem_regions 32, mem_size 40, nr_vcpus 48, flags 56, state 64.
        let answer = Answer {
            slot: 1,
            cid: 2,
            count: 3,
            regions: 4,
            memory: 5,
            cpus: 6,
            flags: 7,
            state: State::Stopped,
        };
        let data = reply(Ok(answer))[4..].to_vec();
        assert_eq!(&data[..8], &[0; 8]);
        for (index, value) in [(8, 1), (16, 2), (24, 3), (32, 4), (40, 5), (48, 6), (56, 7)] {
            assert_eq!(&data[index..index + 8], &u64::to_le_bytes(value));
        }
        assert_eq!(&data[64..66], &[255, 255]);
        assert_eq!(&reply(Err(ENOMEM))[4..8], &(-12i32).to_le_bytes());
    }

    proptest! {
        #[test]
        fn any_frame_is_some_command(bytes in proptest::collection::vec(any::<u8>(), FRAME)) {
            let frame: [u8; FRAME] = bytes.try_into().unwrap();
            let command = Command::parse(&frame);
            prop_assert_eq!(command == Command::Off, number(&frame) == 0);
        }
    }
}
