//! The header of a vsock packet, as bytes and as values (virtio 1.2, 5.10.6). Never judges whether
//! a packet makes sense: that is for the connection it belongs to.

/// The length of a header, in bytes.
pub(crate) const HEADER: usize = 44;
/// The longest payload of one packet, in bytes (Linux, VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;
/// The only type of socket that the switch carries (5.10.6, VIRTIO_VSOCK_TYPE_STREAM).
pub(crate) const STREAM: u16 = 1;

const SHUTDOWN_RECEIVE: u32 = 1;
const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for (5.10.6, VIRTIO_VSOCK_OP_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Op {
    pub(crate) fn number(self) -> u16 {
        match self {
            Op::Request => 1,
            Op::Response => 2,
            Op::Reset => 3,
            Op::Shutdown => 4,
            Op::Data => 5,
            Op::CreditUpdate => 6,
            Op::CreditRequest => 7,
        }
    }

    fn from_number(number: u16) -> Option<Op> {
        Some(match number {
            1 => Op::Request,
            2 => Op::Response,
            3 => Op::Reset,
            4 => Op::Shutdown,
            5 => Op::Data,
            6 => Op::CreditUpdate,
            7 => Op::CreditRequest,
            _ => return None,
        })
    }
}

/// The directions of a connection that one end has closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Closed {
    /// It receives no more.
    pub(crate) receive: bool,
    /// It sends no more.
    pub(crate) send: bool,
}

impl Closed {
    pub(crate) const BOTH: Closed = Closed {
        receive: true,
        send: true,
    };
    pub(crate) const RECEIVE: Closed = Closed {
        receive: true,
        send: false,
    };
    pub(crate) const SEND: Closed = Closed {
        receive: false,
        send: true,
    };

    pub(crate) fn from_flags(flags: u32) -> Closed {
        Closed {
            receive: flags & SHUTDOWN_RECEIVE != 0,
            send: flags & SHUTDOWN_SEND != 0,
        }
    }

    pub(crate) fn flags(self) -> u32 {
        let receive = if self.receive { SHUTDOWN_RECEIVE } else { 0 };
        let send = if self.send { SHUTDOWN_SEND } else { 0 };
        receive | send
    }

    pub(crate) fn add(&mut self, more: Closed) {
        self.receive |= more.receive;
        self.send |= more.send;
    }

    pub(crate) fn is_both(self) -> bool {
        self == Closed::BOTH
    }

    pub(crate) fn is_any(self) -> bool {
        self.receive || self.send
    }
}

/// A header, with every value that a guest may have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    pub(crate) src_cid: u64,
    pub(crate) dst_cid: u64,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    /// The length of the payload, in bytes.
    pub(crate) len: u32,
    /// The type of socket.
    pub(crate) kind: u16,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    /// The sender's buffer for this connection, in bytes.
    pub(crate) buf_alloc: u32,
    /// How many bytes the sender has taken out of that buffer, modulo 2^32.
    pub(crate) fwd_cnt: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Header {
        let mut rest = &bytes[..];
        Header {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        bytes.extend(self.src_port.to_le_bytes());
        bytes.extend(self.dst_port.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes
    }

    pub(crate) fn operation(&self) -> Option<Op> {
        Op::from_number(self.op)
    }

    pub(crate) fn closed(&self) -> Closed {
        Closed::from_flags(self.flags)
    }

    /// The reset that answers this packet.
    pub(crate) fn refusal(&self) -> Header {
        Header {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Reset.number(),
            ..Header::default()
        }
    }
}

/// The next bytes of a header; its length is a constant that holds all fields.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, after)) => {
            *rest = after;
            *field
        }
        None => [0; N],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fields_lie_where_the_specification_puts_them() {
        let header = Header {
            src_cid: 0x10,
            dst_cid: 0x20,
            src_port: 0x30,
            dst_port: 0x40,
            len: 0x50,
            kind: STREAM,
            op: Op::Data.number(),
            flags: 0x60,
            buf_alloc: 0x70,
            fwd_cnt: 0x80,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes.len(), HEADER);
        for (offset, value) in [
            (0, 0x10),
            (8, 0x20),
            (16, 0x30),
            (20, 0x40),
            (24, 0x50),
            (28, 1),
            (30, 5),
            (32, 0x60),
            (36, 0x70),
            (40, 0x80),
        ] {
            assert_eq!(bytes[offset], value, "at {offset}");
        }
    }

    proptest! {
        #[test]
        fn every_header_survives_its_bytes(bytes in any::<[u8; 32]>(), rest in any::<[u8; 12]>()) {
            let mut all = [0; HEADER];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::parse(&all).to_bytes(), all);
        }
    }

    #[test]
    fn every_operation_has_its_number() {
        for number in 0..=9 {
            let operation = Op::from_number(number);
            assert_eq!(operation.is_some(), (1..=7).contains(&number));
            assert!(operation.is_none_or(|op| op.number() == number));
        }
    }
}
