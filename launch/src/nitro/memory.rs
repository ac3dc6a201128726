//! Fills an enclave's memory: takes its pages with several threads, while its image is read into
//! place. Whatever goes wrong is an error before the enclave starts, and never a signal.

use super::driver::{Memory, bytes};
use super::errors::DriverStep;
use super::pages::Plan;
use crate::error::LaunchError;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Zeroing pages is bound by the memory's own speed, which a few threads reach.
const MAX_THREADS: usize = 8;
/// What a thread takes at once.
const PORTION: u64 = 64 << 20;
/// What is read at once.
const READ: u64 = 16 << 20;

/// Takes all pages, and reads the image to `offset`. Blocks; how long depends on the memory, about
/// a second for 4 GiB.
pub(super) fn fill(
    memory: &dyn Memory,
    plan: &Plan,
    image: &Path,
    offset: u64,
) -> Result<(), LaunchError> {
    let unreadable = |source| LaunchError::Image {
        path: image.to_owned(),
        source,
    };
    let file = File::open(image).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    if offset.saturating_add(len) > plan.bytes() {
        return Err(LaunchError::ImageTooLarge {
            image_mib: len.div_ceil(1 << 20),
            memory_mib: plan.bytes() >> 20,
        });
    }
    let (populated, loaded) = std::thread::scope(|scope| {
        let populating = scope.spawn(|| populate(memory, plan));
        let loaded = load(memory, &file, len, offset);
        (populating.join(), loaded)
    });
    let panicked = |_| io::Error::other("a thread that takes pages panicked");
    populated
        .map_err(panicked)
        .flatten()
        .map_err(DriverStep::Populate.failed())?;
    loaded.map_err(unreadable)
}

/// Takes the pages. The first error stops all threads.
fn populate(memory: &dyn Memory, plan: &Plan) -> io::Result<()> {
    let portions = plan.portions(PORTION);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        while let Some(portion) = portions.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = memory.populate(*portion) {
                next.store(portions.len(), Ordering::Relaxed);
                if let Ok(mut failed) = failed.lock() {
                    failed.get_or_insert(error);
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MAX_THREADS).min(portions.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().map_err(|_| io::ErrorKind::Other)?;
    failed.map_or(Ok(()), Err)
}

/// Reads the whole file into place. The kernel writes it there, across all pages.
fn load(memory: &dyn Memory, file: &File, len: u64, offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let wanted = READ.min(len - done);
        let at = bytes(offset + done)?;
        match memory.mapping().read_at(at, bytes(wanted)?, file, done) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::driver::Parent as _;
    use super::super::fake::FakeParent;
    use super::super::pages::{Pages, UNIT, plan};
    use super::*;

    #[test]
    fn an_image_that_was_cut_meanwhile_is_an_error() {
        let plan = plan(32 * UNIT, &Pages::from([(UNIT, 32)])).unwrap();
        let memory = FakeParent::new(1, &[(UNIT, 32)]).map(&plan, None).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eif");
        std::fs::write(&path, vec![7; 20 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        load(&*memory, &file, 20 << 20, 8 << 20).unwrap();
        let cut = load(&*memory, &file, (20 << 20) + 1, 8 << 20).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
