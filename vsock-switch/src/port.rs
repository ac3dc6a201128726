//! What the switch needs of a guest's device: packets out of it and into it. Implemented on
//! virtqueues, and by fake guests in tests.

use crate::packet::Header;

/// What the guest sent.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A packet. The data has the length that the header says.
    Packet(Header, Vec<u8>),
    /// Something that is no packet; it was given back.
    Malformed,
    Nothing,
}

/// One guest's device. No call blocks.
pub(crate) trait GuestPort {
    /// Whether the guest's driver receives packets.
    fn is_ready(&mut self) -> bool;

    /// The next packet that the guest sent.
    fn take(&mut self) -> Taken;

    /// The payload that the guest's next receive buffer holds, in bytes, at least 1. None if the
    /// guest has provided no buffer.
    fn room(&mut self) -> Option<usize>;

    /// Puts a packet into the receive buffer that [`GuestPort::room`] measured.
    fn give(&mut self, header: &Header, data: &[u8]);

    /// Notifies the guest of what was taken and given, and asks it to notify the switch of new
    /// packets, and of new receive buffers if `wants_room`. True if some came meanwhile.
    fn settle(&mut self, wants_room: bool) -> bool;
}
