//! The 548 bytes at the start of an EIF, decoded and encoded.

use super::error::EifProblem;
use super::format::{CRC_AT, HEADER_LEN, MAGIC, MAX_SECTIONS, VERSION};

/// What AWS's tools write into two fields that are never read.
const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_CPUS: u64 = 2;

/// Where a section is, according to the file's header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// Offset of the section's own header, in bytes from the start of the file.
    pub(super) at: u64,
    /// Length of the section's data in bytes.
    pub(super) len: u64,
}

/// A decoded header whose own fields are consistent.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) crc: u32,
    pub(super) slots: Vec<Slot>,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, EifProblem> {
        let mut fields = Fields(bytes);
        if fields.take::<4>()? != MAGIC {
            return Err(EifProblem::Magic);
        }
        let version = u16::from_be_bytes(fields.take()?);
        if !(2..=VERSION).contains(&version) {
            return Err(EifProblem::Version);
        }
        if u16::from_be_bytes(fields.take()?) > 1 {
            return Err(EifProblem::Flags);
        }
        // Default memory, default CPUs and a reserved field: the hypervisor reads none of them.
        fields.take::<18>()?;
        let count = usize::from(u16::from_be_bytes(fields.take()?));
        if !(2..=MAX_SECTIONS).contains(&count) {
            return Err(EifProblem::SectionCount);
        }
        let offsets = fields.numbers()?;
        let sizes = fields.numbers()?;
        let mut slots: Vec<Slot> = offsets
            .into_iter()
            .zip(sizes)
            .map(|(at, len)| Slot { at, len })
            .collect();
        if slots
            .iter()
            .skip(count)
            .any(|slot| *slot != Slot::default())
        {
            return Err(EifProblem::UnusedSlots);
        }
        slots.truncate(count);
        let crc = fields.0.last_chunk().ok_or(EifProblem::ShorterThanHeader)?;
        debug_assert_eq!(CRC_AT + 4, HEADER_LEN);
        Ok(Header {
            version,
            crc: u32::from_be_bytes(*crc),
            slots,
        })
    }

    /// All of a header of the newest version but for its last field, the CRC.
    pub(super) fn encode(slots: &[Slot]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend(MAGIC);
        header.extend(VERSION.to_be_bytes());
        header.extend(0u16.to_be_bytes()); // x86_64
        header.extend(DEFAULT_MEMORY.to_be_bytes());
        header.extend(DEFAULT_CPUS.to_be_bytes());
        header.extend(0u16.to_be_bytes());
        let count = u16::try_from(slots.len()).unwrap_or(u16::MAX);
        header.extend(count.to_be_bytes());
        let padded = |of: fn(&Slot) -> u64| {
            let known = slots.iter().map(of).chain(std::iter::repeat(0));
            known.take(MAX_SECTIONS).flat_map(u64::to_be_bytes)
        };
        header.extend(padded(|slot| slot.at));
        header.extend(padded(|slot| slot.len));
        header.extend(0u32.to_be_bytes());
        debug_assert_eq!(header.len(), CRC_AT);
        header
    }
}

/// The bytes that are not decoded yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], EifProblem> {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .ok_or(EifProblem::ShorterThanHeader)?;
        self.0 = rest;
        Ok(*field)
    }

    /// One number for each possible section.
    fn numbers(&mut self) -> Result<Vec<u64>, EifProblem> {
        (0..MAX_SECTIONS)
            .map(|_| self.take().map(u64::from_be_bytes))
            .collect()
    }
}
