//! Frames, relayed streams and the accept loop over tokio, for the two programs that speak them
//! (feature `io`). One copy, so that host and agent cannot differ. It moves bytes that
//! [`crate::frame`] and [`crate::relay`] define over streams that its caller opened, and accepts on
//! listeners that its caller bound. Timeouts use tokio's clock.

mod buffer;
mod message;
mod plain;
mod relay;
mod serve;
mod sources;

pub use message::{read, write};
pub use plain::Plain;
pub use relay::{Carried, ChunkTooLong, relay};
pub use serve::{Accept, Overflow, serve, serve_until};
pub use sources::{SourceLimit, SourcePlace, Sources};
