//! Reads an EIF strictly: header and section headers must tell the same story, and nothing may be left over.
//! Lengths are compared with the file before anything is allocated.

use super::writer::crc_of_body;
use super::{
    CRC_AT, HEADER_LEN, MAGIC, MAX_SECTIONS, Metadata, SECTION_HEADER_LEN, SectionKind, VERSION,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Longest metadata that is read, in bytes.
const MAX_METADATA: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum EifError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path} is not an EIF that this tool reads: {problem}")]
    Invalid { path: String, problem: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    pub kind: SectionKind,
    /// Start of the data, in bytes from the start of the file.
    pub start: u64,
    /// End of the data.
    pub end: u64,
}

/// An open EIF whose structure was checked.
#[derive(Debug)]
pub struct Eif {
    path: String,
    file: File,
    version: u16,
    stored_crc: u32,
    header: Vec<u8>,
    sections: Vec<Section>,
    len: u64,
}

impl Eif {
    pub fn open(path: &Path) -> Result<Eif, EifError> {
        let shown = path.display().to_string();
        let read = |source| EifError::Read {
            path: shown.clone(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        let mut header = vec![0; HEADER_LEN];
        if len < HEADER_LEN as u64 {
            return Err(EifError::Invalid {
                path: shown,
                problem: "it is shorter than a header".to_owned(),
            });
        }
        file.read_exact_at(&mut header, 0).map_err(read)?;
        let invalid = |problem: String| EifError::Invalid {
            path: shown.clone(),
            problem,
        };
        let fields = Header::parse(&header).map_err(|problem| invalid(problem.to_owned()))?;
        let sections = read_sections(&file, &fields, len).map_err(|error| match error {
            Problem::Read(source) => read(source),
            Problem::Invalid(problem) => invalid(problem),
        })?;
        let Header {
            version,
            crc,
            sections: _,
        } = fields;
        Ok(Eif {
            path: shown,
            file,
            version,
            stored_crc: crc,
            header,
            sections,
            len,
        })
    }

    pub fn version(&self) -> u16 {
        self.version
    }

    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn is_signed(&self) -> bool {
        self.sections
            .iter()
            .any(|section| section.kind == SectionKind::Signature)
    }

    fn read_error(&self, source: io::Error) -> EifError {
        EifError::Read {
            path: self.path.clone(),
            source,
        }
    }

    /// Whether the checksum in the header is the file's. Reads the whole file.
    pub fn crc_matches(&self) -> Result<bool, EifError> {
        let crc = crc_of_body(&self.file, crc32fast::Hasher::new(), &self.header, self.len);
        Ok(crc.map_err(|e| self.read_error(e))? == self.stored_crc)
    }

    pub fn measure(&self) -> Result<attestation::Measurements, EifError> {
        crate::measure::measure(&self.file, &self.sections).map_err(|e| self.read_error(e))
    }

    pub fn metadata(&self) -> Result<Option<Metadata>, EifError> {
        let Some(section) = self
            .sections
            .iter()
            .find(|section| section.kind == SectionKind::Metadata)
        else {
            return Ok(None);
        };
        let len = section.end - section.start;
        let invalid = |problem: String| EifError::Invalid {
            path: self.path.clone(),
            problem,
        };
        let len = usize::try_from(len)
            .ok()
            .filter(|_| len <= MAX_METADATA)
            .ok_or_else(|| invalid("its metadata is longer than 1 MiB".to_owned()))?;
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, section.start)
            .map_err(|e| self.read_error(e))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| invalid(format!("its metadata: {e}")))
    }
}

struct Header {
    version: u16,
    crc: u32,
    /// Offset of the section's header, length of its data.
    sections: Vec<(u64, u64)>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Header, &'static str> {
        let short = "its header is short";
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(short)?;
        if *magic != MAGIC {
            return Err("it does not start with '.eif'");
        }
        let (version, rest) = rest.split_first_chunk().ok_or(short)?;
        let version = u16::from_be_bytes(*version);
        if !(2..=VERSION).contains(&version) {
            return Err("its version is not 2, 3 or 4");
        }
        let (flags, rest) = rest.split_first_chunk().ok_or(short)?;
        if u16::from_be_bytes(*flags) > 1 {
            return Err("it has unknown flags");
        }
        // Default memory, default CPUs and a reserved field: nobody reads them.
        let (_, rest) = rest.split_first_chunk::<18>().ok_or(short)?;
        let (count, rest) = rest.split_first_chunk().ok_or(short)?;
        let count = usize::from(u16::from_be_bytes(*count));
        if !(2..=MAX_SECTIONS).contains(&count) {
            return Err("its number of sections is not 2 to 32");
        }
        let numbers = |bytes: &[u8]| -> Vec<u64> {
            bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|number| u64::from_be_bytes(*number))
                .collect()
        };
        let (offsets, rest) = rest.split_at_checked(MAX_SECTIONS * 8).ok_or(short)?;
        let (sizes, rest) = rest.split_at_checked(MAX_SECTIONS * 8).ok_or(short)?;
        let mut sections: Vec<(u64, u64)> =
            numbers(offsets).into_iter().zip(numbers(sizes)).collect();
        if sections
            .iter()
            .skip(count)
            .any(|section| *section != (0, 0))
        {
            return Err("it has offsets or sizes behind its last section");
        }
        sections.truncate(count);
        let crc = rest.last_chunk().ok_or(short)?;
        debug_assert_eq!(CRC_AT + 4, HEADER_LEN);
        Ok(Header {
            version,
            crc: u32::from_be_bytes(*crc),
            sections,
        })
    }
}

enum Problem {
    Read(io::Error),
    Invalid(String),
}

/// Sections must follow one another without a gap, each as its own header says, up to the end of the file.
fn read_sections(file: &File, header: &Header, len: u64) -> Result<Vec<Section>, Problem> {
    let invalid = |problem: &str| Problem::Invalid(problem.to_owned());
    let mut sections: Vec<Section> = Vec::new();
    let mut expected = HEADER_LEN as u64;
    for &(at, size) in &header.sections {
        let start = at.checked_add(SECTION_HEADER_LEN as u64);
        let end = start
            .and_then(|start| start.checked_add(size))
            .filter(|&end| end <= len);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(invalid("a section ends behind the file"));
        };
        if at != expected {
            return Err(invalid("its sections do not follow one another"));
        }
        let mut own = [0; SECTION_HEADER_LEN];
        file.read_exact_at(&mut own, at).map_err(Problem::Read)?;
        let [k0, k1, f0, f1, size_bytes @ ..] = own;
        if u64::from_be_bytes(size_bytes) != size {
            return Err(invalid(
                "a section's header and the file's disagree about its size",
            ));
        }
        if [f0, f1] != [0, 0] {
            return Err(invalid("a section has unknown flags"));
        }
        let kind = SectionKind::of(u16::from_be_bytes([k0, k1]))
            .ok_or_else(|| invalid("a section has an unknown type"))?;
        sections.push(Section { kind, start, end });
        expected = end;
    }
    if expected != len {
        return Err(invalid("bytes follow its last section"));
    }
    check_kinds(&sections, header.version).map_err(invalid)?;
    Ok(sections)
}

fn check_kinds(sections: &[Section], version: u16) -> Result<(), &'static str> {
    let count = |kind| {
        sections
            .iter()
            .filter(|section| section.kind == kind)
            .count()
    };
    if sections
        .first()
        .is_none_or(|first| first.kind != SectionKind::Kernel)
        || count(SectionKind::Kernel) != 1
    {
        return Err("it must start with its one kernel");
    }
    if count(SectionKind::Cmdline) != 1 {
        return Err("it must have one command line");
    }
    if count(SectionKind::Metadata) > 1 || (version >= 4 && count(SectionKind::Metadata) == 0) {
        return Err("it must have one metadata section");
    }
    if count(SectionKind::Signature) > 1 {
        return Err("it has two signatures");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;
    use std::io::Write as _;

    fn image() -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.as_file());
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
        let cases: [(&str, Change<'_>); 10] = [
            ("shorter", &|b| b.truncate(547)),
            (".eif", &|b| b[0] = 0),
            ("version", &|b| b[5] = 5),
            ("flags", &|b| b[7] = 2),
            ("number of sections", &|b| b[0x1b] = 33),
            ("follow one another", &|b| b[offset(1)] += 1),
            ("disagree", &|b| b[size(0)] -= 1),
            ("behind the file", &|b| b[size(3) - 7] = 0xff),
            ("bytes follow", &|b| b.push(0)),
            ("unknown type", &|b| b[HEADER_LEN + 1] = 6),
        ];
        for (problem, change) in cases {
            let mut bytes = image();
            change(&mut bytes);
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.contains(problem), "{problem}: {error}");
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
            let _ = open(&bytes);
        }
    }
}
