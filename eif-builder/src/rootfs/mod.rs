//! From verified layers to one root file system.
//!
//! The way of the data: [`archive`](self) reads the tar entries of a layer, `flatten` applies them to a [`Tree`], and
//! [`squashfs`] writes the tree while file bodies stream from the layers. Nothing is ever unpacked to a directory, so no
//! path of an image can touch the machine that builds it. [`cpio`] is for the ramdisks around the result.

mod archive;
pub mod cpio;
mod flatten;
pub mod squashfs;
mod tree;

pub use flatten::flatten;
pub use tree::{Body, Device, Kind, Meta, Node, NodeId, Tree, Xattrs};

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("layer {layer}: {problem}{}", entry.as_ref().map(|path| format!(", at '{path}'")).unwrap_or_default())]
    Entry {
        layer: usize,
        entry: Option<String>,
        problem: String,
    },
    #[error("the root file system has more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("reading layer {layer}: {source}")]
    Layer {
        layer: usize,
        source: std::io::Error,
    },
    #[error("writing the root file system: {0}")]
    Write(#[from] std::io::Error),
}
