//! Tries, one by one, what a workload must not be able to do, and prints a line for each:
//! `refused: SENTENCE: ERROR` or `POSSIBLE: SENTENCE`. Then come the things that it must be able to
//! do (`works:` or `BROKEN:`), and then it uses up what it can get: files, memory, processes. It
//! ends with `END` and stays, with as many busy processes as it got. With sentences as arguments it
//! tries those alone and uses up nothing. With `--chaos` it
//! serves on port 8080 and uses up everything again and again.
#![allow(clippy::print_stdout, reason = "what this program finds is its output")]

mod chaos;
mod exhaust;
mod sys;
mod tries;

use std::io;
use std::time::Duration;

fn main() {
    // What the set-user-ID copy of this program says of itself.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted == ["--who"] {
        println!("{}", nix::unistd::geteuid());
        return;
    }
    if wanted == ["--chaos"] {
        return chaos::run();
    }
    for (sentence, attempt) in tries::FORBIDDEN {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == sentence) {
            continue;
        }
        match attempt() {
            Ok(_) => println!("POSSIBLE: {sentence}"),
            Err(error) => println!("refused: {sentence}: {error}"),
        }
    }
    for (sentence, attempt) in tries::ORDINARY {
        match attempt() {
            Ok(_) => println!("works: {sentence}"),
            Err(error) => println!("BROKEN: {sentence}: {error}"),
        }
    }
    status();
    let mut processes = 0;
    if wanted.is_empty() {
        exhaust::files();
        exhaust::memory();
        processes = exhaust::processes(Duration::ZERO);
    }
    println!("END after {processes} processes");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// What the kernel says of this process.
fn status() {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp:",
    ];
    for line in text.lines() {
        if wanted.iter().any(|name| line.starts_with(name)) {
            println!("status: {}", line.replace('\t', " "));
        }
    }
}

type Attempt = fn() -> io::Result<usize>;
