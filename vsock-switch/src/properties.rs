//! Random lives of connections: honest ones lose nothing, and dishonest ones break nothing.

use crate::connection::{BUFFER, Connection, Step};
use crate::packet::{Closed, Header, Op};
use crate::sibling::{MAX_BUFFER, Sibling, Side};
use proptest::prelude::*;

/// Any header, with numbers that are interesting more often than chance has it.
fn any_header() -> impl Strategy<Value = Header> {
    let number = || prop_oneof![Just(0u32), 0..200_000u32, any::<u32>()];
    (0..9u16, 0..5u32, number(), number()).prop_map(|(op, flags, buf_alloc, fwd_cnt)| Header {
        op,
        flags,
        buf_alloc,
        fwd_cnt,
        ..Header::default()
    })
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap()
}

fn pattern(at: usize, len: usize) -> Vec<u8> {
    (0..=250).cycle().skip(at % 251).take(len).collect()
}

/// What happens to a connection with the host.
#[derive(Debug, Clone)]
enum Event {
    Packet(Header, usize),
    HostSends(usize),
    HostTakes(usize),
    HostEnds,
    HostHangsUp,
    HostDeaf,
    Gives(usize),
    Expires,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any_header(), 0..70_000usize).prop_map(|(header, len)| Event::Packet(header, len)),
        2 => (0..100_000usize).prop_map(Event::HostSends),
        2 => (0..100_000usize).prop_map(Event::HostTakes),
        1 => Just(Event::HostEnds),
        1 => Just(Event::HostHangsUp),
        1 => Just(Event::HostDeaf),
        4 => (1..5_000usize).prop_map(Event::Gives),
        1 => Just(Event::Expires),
    ]
}

/// Does what the connection wants of the stream.
fn work(connection: &mut Connection, takes: usize) {
    let mut takes = takes;
    while let Some(step) = connection.step() {
        match step {
            Step::Write if takes == 0 => return,
            Step::Write => {
                let len = connection.unwritten().len();
                assert!(0 < len && len <= BUFFER as usize);
                connection.wrote(len.min(takes));
                takes -= len.min(takes);
            }
            Step::EndWrite => connection.ended_write(),
            Step::EndRead => connection.ended_read(),
            Step::Close => return connection.closed(),
        }
    }
}

fn happen(connection: &mut Connection, event: Event) {
    match event {
        Event::Packet(header, len) => {
            if connection.receive(&header, &vec![0; len]).is_err() {
                connection.abort();
            }
        }
        Event::HostSends(len) => {
            let len = len.min(connection.readable());
            connection.read(&vec![0; len]);
        }
        Event::HostTakes(len) => work(connection, len),
        Event::HostEnds => connection.host_ended(),
        Event::HostHangsUp => connection.host_hung_up(),
        Event::HostDeaf => connection.host_deaf(),
        Event::Gives(room) => {
            if let Some((outgoing, ..)) = connection.next(room) {
                assert!(outgoing.data.len() <= room);
            }
        }
        Event::Expires if connection.is_half_dead() => connection.abort(),
        Event::Expires => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_connection_survives_everything(
        of_host in any::<bool>(),
        request in any_header(),
        events in proptest::collection::vec(any_event(), 0..60),
    ) {
        let mut connection =
            if of_host { Connection::to_guest() } else { Connection::from_guest(&request) };
        for event in events {
            happen(&mut connection, event);
            prop_assert!(connection.unwritten().len() <= BUFFER as usize);
        }
        // Once the guest is gone and the host takes everything, nothing is left.
        connection.guest_gone();
        work(&mut connection, usize::MAX);
        prop_assert!(connection.is_over());
    }

    /// The guest and the host are honest; how much they do at once is chance.
    #[test]
    fn bytes_pass_a_connection_in_order_and_complete(
        sizes in proptest::collection::vec((1..70_000u32, 1..70_000usize, 1..9_000usize), 1..20),
        buffer in 1..300_000u32,
    ) {
        let mut guest = Header { buf_alloc: buffer, ..Header::default() };
        let mut connection = Connection::from_guest(&guest);
        // Bytes the guest sent and the host has, and the guest's knowledge of them.
        let (mut sent, mut known, mut at_host) = (0u32, 0u32, 0usize);
        // Bytes the host sent and the guest has.
        let (mut read, mut at_guest) = (0usize, 0usize);
        for (len, takes, room) in sizes {
            let len = len.min(BUFFER - (sent - known)) as usize;
            guest.op = Op::Data.number();
            prop_assert_eq!(connection.receive(&guest, &pattern(sent as usize, len)), Ok(false));
            sent += count(len);
            let piece = connection.unwritten();
            let taken = takes.min(piece.len());
            prop_assert_eq!(&piece[..taken], &pattern(at_host, taken)[..]);
            connection.wrote(taken);
            at_host += taken;
            let len = takes.min(connection.readable());
            prop_assert!(read + len - guest.fwd_cnt as usize <= buffer as usize);
            connection.read(&pattern(read, len));
            read += len;
            while let Some((outgoing, told_buffer, told)) = connection.next(room) {
                prop_assert_eq!(told_buffer, BUFFER);
                prop_assert!(outgoing.data.len() <= room);
                prop_assert_eq!(&outgoing.data, &pattern(at_guest, outgoing.data.len()));
                at_guest += outgoing.data.len();
                known = told;
            }
            guest.fwd_cnt = count(at_guest);
        }
        prop_assert_eq!(at_guest, read);
        work(&mut connection, usize::MAX);
        guest.op = Op::CreditRequest.number();
        connection.receive(&guest, &[]).unwrap();
        let (_, _, told) = connection.next(1).unwrap();
        prop_assert_eq!(told, sent);
    }

    #[test]
    fn a_connection_between_guests_survives_everything(
        request in any_header(),
        events in proptest::collection::vec(
            (any::<bool>(), any_header(), 0..70_000usize, proptest::option::of(1..5_000usize)),
            0..80,
        ),
    ) {
        let mut sibling = Sibling::new(Side::Low, &request);
        for (is_low, header, len, room) in events {
            let side = if is_low { Side::Low } else { Side::High };
            if sibling.receive(side, &header, &vec![0; len]).is_err() {
                sibling.abort();
            }
            if let Some(room) = room
                && let Some((outgoing, buffer, _)) = sibling.next(side, room)
            {
                prop_assert!(outgoing.data.len() <= room);
                prop_assert!(buffer <= MAX_BUFFER);
            }
            for side in [Side::Low, Side::High] {
                prop_assert!(sibling.lane(side).queued() <= MAX_BUFFER as usize);
            }
        }
        // Once both are gone, nothing is left.
        sibling.lost(Side::Low);
        while sibling.next(Side::High, 4096).is_some() {}
        prop_assert!(sibling.is_over());
    }

    /// Both guests are honest; how much they do at once is chance.
    #[test]
    fn bytes_pass_between_guests_in_order_and_complete(
        sizes in proptest::collection::vec((1..70_000u32, 1..9_000usize, 0..20usize), 1..20),
        buffer in 1..600_000u32,
    ) {
        let asker = Header { op: Op::Request.number(), buf_alloc: 1000, ..Header::default() };
        let mut sibling = Sibling::new(Side::Low, &asker);
        prop_assert_eq!(sibling.next(Side::High, 1).unwrap().0.op, Op::Request);
        let mut answerer = Header { op: Op::Response.number(), buf_alloc: buffer, ..asker };
        sibling.receive(Side::High, &answerer, &[]).unwrap();
        let (mut sent, mut taken, mut known) = (0u32, 0u32, 0u32);
        let (response, room_there, _) = sibling.next(Side::Low, 1).unwrap();
        prop_assert_eq!((response.op, room_there), (Op::Response, buffer));
        for (len, room, packets) in sizes {
            let len = len.min(buffer - (sent - known));
            let data = Header { op: Op::Data.number(), ..asker };
            sibling.receive(Side::Low, &data, &pattern(sent as usize, len as usize)).unwrap();
            sent += len;
            for _ in 0..packets {
                let Some((outgoing, ..)) = sibling.next(Side::High, room) else { break };
                prop_assert_eq!(&outgoing.data, &pattern(taken as usize, outgoing.data.len()));
                taken += count(outgoing.data.len());
            }
            answerer.op = Op::CreditUpdate.number();
            answerer.fwd_cnt = taken;
            sibling.receive(Side::High, &answerer, &[]).unwrap();
            let (_, _, told) = sibling.next(Side::Low, 1).unwrap();
            prop_assert_eq!(told, taken);
            known = told;
        }
        let end = Header { op: Op::Shutdown.number(), flags: Closed::SEND.flags(), ..asker };
        sibling.receive(Side::Low, &end, &[]).unwrap();
        let mut last = None;
        while let Some((outgoing, ..)) = sibling.next(Side::High, 4096) {
            taken += count(outgoing.data.len());
            last = Some((outgoing.op, outgoing.flags));
        }
        prop_assert_eq!((last, taken), (Some((Op::Shutdown, Closed::SEND.flags())), sent));
    }
}
