//! The parent's physical memory, as QEMU keeps it in a file.

use crate::slots::Region;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// Where the driver has the enclave image put, in bytes of the enclave's memory
/// (`NE_EIF_LOAD_OFFSET`).
const EIF_OFFSET: u64 = 8 * MIB;
const EIF_HEADER: usize = 548;
const EIF_SECTIONS: usize = 32;
/// What the parent reads where an enclave's memory is: Nitro unmaps it.
const POISON: u8 = 0xe7;
const PIECE: usize = 4 << 20;

/// The guest's memory. All of it lies below 4 GiB, in one piece.
#[derive(Debug)]
pub(crate) struct Memory(File);

impl Memory {
    /// # Errors
    /// There is no such file, or it cannot be written to.
    pub(crate) fn open(path: &Path) -> io::Result<Memory> {
        let mut options = File::options();
        Ok(Memory(options.read(true).write(true).open(path)?))
    }

    /// Copies the enclave image out of an enclave's memory. Returns its length in bytes.
    ///
    /// # Errors
    /// There is none, or it does not fit, or the copy cannot be written.
    pub(crate) fn extract(&self, regions: &[Region], path: &Path) -> io::Result<u64> {
        let mut header = [0; EIF_HEADER];
        self.read(regions, EIF_OFFSET, &mut header)?;
        let total: u64 = regions.iter().map(|region| region.size).sum();
        let end = eif_length(&header)?;
        if end > total.saturating_sub(EIF_OFFSET) {
            return Err(io::Error::other(format!("the EIF ends at {end}")));
        }
        let mut out = File::create(path)?;
        let mut piece = vec![0; PIECE];
        let mut done = 0;
        while done < end {
            let length = usize::try_from(end - done).map_or(PIECE, |left| left.min(PIECE));
            self.read(regions, EIF_OFFSET + done, &mut piece[..length])?;
            out.write_all(&piece[..length])?;
            done += length as u64;
        }
        Ok(end)
    }

    /// What the parent put there is the enclave's now.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub(crate) fn poison(&self, regions: &[Region]) -> io::Result<()> {
        self.fill(regions, POISON)
    }

    /// What the enclave held does not come back to the parent.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub(crate) fn scrub(&self, regions: &[Region]) -> io::Result<()> {
        self.fill(regions, 0)
    }

    fn fill(&self, regions: &[Region], byte: u8) -> io::Result<()> {
        let piece = vec![byte; PIECE];
        for region in regions {
            let mut done = 0;
            while done < region.size {
                let length = usize::try_from(region.size - done).map_or(PIECE, |l| l.min(PIECE));
                self.0
                    .write_all_at(&piece[..length], region.address + done)?;
                done += length as u64;
            }
        }
        Ok(())
    }

    /// The regions are one after the other, as they were added.
    fn read(&self, regions: &[Region], mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        for region in regions {
            if at >= region.size {
                at -= region.size;
                continue;
            }
            let left = usize::try_from(region.size - at).unwrap_or(usize::MAX);
            let (head, tail) = into.split_at_mut(into.len().min(left));
            self.0.read_exact_at(head, region.address + at)?;
            (into, at) = (tail, 0);
            if into.is_empty() {
                return Ok(());
            }
        }
        Err(io::Error::other(
            "the EIF is longer than the enclave's memory",
        ))
    }
}

/// By its table of sections, as the driver's documentation has it: nothing else says how long it is.
fn eif_length(header: &[u8; EIF_HEADER]) -> io::Result<u64> {
    if !header.starts_with(b".eif") {
        return Err(io::Error::other("no EIF at 8 MiB of the enclave's memory"));
    }
    let count = usize::from(u16::from_be_bytes([header[26], header[27]])).min(EIF_SECTIONS);
    let words = |at: usize| {
        let bytes = header[at..at + 8 * EIF_SECTIONS].chunks_exact(8);
        bytes.map(|word| {
            word.iter()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        })
    };
    let ends = words(28).zip(words(28 + 8 * EIF_SECTIONS)).take(count);
    let end = ends.map(|(offset, size)| offset.saturating_add(12).saturating_add(size));
    end.max()
        .filter(|end| *end > EIF_HEADER as u64)
        .ok_or_else(|| io::Error::other("the EIF has no sections"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGIONS: [Region; 2] = [
        Region {
            address: 12 * MIB,
            size: 10 * MIB,
        },
        Region {
            address: 2 * MIB,
            size: 6 * MIB,
        },
    ];

    /// 24 MiB of memory with an EIF of 3 MiB that lies across the regions.
    fn memory() -> (tempfile::TempDir, Memory, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ram");
        let file = File::create(&path).unwrap();
        file.set_len(24 * MIB).unwrap();
        let mut eif: Vec<u8> = (0..3 * MIB).map(|n| (n % 251) as u8).collect();
        eif[..548].fill(0);
        eif[..4].copy_from_slice(b".eif");
        eif[27] = 1;
        eif[28..36].copy_from_slice(&548u64.to_be_bytes());
        eif[284..292].copy_from_slice(&(3 * MIB - 548 - 12).to_be_bytes());
        let (head, tail) = eif.split_at(2 << 20);
        file.write_all_at(head, 20 * MIB).unwrap();
        file.write_all_at(tail, 2 * MIB).unwrap();
        let memory = Memory::open(&path).unwrap();
        (directory, memory, eif)
    }

    #[test]
    fn an_image_across_regions_comes_out_whole() {
        let (directory, memory, eif) = memory();
        let path = directory.path().join("eif");
        assert_eq!(memory.extract(&REGIONS, &path).unwrap(), 3 * MIB);
        assert!(std::fs::read(path).unwrap() == eif);
    }

    #[test]
    fn an_image_longer_than_its_memory_is_refused() {
        let (directory, memory, _) = memory();
        let path = directory.path().join("eif");
        assert!(memory.extract(&REGIONS[..1], &path).is_err());
        assert!(memory.extract(&REGIONS[1..], &path).is_err());
        assert!(memory.extract(&[], &path).is_err());
    }

    #[test]
    fn the_parent_sees_poison_and_then_zeros_and_nothing_else_is_touched() {
        let (directory, memory, _) = memory();
        let read = |at: usize| std::fs::read(directory.path().join("ram")).unwrap()[at];
        memory.poison(&REGIONS).unwrap();
        assert_eq!((read(2 << 20), read((22 << 20) - 1)), (POISON, POISON));
        assert_eq!((read((2 << 20) - 1), read(22 << 20)), (0, 0));
        memory.scrub(&REGIONS).unwrap();
        assert_eq!((read(2 << 20), read((22 << 20) - 1)), (0, 0));
    }
}
