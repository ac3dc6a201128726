//! The whole switch, with fake QEMUs that speak vhost-user.

use crate::driver::Driver;
use crate::packet::{HEADER, Header, Op, STREAM};
use crate::{Guest, GuestConfig, HostSide, Switch, SwitchError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const SIZE: u16 = 64;
const MEMORY: usize = 0x40_0000;
const QUEUES: [u64; 2] = [0x1_0000, 0x2_0000];
/// Receive buffers, and one packet to send.
const BUFFERS: u64 = 0x10_0000;
const OUT: u64 = 0x30_0000;
/// The port that connections are made from; they go to 7.
const PORT: u32 = 1000;
const DEADLINE: Duration = Duration::from_secs(20);

/// A virtual machine, as far as the switch sees it.
struct FakeQemu {
    frontend: Frontend,
    memory: GuestMemoryMmap,
    queues: [Driver; 2],
    kicks: [EventFd; 2],
    _calls: [EventFd; 2],
    cid: u64,
    received: u64,
}

impl FakeQemu {
    fn start(socket: &Path) -> FakeQemu {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY as u64).unwrap();
        let range = (GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let mut frontend = Frontend::connect(socket, 2).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        let protocol = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
        frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        let config = VhostUserConfigFlags::empty();
        let (_, cid) = frontend.get_config(0, 8, config, &[0; 8]).unwrap();
        frontend.set_features(features).unwrap();
        assert_ne!(
            features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits(),
            0
        );
        let queues = QUEUES.map(|start| Driver::new(&memory, start, SIZE));
        let events = || [0, 1].map(|_| EventFd::new(EFD_NONBLOCK).unwrap());
        let mut qemu = FakeQemu {
            frontend,
            memory,
            queues,
            kicks: events(),
            _calls: events(),
            cid: u64::from_le_bytes(cid.try_into().unwrap()),
            received: 0,
        };
        qemu.start_queues();
        qemu
    }

    fn start_queues(&mut self) {
        let region = self.memory.iter().next().unwrap();
        let info = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
        self.frontend.set_mem_table(&[info]).unwrap();
        for (i, queue) in self.queues.iter().enumerate() {
            let (descriptors, available, used) = queue.addresses();
            let config = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: info.userspace_addr + descriptors,
                used_ring_addr: info.userspace_addr + used,
                avail_ring_addr: info.userspace_addr + available,
                log_addr: None,
            };
            self.frontend.set_vring_num(i, SIZE).unwrap();
            self.frontend.set_vring_base(i, 0).unwrap();
            self.frontend.set_vring_addr(i, &config).unwrap();
            self.frontend.set_vring_call(i, &self._calls[i]).unwrap();
            self.frontend.set_vring_kick(i, &self.kicks[i]).unwrap();
            self.frontend.set_vring_enable(i, true).unwrap();
        }
        for i in 0..8 {
            self.queues[0].offer(&[(BUFFERS + 0x1000 * i, 0x1000)], true);
        }
        self.kicks[0].write(1).unwrap();
    }

    /// As QEMU does it: the queues stop, and a new driver starts them.
    fn reboot(&mut self) {
        for (i, start) in QUEUES.into_iter().enumerate() {
            self.frontend.get_vring_base(i).unwrap();
            let rings = GuestAddress(start);
            self.memory.write_slice(&[0; 0x3000], rings).unwrap();
            self.queues[i] = Driver::new(&self.memory, start, SIZE);
        }
        self.received = 0;
        self.start_queues();
    }

    fn send(&mut self, to: (u64, u32), op: Op, data: &[u8]) {
        let src_port = if to.1 == PORT { 7 } else { PORT };
        let header = Header {
            src_cid: self.cid,
            dst_cid: to.0,
            src_port,
            dst_port: to.1,
            len: u32::try_from(data.len()).unwrap(),
            kind: STREAM,
            op: op.number(),
            buf_alloc: 0x1_0000,
            ..Header::default()
        };
        let mut bytes = header.to_bytes();
        bytes.extend(data);
        self.memory.write_slice(&bytes, GuestAddress(OUT)).unwrap();
        self.queues[1].offer(&[(OUT, bytes.len())], false);
        self.kicks[1].write(1).unwrap();
        until(|| self.queues[1].used());
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        let (_, len) = until(|| self.queues[0].used());
        // Buffers are used in their order.
        let at = BUFFERS + 0x1000 * (self.received % 8);
        self.received += 1;
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        let data = bytes.split_off(HEADER);
        self.queues[0].offer(&[(at, 0x1000)], true);
        self.kicks[0].write(1).unwrap();
        (Header::parse(&bytes.try_into().unwrap()), data)
    }

    fn has_packet(&self) -> bool {
        self.queues[0].has_used()
    }

    fn receive_op(&mut self) -> Option<Op> {
        self.receive().0.operation()
    }
}

/// Waits for what must come.
fn until<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn config(directory: &Path, cid: u32) -> GuestConfig {
    GuestConfig {
        cid,
        socket: directory.join(format!("q{cid}")),
        host: Some(HostSide {
            cid: 3,
            path: directory.join(format!("h{cid}")),
        }),
    }
}

fn attach(switch: &Switch, directory: &Path, cid: u32) -> (Guest, FakeQemu) {
    let config = config(directory, cid);
    let guest = switch.attach(config.clone()).unwrap();
    let qemu = FakeQemu::start(&config.socket);
    (guest, qemu)
}

/// The sibling's device may need a moment to be there.
fn connect(from: &mut FakeQemu, to: &mut FakeQemu) {
    loop {
        from.send((to.cid, 7), Op::Request, &[]);
        // A request arrives there, or a reset here.
        if until(|| {
            to.has_packet()
                .then_some(true)
                .or(from.has_packet().then_some(false))
        }) {
            assert_eq!(to.receive_op(), Some(Op::Request));
            break;
        }
        assert_eq!(from.receive_op(), Some(Op::Reset));
    }
    to.send((from.cid, PORT), Op::Response, &[]);
}

#[test]
fn guests_and_host_reach_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("h16_9000")).unwrap();
    let switch = Switch::new().unwrap();
    let (_a, mut a) = attach(&switch, directory.path(), 16);
    assert_eq!(a.cid, 16, "QEMU reads it out of the configuration");
    a.send((3, 9000), Op::Request, &[]);
    assert_eq!(a.receive_op(), Some(Op::Response));
    let (mut host, _) = listener.accept().unwrap();
    a.send((3, 9000), Op::Data, b"hello");
    let mut bytes = [0; 5];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    host.write_all(b"world").unwrap();
    let (header, data) = a.receive();
    assert_eq!((header.src_cid, header.src_port), (3, 9000));
    assert_eq!(data, b"world");
    a.send((99, 7), Op::Request, &[]);
    assert_eq!(a.receive_op(), Some(Op::Reset));
}

#[test]
fn a_guest_that_is_dropped_leaves_nothing_and_its_siblings_live_on() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::new().unwrap();
    let (_a, mut a) = attach(&switch, directory.path(), 16);
    let names = || {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name())
            .collect::<Vec<_>>()
    };
    for _ in 0..3 {
        let before = names();
        let (guest, mut b) = attach(&switch, directory.path(), 17);
        assert_eq!(names().len(), before.len() + 2);
        connect(&mut a, &mut b);
        assert_eq!(a.receive_op(), Some(Op::Response));
        drop(guest);
        assert_eq!(a.receive_op(), Some(Op::Reset));
        assert_eq!(names().len(), before.len());
        assert!(
            b.frontend.get_features().is_err(),
            "QEMU has lost its device"
        );
    }
}

#[test]
fn a_qemu_that_goes_away_resets_its_connections_and_another_may_come() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::new().unwrap();
    let (_a, mut a) = attach(&switch, directory.path(), 16);
    let (_b, mut b) = attach(&switch, directory.path(), 17);
    connect(&mut a, &mut b);
    assert_eq!(a.receive_op(), Some(Op::Response));
    drop(b);
    assert_eq!(a.receive_op(), Some(Op::Reset));
    let mut b = FakeQemu::start(&directory.path().join("q17"));
    connect(&mut a, &mut b);
    assert_eq!(a.receive_op(), Some(Op::Response));
}

#[test]
fn a_guest_that_reboots_resets_its_connections_and_makes_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::new().unwrap();
    let (_a, mut a) = attach(&switch, directory.path(), 16);
    let (_b, mut b) = attach(&switch, directory.path(), 17);
    connect(&mut a, &mut b);
    assert_eq!(a.receive_op(), Some(Op::Response));
    b.reboot();
    assert_eq!(a.receive_op(), Some(Op::Reset));
    connect(&mut a, &mut b);
    assert_eq!(a.receive_op(), Some(Op::Response));
}

#[test]
fn a_cid_and_a_socket_are_given_once() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::new().unwrap();
    let guest = switch.attach(config(directory.path(), 16)).unwrap();
    assert_eq!(guest.cid(), 16);
    let other = tempfile::tempdir().unwrap();
    let taken = switch.attach(config(other.path(), 16)).unwrap_err();
    assert!(matches!(taken, SwitchError::CidTaken(16)), "{taken}");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
    let same = GuestConfig {
        cid: 17,
        ..config(directory.path(), 16)
    };
    let taken = switch.attach(same).unwrap_err();
    assert!(
        matches!(&taken, SwitchError::Listen { path, source }
            if path.ends_with("q16") && source.kind() == ErrorKind::AddrInUse),
        "{taken}"
    );
    for cid in [0, 1, 2, u32::MAX] {
        let reserved = switch.attach(config(other.path(), cid)).unwrap_err();
        assert!(matches!(reserved, SwitchError::CidReserved(found) if found == cid));
    }
    drop(guest);
    drop(switch.attach(config(directory.path(), 16)).unwrap());
}

#[test]
fn a_switch_ends_with_its_last_guest() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::new().unwrap();
    let guest = switch.attach(config(directory.path(), 16)).unwrap();
    drop(switch);
    let mut stream = UnixStream::connect(directory.path().join("h16")).unwrap();
    stream.write_all(b"CONNECT 1\n").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "refused, and so alive");
    drop(guest);
    let gone = UnixStream::connect(directory.path().join("h16")).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}
