//! What the Nitro hypervisor will measure of an EIF (aws-nitro-enclaves-image-format, "PCR"):
//! PCR0 over kernel, command line and all ramdisks; PCR1 without the later ramdisks; PCR2 over those alone.

use crate::eif::{Section, SectionKind};
use attestation::{HashAlgorithm, Measurements, Pcr};
use sha2::{Digest as _, Sha384};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const PIECE: usize = 1024 * 1024;

/// Hashes the sections in the order of the file. Memory does not depend on their size.
pub fn measure(file: &File, sections: &[Section]) -> io::Result<Measurements> {
    let mut boot = Vec::new();
    let mut application = Vec::new();
    let mut ramdisks = 0;
    for section in sections {
        match section.kind {
            SectionKind::Kernel | SectionKind::Cmdline => boot.push(*section),
            SectionKind::Ramdisk => {
                ramdisks += 1;
                if ramdisks == 1 {
                    boot.push(*section)
                } else {
                    application.push(*section)
                }
            }
            SectionKind::Signature | SectionKind::Metadata => {}
        }
    }
    let whole: Vec<Section> = boot.iter().chain(&application).copied().collect();
    // PCR0 and PCR2 read the same long ramdisk: one thread each.
    std::thread::scope(|scope| {
        let pcr0 = scope.spawn(|| pcr(file, &whole));
        let (pcr1, pcr2) = (pcr(file, &boot)?, pcr(file, &application)?);
        let pcr0 = pcr0
            .join()
            .map_err(|_| io::Error::other("the measuring thread died"))??;
        Ok(Measurements {
            hash_algorithm: HashAlgorithm::Sha384,
            pcr0,
            pcr1,
            pcr2,
            pcr8: None,
        })
    })
}

fn pcr(file: &File, sections: &[Section]) -> io::Result<Pcr> {
    let mut hasher = Sha384::new();
    for section in sections {
        read_range(file, section.start, section.end, |bytes| {
            hasher.update(bytes)
        })?;
    }
    Ok(Pcr::of_content_hash(hasher.finalize().into()))
}

/// Gives the bytes from `start` to `end` in pieces.
pub(crate) fn read_range(
    file: &File,
    start: u64,
    end: u64,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let Some(buffer) = piece.get_mut(..len) else {
            break;
        };
        file.read_exact_at(buffer, at)?;
        each(buffer);
        at += len as u64;
    }
    Ok(())
}
