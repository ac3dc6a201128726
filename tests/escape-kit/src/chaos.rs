//! Everything at once, without end: a service that holds every connection, and beside it all that
//! [`exhaust`] takes.

use crate::{exhaust, sys};
use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

const PORT: u16 = 8080;
/// How long the first process sleeps, while the others are started; a set that is busy from the start
/// leaves no time to complete it.
const SLEEP: Duration = Duration::from_secs(5);
/// How long a full set stays busy before the next round.
const SPIN: Duration = Duration::from_secs(7);

/// Never returns.
pub(crate) fn run() {
    match sys::fork() {
        Ok(None) => serve(),
        Ok(Some(_)) => {}
        Err(error) => return println!("no service: {error}"),
    }
    for round in 1_u32.. {
        exhaust::files();
        exhaust::memory();
        bomb();
        println!("round {round}");
    }
}

/// Says one word on every connection, and keeps it open.
fn serve() {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", PORT)) else {
        return println!("no service");
    };
    let mut held = Vec::new();
    for mut stream in listener.incoming().flatten() {
        if stream.write_all(b"here\n").is_ok() {
            held.push(stream);
        }
    }
}

/// As many processes as there can be, and none of them a moment later.
fn bomb() {
    match sys::fork() {
        Ok(None) => {
            let group = sys::call(nix::libc::SYS_setpgid, [0; 6]);
            println!("{} processes, {group:?}", exhaust::processes(SLEEP));
            std::thread::sleep(SPIN);
            sys::kill_group();
        }
        Ok(Some(child)) => drop(sys::wait(child)),
        Err(error) => println!("no bomb: {error}"),
    }
}
