//! What the Nitro hypervisor will measure of an EIF (aws-nitro-enclaves-image-format, "PCR"): PCR0
//! over kernel, command line and all ramdisks; PCR1 without the later ramdisks; PCR2 over those
//! alone.

use super::format::{Section, SectionKind};
use super::range::read_range;
use attestation::{HashAlgorithm, Measurements, Pcr};
use sha2::{Digest as _, Sha384};
use std::fs::File;
use std::io;
use std::ops::Range;

/// Computes PCR0, PCR1 and PCR2 of an EIF whose sections are given in the order of the file. PCR8
/// is left out: it belongs to the signing certificate.
///
/// Blocks: it reads every measured section twice, on two threads. It needs 2 MiB of memory, however
/// long the sections are.
///
/// A PCR is SHA-384 over 48 zero bytes and the SHA-384 of what it covers:
///
/// ```
/// use attestation::Pcr;
/// use eif_builder::eif::{Section, SectionKind, measure};
/// use sha2::{Digest as _, Sha384};
/// use std::io::Write as _;
///
/// # fn main() -> std::io::Result<()> {
/// let mut file = tempfile::tempfile()?;
/// file.write_all(b"kernel")?;
/// let kernel = Section { kind: SectionKind::Kernel, start: 0, end: 6 };
/// let measurements = measure(&file, &[kernel])?;
/// assert_eq!(measurements.pcr1, Pcr::of_content_hash(Sha384::digest(b"kernel").into()));
/// assert_eq!(measurements.pcr2, Pcr::of_content_hash(Sha384::digest(b"").into()));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The file cannot be read, or ends before one of the sections does.
pub fn measure(file: &File, sections: &[Section]) -> io::Result<Measurements> {
    let mut boot = Vec::new();
    let mut application = Vec::new();
    let mut ramdisks = 0;
    for section in sections {
        match section.kind {
            SectionKind::Kernel | SectionKind::Cmdline => boot.push(section.range()),
            SectionKind::Ramdisk => {
                ramdisks += 1;
                if ramdisks == 1 {
                    boot.push(section.range());
                } else {
                    application.push(section.range());
                }
            }
            SectionKind::Signature | SectionKind::Metadata => {}
        }
    }
    // PCR0 and PCR2 read the same long ramdisk: one thread each.
    std::thread::scope(|scope| {
        let pcr0 = scope.spawn(|| pcr(file, boot.iter().chain(&application)));
        let (pcr1, pcr2) = (pcr(file, boot.iter())?, pcr(file, application.iter())?);
        let pcr0 = pcr0
            .join()
            .map_err(|_| io::Error::other("the measuring thread panicked"))??;
        Ok(Measurements {
            hash_algorithm: HashAlgorithm::Sha384,
            pcr0,
            pcr1,
            pcr2,
            pcr8: None,
        })
    })
}

fn pcr<'a>(file: &File, ranges: impl Iterator<Item = &'a Range<u64>>) -> io::Result<Pcr> {
    let mut hasher = Sha384::new();
    for range in ranges {
        read_range(file, range.clone(), |bytes| hasher.update(bytes))?;
    }
    Ok(Pcr::of_content_hash(hasher.finalize().into()))
}
