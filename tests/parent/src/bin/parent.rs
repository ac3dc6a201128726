//! `scripts/parent` ends here: boots a parent instance, and runs a command or a shell in it.

#![allow(clippy::print_stderr, reason = "what it says to people goes there")]
#![allow(
    clippy::indexing_slicing,
    reason = "reads give lengths of their buffers"
)]

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, SetArg};
use parent::shell::{self, Input, Piece, Request};
use parent::{Files, Machine};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What the guest's services have after a boot, before a command runs.
const SETTLED: Duration = Duration::from_secs(180);

/// A Nitro parent instance in QEMU
#[derive(Debug, Parser)]
struct Arguments {
    /// What scripts/parent built
    #[arg(long, value_name = "DIRECTORY")]
    files: PathBuf,
    /// Leave the machine running, and say how to reach and how to end it
    #[arg(long)]
    keep: bool,
    /// Use a machine that an earlier call left running
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "keep")]
    at: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command in the machine, and exit as it did
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Hold a machine until this process gets a signal
    #[command(hide = true)]
    Hold { ready: PathBuf },
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let files = Files::below(&arguments.files);
    match &arguments.verb {
        Some(Verb::Hold { ready }) => hold(&files, ready),
        verb => {
            let command = match verb {
                Some(Verb::Run { command }) => Some(quoted(command)),
                _ => None,
            };
            visit(&arguments, &files, command)
        }
    }
}

/// One argument stays a line for the shell; several stay several words.
fn quoted(words: &[String]) -> String {
    if let [line] = words {
        return line.clone();
    }
    let word = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn visit(
    arguments: &Arguments,
    files: &Files,
    command: Option<String>,
) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &arguments.at {
        return talk(&directory.join("v"), command);
    }
    let began = Instant::now();
    eprintln!("booting the parent instance (about half a minute)");
    if arguments.keep {
        let (directory, pid) = leave_running(arguments)?;
        let code = talk(&directory.join("v"), command)?;
        let directory = directory.display();
        eprintln!("the parent instance keeps running:");
        eprintln!("    scripts/parent --at {directory} run enclavectl list");
        eprintln!("    scripts/parent --at {directory}     # a shell");
        eprintln!("    kill {pid}                          # ends it");
        return Ok(code);
    }
    let machine = settled(files)?;
    eprintln!("it is up after {} s", began.elapsed().as_secs());
    let code = talk(machine.host(), command)?;
    for line in machine.events().lines() {
        eprintln!("hypervisor: {line}");
    }
    Ok(code)
}

/// Boots, and waits until the services are started.
fn settled(files: &Files) -> anyhow::Result<Machine> {
    let machine = Machine::boot(files)?;
    // "degraded" is an answer too: the command shows what does not work.
    machine.run("systemctl is-system-running --wait", SETTLED)?;
    Ok(machine)
}

/// Starts this program again, as one that holds a machine. Returns its directory and process ID.
fn leave_running(arguments: &Arguments) -> anyhow::Result<(PathBuf, u32)> {
    let home = tempfile::TempDir::with_prefix_in("rp", "/tmp")?;
    // Gone when the machine is ready; its log then goes nowhere.
    let (ready, log) = (home.path().join("ready"), home.path().join("log"));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--files").arg(&arguments.files);
    command.arg("hold").arg(&ready).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let mut child = command.spawn()?;
    loop {
        if let Ok(directory) = std::fs::read_to_string(&ready) {
            return Ok((directory.into(), child.id()));
        }
        if child.try_wait()?.is_some() {
            anyhow::bail!("{}", std::fs::read_to_string(&log)?);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn hold(files: &Files, ready: &Path) -> anyhow::Result<ExitCode> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Before any thread is started, so that no other one takes them.
    signals.thread_block()?;
    let machine = settled(files)?;
    let new = ready.with_extension("new");
    std::fs::write(&new, machine.directory().display().to_string())?;
    std::fs::rename(new, ready)?;
    signals.wait()?;
    Ok(ExitCode::SUCCESS)
}

/// A command, or a shell; what this process reads and writes is what the command does.
fn talk(host: &Path, command: Option<String>) -> anyhow::Result<ExitCode> {
    let terminal = command.is_none() && io::stdin().is_terminal();
    let request = Request {
        command: command.unwrap_or_else(|| {
            let size = Command::new("stty")
                .arg("size")
                .stdin(Stdio::inherit())
                .output();
            let size = size.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
            match size.unwrap_or_default().split_once(' ') {
                Some((rows, columns)) => {
                    format!("stty rows {rows} cols {}; exec bash -l", columns.trim())
                }
                None => "exec bash -l".to_owned(),
            }
        }),
        input: if terminal {
            Input::Terminal
        } else {
            Input::Stream
        },
    };
    let mut stream = shell::connect(host, shell::PORT).context("the machine does not answer")?;
    request.write(&mut stream)?;
    let input = stream.try_clone()?;
    let raw = terminal.then(RawTerminal::new).transpose()?;
    thread::spawn(move || send_input(input));
    let code = receive(stream);
    drop(raw);
    Ok(ExitCode::from(code?))
}

fn send_input(mut to: UnixStream) {
    let mut bytes = [0; 4096];
    let mut stdin = io::stdin();
    while let Ok(length) = stdin.read(&mut bytes)
        && length > 0
        && to.write_all(&bytes[..length]).is_ok()
    {}
    // The machine may be gone already.
    to.shutdown(Shutdown::Write).ok();
}

fn receive(mut from: UnixStream) -> anyhow::Result<u8> {
    loop {
        match Piece::read(&mut from).context("the machine is gone")? {
            Piece::Stdout(bytes) => {
                let mut stdout = io::stdout();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
            }
            Piece::Stderr(bytes) => io::stderr().write_all(&bytes)?,
            Piece::Exit(code) => return Ok(code),
        }
    }
}

/// The terminal hands on each key as it is; dropping it gives the terminal back.
#[derive(Debug)]
struct RawTerminal(termios::Termios);

impl RawTerminal {
    fn new() -> anyhow::Result<RawTerminal> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}
