//! Uses up what the workload can get. Each ends when the enclave's limits end it.

use crate::sys;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// Fills the disk, and frees it again.
pub(crate) fn files() {
    let path = "/tmp/fill";
    let mut written = 0;
    let filled = File::create(path).and_then(|mut file| {
        loop {
            written += file.write(&[1; MIB])?;
        }
    });
    if let Err::<(), _>(error) = filled {
        println!("full: {} MiB of files: {error}", written / MIB);
    }
    std::fs::remove_file(path).ok();
}

/// Takes all memory, in a child: the kernel ends it.
pub(crate) fn memory() {
    let Ok(child) = sys::fork() else { return };
    let Some(child) = child else {
        let mut taken = Vec::new();
        loop {
            taken.push(vec![1_u8; MIB]);
        }
    };
    match sys::wait(child) {
        Some(signal) => println!("out of memory: signal {signal}"),
        None => println!("out of memory: it ended by itself"),
    }
}

/// Starts as many processes as it can, all of which stay, and keep the processors busy `after` a while.
pub(crate) fn processes(after: Duration) -> usize {
    let mut started = 0;
    loop {
        match sys::fork() {
            Ok(Some(_)) => started += 1,
            Ok(None) => {
                std::thread::sleep(after);
                loop {
                    std::hint::spin_loop();
                }
            }
            Err(error) => {
                println!("fork: {error}");
                return started;
            }
        }
    }
}
