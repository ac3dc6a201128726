//! The program: what it makes, how it ends, and what it says.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn start(directory: &Path) -> Child {
    let guest = |cid: u32| {
        let directory = directory.display();
        format!("cid={cid},socket={directory}/q{cid},host-path={directory}/h{cid}")
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsock-switch"));
    command.args(["--guest", &guest(16), "--guest", &guest(17)]);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().expect("cargo has built it")
}

#[test]
fn it_makes_its_sockets_and_removes_them_at_a_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = tempfile::tempdir().unwrap();
        let mut program = start(directory.path());
        let deadline = Instant::now() + Duration::from_secs(20);
        let sockets = || std::fs::read_dir(directory.path()).unwrap().count();
        while sockets() < 4 {
            assert!(Instant::now() < deadline, "there are {} sockets", sockets());
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = i32::try_from(program.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        assert!(program.wait().unwrap().success());
        assert_eq!(sockets(), 0);
    }
}

#[test]
fn a_path_that_is_taken_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("h17");
    std::fs::write(&path, "").unwrap();
    let output = start(directory.path()).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    let expected = format!(
        "error: cannot listen on {}: Address already in use (os error 98)\n  \
         Choose another path, or remove the file if no other program listens there.\n",
        path.display()
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the file that was there");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsock-switch"));
    let output = command.args(["--guest", "cid=16"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("socket is missing")
    );
}
