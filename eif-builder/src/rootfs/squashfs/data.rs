//! File data: full blocks one after another, and the ends of files packed together into fragments.
//! Files with equal content share their blocks. Compression runs on several threads; writing keeps
//! the order.

use super::format::{BLOCK_SIZE, STORED};
use super::region::Region;
use super::source::{Bodies, Options};
use crate::rootfs::error::RootfsError;
use crate::rootfs::tree::{Body, NodeKind, Tree};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// A block of fragments on disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fragment {
    start: u64,
    size: u32,
}

impl Fragment {
    pub(super) fn entry(&self) -> [u8; 16] {
        let mut entry = [0; 16];
        let (start, rest) = entry.split_at_mut(8);
        start.copy_from_slice(&self.start.to_le_bytes());
        rest.split_at_mut(4)
            .0
            .copy_from_slice(&self.size.to_le_bytes());
        entry
    }
}

/// Where a file's bytes ended up.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    pub(super) start: u64,
    /// Size of each full block on disk, with the flag for stored ones.
    pub(super) blocks: Vec<u32>,
    /// Fragment number and offset of the rest, if the length is no multiple of the block size.
    pub(super) tail: Option<(u32, u32)>,
}

#[derive(Debug, Default)]
pub(super) struct Data {
    layouts: HashMap<Body, Arc<Layout>>,
    pub(super) fragments: Vec<Fragment>,
}

impl Data {
    pub(super) fn layout(&self, body: &Body) -> Option<&Layout> {
        self.layouts.get(body).map(Arc::as_ref)
    }
}

/// Writes the bodies of all files of the tree, in the order of their paths.
pub(super) fn write(
    tree: &Tree,
    bodies: &(impl Bodies + ?Sized),
    out: &mut Region<'_>,
    options: Options,
    progress: &dyn Fn(u64),
) -> Result<Data, RootfsError> {
    let nodes = tree.in_order().into_iter();
    let files = nodes.filter_map(|id| match tree.node(id).kind {
        NodeKind::File(body) => Some(body),
        _ => None,
    });
    let order: Vec<Body> = files.collect();
    let originals = originals(&order, bodies)?;
    std::thread::scope(|scope| {
        let (jobs, queue) = sync_channel(options.threads * 2);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..options.threads {
            let queue = queue.clone();
            scope.spawn(move || compress(&queue, options.level));
        }
        let mut packer = Packer::new(out, jobs, options.threads * 4);
        let mut packed: HashMap<Body, usize> = HashMap::new();
        for body in &order {
            if originals.get(body) == Some(body) && !packed.contains_key(body) {
                packed.insert(*body, packer.files.len());
                packer.add(body, bodies)?;
                progress(body.len);
            }
        }
        packer.finish()?;
        let layouts: Vec<Arc<Layout>> = packer.files.into_iter().map(Arc::new).collect();
        let layout = |body: &Body| {
            let original = originals.get(body)?;
            Some((*body, layouts.get(*packed.get(original)?)?.clone()))
        };
        Ok(Data {
            layouts: order.iter().filter_map(layout).collect(),
            fragments: packer.fragments,
        })
    })
}

/// Maps each body to the first one with the same content. Only bodies of equal length are read and
/// hashed.
fn originals(
    order: &[Body],
    bodies: &(impl Bodies + ?Sized),
) -> Result<HashMap<Body, Body>, RootfsError> {
    let mut by_len: BTreeMap<u64, Vec<Body>> = BTreeMap::new();
    for body in order {
        by_len.entry(body.len).or_default().push(*body);
    }
    let mut originals = HashMap::new();
    for (_, same) in by_len {
        let mut by_content: HashMap<[u8; 32], Body> = HashMap::new();
        for body in &same {
            let original = match same.len() {
                1 => *body,
                _ => *by_content
                    .entry(content_hash(body, bodies)?)
                    .or_insert(*body),
            };
            originals.insert(*body, original);
        }
    }
    Ok(originals)
}

fn content_hash(body: &Body, bodies: &(impl Bodies + ?Sized)) -> Result<[u8; 32], RootfsError> {
    let mut hasher = Sha256::new();
    for (offset, len) in blocks(body.len) {
        let mut buffer = vec![0; len];
        bodies
            .read(body, offset, &mut buffer)
            .map_err(|source| RootfsError::Layer {
                layer: body.layer + 1,
                source,
            })?;
        hasher.update(&buffer);
    }
    Ok(hasher.finalize().into())
}

/// Offset and length of each block of a file; the last one may be short.
fn blocks(len: u64) -> impl Iterator<Item = (u64, usize)> {
    let size = BLOCK_SIZE as u64;
    (0..len.div_ceil(size)).map(move |n| {
        let offset = n * size;
        (
            offset,
            usize::try_from((len - offset).min(size)).unwrap_or(BLOCK_SIZE),
        )
    })
}

/// Bytes for disk, and whether they are stored as they were.
type Compressed = io::Result<(Vec<u8>, bool)>;
type Job = (Vec<u8>, SyncSender<Compressed>);

fn compress(queue: &Mutex<Receiver<Job>>, level: i32) {
    let mut compressor = zstd::bulk::Compressor::new(level);
    loop {
        let job = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok((bytes, answer)) = job else { return };
        let compressed = match &mut compressor {
            Ok(compressor) => compressor.compress(&bytes),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let result = compressed.map(|small| {
            if small.len() < bytes.len() {
                (small, false)
            } else {
                (bytes, true)
            }
        });
        // After an error elsewhere the receiver is gone, and the result is not needed.
        answer.send(result).ok();
    }
}

/// What a compressed block is for.
enum Target {
    Block { file: usize },
    Fragment { number: usize },
}

/// Hands blocks to the compressors and writes what comes back in the order in which it was handed
/// out.
struct Packer<'a, 'b> {
    out: &'a mut Region<'b>,
    jobs: SyncSender<Job>,
    pending: VecDeque<(Target, Receiver<Compressed>)>,
    capacity: usize,
    files: Vec<Layout>,
    fragments: Vec<Fragment>,
    /// The fragment that is being filled.
    tails: Vec<u8>,
}

impl<'a, 'b> Packer<'a, 'b> {
    /// `capacity` is the number of blocks that may wait for a compressor or for the disk.
    fn new(out: &'a mut Region<'b>, jobs: SyncSender<Job>, capacity: usize) -> Packer<'a, 'b> {
        Packer {
            out,
            jobs,
            pending: VecDeque::new(),
            capacity,
            files: Vec::new(),
            fragments: Vec::new(),
            tails: Vec::new(),
        }
    }

    fn add(&mut self, body: &Body, bodies: &(impl Bodies + ?Sized)) -> Result<(), RootfsError> {
        let file = self.files.len();
        self.files.push(Layout::default());
        for (offset, len) in blocks(body.len) {
            let mut bytes = vec![0; len];
            bodies
                .read(body, offset, &mut bytes)
                .map_err(|source| RootfsError::Layer {
                    layer: body.layer + 1,
                    source,
                })?;
            if len == BLOCK_SIZE {
                self.submit(Target::Block { file }, bytes)?;
            } else {
                let tail = self.add_tail(&bytes)?;
                if let Some(layout) = self.files.get_mut(file) {
                    layout.tail = Some(tail);
                }
            }
        }
        Ok(())
    }

    fn add_tail(&mut self, bytes: &[u8]) -> Result<(u32, u32), RootfsError> {
        if self.tails.len() + bytes.len() > BLOCK_SIZE {
            self.end_fragment()?;
        }
        let too_many = |_| RootfsError::TooMany {
            what: "fragments",
            limit: u32::MAX as usize,
        };
        let number = u32::try_from(self.fragments.len()).map_err(too_many)?;
        let offset = u32::try_from(self.tails.len()).map_err(too_many)?;
        self.tails.extend_from_slice(bytes);
        Ok((number, offset))
    }

    fn end_fragment(&mut self) -> io::Result<()> {
        if self.tails.is_empty() {
            return Ok(());
        }
        let number = self.fragments.len();
        self.fragments.push(Fragment::default());
        let bytes = std::mem::take(&mut self.tails);
        self.submit(Target::Fragment { number }, bytes)
    }

    fn submit(&mut self, target: Target, bytes: Vec<u8>) -> io::Result<()> {
        if self.pending.len() >= self.capacity {
            self.write_next()?;
        }
        let (answer, result) = sync_channel(1);
        self.jobs
            .send((bytes, answer))
            .map_err(|_| io::Error::other("the compressing threads ended"))?;
        self.pending.push_back((target, result));
        Ok(())
    }

    fn write_next(&mut self) -> io::Result<()> {
        let Some((target, result)) = self.pending.pop_front() else {
            return Ok(());
        };
        let (bytes, stored) = result
            .recv()
            .map_err(|_| io::Error::other("a compressing thread ended"))??;
        let start = self.out.append(&bytes)?;
        let size =
            u32::try_from(bytes.len()).map_err(io::Error::other)? | if stored { STORED } else { 0 };
        match target {
            Target::Fragment { number } => {
                if let Some(fragment) = self.fragments.get_mut(number) {
                    *fragment = Fragment { start, size };
                }
            }
            Target::Block { file } => {
                if let Some(layout) = self.files.get_mut(file) {
                    if layout.blocks.is_empty() {
                        layout.start = start;
                    }
                    layout.blocks.push(size);
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end_fragment()?;
        while !self.pending.is_empty() {
            self.write_next()?;
        }
        // Closing the queue ends the compressors.
        self.jobs = sync_channel(0).0;
        Ok(())
    }
}
