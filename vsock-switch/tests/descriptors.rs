//! Alone in its process: it counts the process's descriptors.

use std::io::Read as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vsock_switch::{GuestConfig, Switch};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("Linux has it")
        .count()
}

#[test]
fn guests_and_qemus_that_come_and_go_leave_no_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::new().unwrap();
    let before = descriptors();
    for _ in 0..20 {
        let socket = directory.path().join("q");
        let config = GuestConfig {
            cid: 16,
            socket: socket.clone(),
            host: None,
        };
        let guest = switch.attach(config).unwrap();
        for _ in 0..3 {
            let mut qemu = UnixStream::connect(&socket).unwrap();
            qemu.shutdown(Shutdown::Write).unwrap();
            assert_eq!(qemu.read(&mut [0]).unwrap(), 0, "it was served");
        }
        drop(guest);
    }
    // The far ends are closed by other threads.
    let deadline = Instant::now() + Duration::from_secs(20);
    while descriptors() > before {
        assert!(
            Instant::now() < deadline,
            "{before} became {}",
            descriptors()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
