//! Reads an EIF strictly: header and section headers must agree, and no byte may be left over.
//! Lengths are compared with the file before anything is allocated.

use super::error::{EifError, EifProblem};
use super::format::{HEADER_LEN, SECTION_HEADER_LEN, Section, SectionKind};
use super::header::{Header, Slot};
use super::measure::measure;
use super::metadata::Metadata;
use super::range::crc;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Longest metadata that is read, in bytes.
const MAX_METADATA: u64 = 1024 * 1024;

/// An open EIF whose structure was checked.
///
/// ```
/// use eif_builder::eif::{Eif, EifWriter, SectionKind};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = tempfile::NamedTempFile::new()?;
/// let mut writer = EifWriter::new(file.as_file());
/// writer.section(SectionKind::Kernel, b"a bzImage")?;
/// writer.section(SectionKind::Cmdline, b"console=ttyS0")?;
/// writer.section(SectionKind::Metadata, b"{}")?;
/// writer.section(SectionKind::Ramdisk, b"a cpio archive")?;
/// writer.finish()?;
///
/// let eif = Eif::open(file.path())?;
/// assert!(eif.crc_matches()? && !eif.is_signed());
/// // With a single ramdisk, PCR0 and PCR1 cover the same bytes.
/// let measurements = eif.measure()?;
/// assert_eq!(measurements.pcr0, measurements.pcr1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Eif {
    path: PathBuf,
    file: File,
    version: u16,
    stored_crc: u32,
    header: Vec<u8>,
    sections: Vec<Section>,
    len: u64,
}

impl Eif {
    /// Opens a file, and checks its header and the headers of its sections. Blocks on the disk, but
    /// reads no section's data.
    ///
    /// # Errors
    /// The file cannot be read, or is no EIF of version 2 to 4. A wrong checksum is no error: see
    /// [`Eif::crc_matches`].
    pub fn open(path: &Path) -> Result<Eif, EifError> {
        let fail = |cause| match cause {
            Cause::Read(source) => EifError::Read {
                path: path.to_owned(),
                source,
            },
            Cause::Invalid(problem) => EifError::Invalid {
                path: path.to_owned(),
                problem,
            },
        };
        let file = File::open(path).map_err(|e| fail(e.into()))?;
        let (len, header, fields) = read_header(&file).map_err(fail)?;
        let sections = read_sections(&file, &fields, len).map_err(fail)?;
        Ok(Eif {
            path: path.to_owned(),
            file,
            version: fields.version,
            stored_crc: fields.crc,
            header,
            sections,
            len,
        })
    }

    /// The version of the format: 2, 3 or 4.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// All sections in the order of the file.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The open file, to read the data of sections from.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it has a signature section. The signature is not verified.
    pub fn is_signed(&self) -> bool {
        self.sections
            .iter()
            .any(|section| section.kind == SectionKind::Signature)
    }

    /// Whether the checksum in the header is that of the file. Blocks: it reads the whole file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn crc_matches(&self) -> Result<bool, EifError> {
        let crc = crc(&self.file, &self.header, self.len).map_err(|e| self.read_error(e))?;
        Ok(crc == self.stored_crc)
    }

    /// The PCRs that an enclave of this image will have. Blocks: it reads the measured sections
    /// twice.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn measure(&self) -> Result<attestation::Measurements, EifError> {
        measure(&self.file, &self.sections).map_err(|e| self.read_error(e))
    }

    /// The metadata, if it has any. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read, or its metadata is longer than 1 MiB or not the JSON of nitro-cli.
    pub fn metadata(&self) -> Result<Option<Metadata>, EifError> {
        let mut sections = self.sections.iter();
        let Some(section) = sections.find(|section| section.kind == SectionKind::Metadata) else {
            return Ok(None);
        };
        let invalid = |problem| EifError::Invalid {
            path: self.path.clone(),
            problem,
        };
        let len = section.end - section.start;
        let len = usize::try_from(len)
            .ok()
            .filter(|_| len <= MAX_METADATA)
            .ok_or_else(|| invalid(EifProblem::MetadataTooLong))?;
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, section.start)
            .map_err(|e| self.read_error(e))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| invalid(EifProblem::MetadataSyntax(e.to_string())))
    }

    fn read_error(&self, source: io::Error) -> EifError {
        EifError::Read {
            path: self.path.clone(),
            source,
        }
    }
}

/// An [`EifError`] that does not know its path yet.
enum Cause {
    Read(io::Error),
    Invalid(EifProblem),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Cause {
        Cause::Read(error)
    }
}

impl From<EifProblem> for Cause {
    fn from(problem: EifProblem) -> Cause {
        Cause::Invalid(problem)
    }
}

/// The file's length, and its header as bytes and decoded.
fn read_header(file: &File) -> Result<(u64, Vec<u8>, Header), Cause> {
    let len = file.metadata()?.len();
    if len < HEADER_LEN as u64 {
        return Err(EifProblem::ShorterThanHeader.into());
    }
    let mut header = vec![0; HEADER_LEN];
    file.read_exact_at(&mut header, 0)?;
    let fields = Header::parse(&header)?;
    Ok((len, header, fields))
}

/// Sections must follow one another without a gap, each as long as its own header has it, up to the
/// end of the file.
fn read_sections(file: &File, header: &Header, len: u64) -> Result<Vec<Section>, Cause> {
    let mut sections: Vec<Section> = Vec::new();
    let mut expected = HEADER_LEN as u64;
    for slot in &header.slots {
        let section = read_section(file, *slot, expected, len)?;
        expected = section.end;
        sections.push(section);
    }
    if expected != len {
        return Err(EifProblem::TrailingBytes.into());
    }
    check_kinds(&sections, header.version)?;
    Ok(sections)
}

/// Reads the header of the section that must start at `expected` in a file of `len` bytes.
fn read_section(file: &File, slot: Slot, expected: u64, len: u64) -> Result<Section, Cause> {
    let start = slot.at.checked_add(SECTION_HEADER_LEN as u64);
    let end = start
        .and_then(|start| start.checked_add(slot.len))
        .filter(|&end| end <= len);
    let (Some(start), Some(end)) = (start, end) else {
        return Err(EifProblem::SectionTooLong.into());
    };
    if slot.at != expected {
        return Err(EifProblem::NotContiguous.into());
    }
    let mut own = [0; SECTION_HEADER_LEN];
    file.read_exact_at(&mut own, slot.at)?;
    let [k0, k1, f0, f1, own_len @ ..] = own;
    if u64::from_be_bytes(own_len) != slot.len {
        return Err(EifProblem::SizesDisagree.into());
    }
    if [f0, f1] != [0, 0] {
        return Err(EifProblem::SectionFlags.into());
    }
    let kind = SectionKind::of(u16::from_be_bytes([k0, k1])).ok_or(EifProblem::SectionType)?;
    Ok(Section { kind, start, end })
}

fn check_kinds(sections: &[Section], version: u16) -> Result<(), EifProblem> {
    let count = |kind| {
        sections
            .iter()
            .filter(|section| section.kind == kind)
            .count()
    };
    let first = sections.first().map(|first| first.kind);
    if first != Some(SectionKind::Kernel) || count(SectionKind::Kernel) != 1 {
        return Err(EifProblem::Kernel);
    }
    if count(SectionKind::Cmdline) != 1 {
        return Err(EifProblem::Cmdline);
    }
    if count(SectionKind::Metadata) > 1 || (version >= 4 && count(SectionKind::Metadata) == 0) {
        return Err(EifProblem::MetadataCount);
    }
    if count(SectionKind::Signature) > 1 {
        return Err(EifProblem::Signatures);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::EifWriter;
    use super::*;
    use std::io::Write as _;

    fn image() -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = EifWriter::new(file.as_file());
        writer.section(SectionKind::Kernel, b"kernel").unwrap();
        writer.section(SectionKind::Cmdline, b"quiet").unwrap();
        writer.section(SectionKind::Metadata, b"{}").unwrap();
        writer.section(SectionKind::Ramdisk, b"one").unwrap();
        let len = writer.finish().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(len, bytes.len() as u64);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Eif, EifError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Eif::open(file.path())
    }

    #[test]
    fn reads_what_it_writes() {
        let eif = open(&image()).unwrap();
        let kinds: Vec<_> = eif
            .sections()
            .iter()
            .map(|section| (section.kind, section.end - section.start))
            .collect();
        use SectionKind::*;
        assert_eq!(
            kinds,
            [(Kernel, 6), (Cmdline, 5), (Metadata, 2), (Ramdisk, 3)]
        );
        assert!(eif.crc_matches().unwrap() && !eif.is_signed());
    }

    #[test]
    fn a_changed_byte_breaks_the_checksum() {
        let mut bytes = image();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(!open(&bytes).unwrap().crc_matches().unwrap());
    }

    #[test]
    fn refuses_files_that_say_two_things() {
        let offset = |n: usize| 0x1c + 8 * n + 7;
        let size = |n: usize| 0x11c + 8 * n + 7;
        type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
        let cases: [(EifProblem, Change<'_>); 10] = [
            (EifProblem::ShorterThanHeader, &|b| b.truncate(547)),
            (EifProblem::Magic, &|b| b[0] = 0),
            (EifProblem::Version, &|b| b[5] = 5),
            (EifProblem::Flags, &|b| b[7] = 2),
            (EifProblem::SectionCount, &|b| b[0x1b] = 33),
            (EifProblem::NotContiguous, &|b| b[offset(1)] += 1),
            (EifProblem::SizesDisagree, &|b| b[size(0)] -= 1),
            (EifProblem::SectionTooLong, &|b| b[size(3) - 7] = 0xff),
            (EifProblem::TrailingBytes, &|b| b.push(0)),
            (EifProblem::SectionType, &|b| b[HEADER_LEN + 1] = 6),
        ];
        for (expected, change) in cases {
            let mut bytes = image();
            change(&mut bytes);
            let error = open(&bytes).unwrap_err();
            assert!(
                matches!(&error, EifError::Invalid { problem, .. } if *problem == expected),
                "{expected:?}: {error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_gives_an_image_or_an_error(at in 0usize..600, byte: u8, len in 0usize..650) {
            let mut bytes = image();
            bytes.resize(len, 0);
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
            drop(open(&bytes));
        }
    }
}
