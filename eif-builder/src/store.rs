//! Keeps EIFs on disk by what they measure to. A file is named after PCR0, which covers all that
//! boots, so two builds that cannot be told apart by attestation are one file.
//!
//! What is read back is measured again, every time: nothing that was changed on disk is returned.
//! Which files are still needed is for the caller to know.

use crate::build::Built;
use crate::eif::{Eif, EifError, SectionKind};
use crate::rootfs;
use attestation::{Measurements, Pcr};
use explain::{Code, Explain};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use wire::ramdisk;
use wire::spec::{MAX_LEN, MeasuredSpec, SpecError};

const SUFFIX: &str = ".eif";

/// An EIF in an [`EifStore`].
#[derive(Debug, Clone)]
pub struct StoredEif {
    /// The file.
    pub path: PathBuf,
    /// What an enclave that runs it measures to.
    pub measurements: Measurements,
    /// The spec that is in it.
    pub spec: MeasuredSpec,
}

/// Why an [`EifStore`] does not keep or return an EIF.
#[derive(Debug, thiserror::Error)]
pub enum EifStoreError {
    /// It is not there, or its structure is damaged.
    #[error(transparent)]
    Eif(#[from] EifError),
    /// It was changed on disk.
    #[error("{path} is damaged: it measures to PCR0 {found}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it measures to now.
        found: Pcr,
    },
    /// It cannot be stored.
    #[error("the EIF could not be stored: {0}")]
    Keep(#[source] io::Error),
    /// It measures right, and has no spec where a build puts one.
    #[error("{path} holds no spec of this version: {reason}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl EifStoreError {
    /// Whether there is no such file: nothing is wrong with the disk then.
    pub fn is_missing(&self) -> bool {
        matches!(self, EifStoreError::Eif(EifError::Read { source, .. })
            if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Explain for EifStoreError {
    fn code(&self) -> Code {
        match self {
            EifStoreError::Keep(source) if rootfs::is_disk_full(source) => Code::OutOfDisk,
            _ => Code::DiskFailed,
        }
    }
}

/// A directory of EIFs.
#[derive(Debug, Clone)]
pub struct EifStore {
    directory: PathBuf,
}

impl EifStore {
    /// The directory must exist by the time that something is kept in it.
    pub fn new(directory: PathBuf) -> EifStore {
        EifStore { directory }
    }

    /// Where an EIF with this PCR0 is, if it is here.
    pub fn path(&self, pcr0: Pcr) -> PathBuf {
        self.directory.join(format!("{pcr0}{SUFFIX}"))
    }

    /// Moves a finished build here, over whatever had its name. It must be on the same file system.
    /// The file and its name are on disk when this returns; it blocks until then.
    ///
    /// # Errors
    /// The disk fails. The build stays where it was, or is whole in both places' stead.
    pub fn keep(&self, built: Built) -> Result<StoredEif, EifStoreError> {
        self.move_here(built).map_err(EifStoreError::Keep)
    }

    fn move_here(&self, built: Built) -> io::Result<StoredEif> {
        let Built {
            path: from,
            measurements,
            spec,
            ..
        } = built;
        File::open(&from)?.sync_all()?;
        let path = self.path(measurements.pcr0);
        fs::rename(&from, &path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(StoredEif {
            path,
            measurements,
            spec,
        })
    }

    /// The EIF that measures to this. Blocks: it reads the whole file twice, to measure it again.
    ///
    /// # Errors
    /// It is not here, or is not what it was. It stays where it is: [`EifStore::keep`] replaces it.
    pub fn open(&self, measurements: &Measurements) -> Result<StoredEif, EifStoreError> {
        let path = self.path(measurements.pcr0);
        let eif = Eif::open(&path)?;
        let found = eif.measure()?;
        if found != *measurements {
            let found = found.pcr0;
            return Err(EifStoreError::Damaged { path, found });
        }
        let spec = match read_spec(&eif) {
            Ok(spec) => spec,
            Err(reason) => return Err(EifStoreError::Spec { path, reason }),
        };
        Ok(StoredEif {
            path,
            measurements: found,
            spec,
        })
    }

    /// Removes every file but the EIFs whose PCR0 is needed, and returns how many it removed. What
    /// cannot be removed stays for the next time. Blocks on the disk.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn collect(&self, is_needed: impl Fn(&str) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let is_kept = pcr0_of(&path).is_some_and(&is_needed);
            if !is_kept && fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn pcr0_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)
}

/// The measured spec, from the application ramdisk.
fn read_spec(eif: &Eif) -> Result<MeasuredSpec, String> {
    let mut ramdisks = eif
        .sections()
        .iter()
        .filter(|section| section.kind == SectionKind::Ramdisk);
    let application = ramdisks.nth(1).ok_or("it has one ramdisk only")?;
    let bytes = read_file(eif.file(), application.range(), ramdisk::SPEC, MAX_LEN);
    let bytes = bytes.map_err(|error| error.to_string())?;
    MeasuredSpec::parse(&bytes).map_err(|error: SpecError| error.to_string())
}

/// A file of an archive, which is a part of the other file.
fn read_file(file: &File, archive: Range<u64>, name: &str, max_len: usize) -> io::Result<Vec<u8>> {
    let read = |buffer: &mut [u8], at: u64| file.read_exact_at(buffer, archive.start + at);
    let body = ramdisk::find(name, read)?;
    let len = usize::try_from(body.end - body.start).ok();
    let len = len.filter(|len| *len <= max_len && archive.start + body.end <= archive.end);
    let mut bytes = vec![0; len.ok_or_else(|| io::Error::other(format!("{name} is too long")))?];
    read(&mut bytes, body.start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Parts;
    use crate::eif::EifWriter;
    use crate::rootfs::cpio::Cpio;
    use oci::Digest;
    use wire::spec::{ImageDefaults, Spec};

    /// A build of nothing that could run.
    fn built(directory: &Path, kernel: &[u8]) -> Built {
        let path = directory.join("image.eif");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        let spec = Spec::parse("[run]\ncommand = ['/app']").unwrap();
        let spec = spec.resolve(ImageDefaults::any()).unwrap();
        let mut writer = EifWriter::new(&file);
        writer.section(SectionKind::Kernel, kernel).unwrap();
        writer.section(SectionKind::Cmdline, b"quiet").unwrap();
        writer.section(SectionKind::Metadata, b"{}").unwrap();
        writer.section(SectionKind::Ramdisk, b"boot").unwrap();
        let application = |file: &File, at| {
            let mut archive = Cpio::new(file, at);
            archive.directory("app")?;
            archive.file("app/enclave.json", 0o444, &spec.to_json())?;
            archive.finish()
        };
        let section = writer.section_with(SectionKind::Ramdisk, application);
        section.unwrap();
        let len = writer.finish().unwrap();
        let none = Digest::of(b"");
        Built {
            measurements: Eif::open(&path).unwrap().measure().unwrap(),
            path,
            len,
            spec,
            parts: Parts {
                kernel: none,
                cmdline: none,
                agent: none,
                spec: none,
            },
        }
    }

    fn store() -> (tempfile::TempDir, EifStore) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("eifs")).unwrap();
        let store = EifStore::new(directory.path().join("eifs"));
        (directory, store)
    }

    #[test]
    fn what_was_kept_is_found_by_its_measurements_and_has_its_spec() {
        let (directory, store) = store();
        let built = built(directory.path(), b"kernel");
        let (from, measurements, spec) =
            (built.path.clone(), built.measurements, built.spec.clone());
        assert!(store.open(&measurements).unwrap_err().is_missing());
        store.keep(built).unwrap();
        let found = store.open(&measurements).unwrap();
        assert_eq!((found.measurements, found.spec), (measurements, spec));
        assert!(!from.exists());
    }

    #[test]
    fn a_file_that_was_changed_is_not_returned() {
        let (directory, store) = store();
        let kept = store.keep(built(directory.path(), b"kernel")).unwrap();
        let file = File::options().write(true).open(&kept.path).unwrap();
        // Of the kernel, behind the header of the file and that of the section.
        file.write_all_at(b"K", 548 + 12).unwrap();
        let error = store.open(&kept.measurements).unwrap_err();
        let is_damaged =
            matches!(&error, EifStoreError::Damaged { path, .. } if *path == kept.path);
        assert!(is_damaged && !error.is_missing(), "{error}");
        file.set_len(600).unwrap();
        let error = store.open(&kept.measurements).unwrap_err();
        assert!(matches!(error, EifStoreError::Eif(_)), "{error}");
    }

    #[test]
    fn what_is_not_needed_is_removed_and_nothing_else() {
        let (directory, store) = store();
        let first = store.keep(built(directory.path(), b"one")).unwrap();
        let second = store.keep(built(directory.path(), b"two")).unwrap();
        fs::write(store.path(Pcr::ZERO).with_extension("tmp"), b"").unwrap();
        let needed = first.measurements.pcr0.to_string();
        assert_eq!(store.collect(|pcr0| pcr0 == needed).unwrap(), 2);
        assert!(first.path.exists() && !second.path.exists());
    }
}
