//! From verified layers to one root file system.
//!
//! `tar` reads the entries of a layer, [`flatten`] applies them to a [`Tree`], and [`squashfs`]
//! writes the tree while file bodies stream from the layers. Nothing is ever unpacked to a
//! directory, so no path of an image can touch the machine that builds it. [`cpio`] is for the
//! ramdisks around the result.

pub mod cpio;
mod error;
mod flatten;
mod path;
pub mod squashfs;
mod tar;
mod tree;

pub(crate) use error::is_disk_full;
pub use error::{EntryProblem, RootfsError};
pub use flatten::flatten;
pub use path::PathError;
pub use tree::{Body, Device, Meta, Node, NodeId, NodeKind, Tree, Xattrs};
