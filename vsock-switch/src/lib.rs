//! wip
mod backend;
mod connection;
mod device;
mod error;
mod guest;
mod lane;
mod muxer;
mod packet;
mod poller;
mod port;
mod sibling;
mod switch;
mod unix;
pub use error::SwitchError;
pub use guest::Guest;
pub use switch::{GuestConfig, HostSide, Switch};
