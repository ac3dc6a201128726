//! `vsock-switch`: a switch of its own process, for guests that are named at its start.

use clap::Parser;
use explain::{CliError, Exit};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use vsock_switch::{Guest, GuestConfig, HostSide, Switch};

/// The parent instance's CID on Nitro.
const HOST_CID: u32 = 3;

const ABOUT: &str = "Switches vsock between virtual machines, and to unix sockets of this host";

const LONG_ABOUT: &str = "\
Switches vsock between virtual machines, and to unix sockets of this host.

Each guest is a virtual machine whose vhost-user vsock device connects to SOCKET. With QEMU:

  vsock-switch --guest cid=16,socket=/run/a.sock,host-path=/run/a
  qemu-system-x86_64 -M nitro-enclave,vsock=c -chardev socket,id=c,path=/run/a.sock ...
  qemu-system-x86_64 ... -device vhost-user-vsock-pci,chardev=c  (any other machine with shared memory)

Guests reach each other by their CIDs. With host-path=PATH a guest also reaches this host, at CID 0,
CID 2 and host-cid:

  guest to host  a connection to port 9000 connects to the unix socket PATH_9000
  host to guest  connect to the unix socket PATH, write \"CONNECT 9003\\n\" and read \"OK <port>\\n\";
                 a close without a line is a refusal

The switch is ready when all sockets exist. It ends at SIGTERM or SIGINT, and removes its sockets.
RUST_LOG=debug tells what is refused and why.";

const EXIT_CODES: &str = "\
Exit codes: 0 ended by a signal, 64 usage error, 69 unavailable, 70 internal error.";

/// The command line.
#[derive(Debug, Parser)]
#[command(version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXIT_CODES)]
struct Arguments {
    /// A guest: cid=N,socket=PATH[,host-cid=M][,host-path=PATH]. Repeat it for more guests;
    /// host-cid is 3 if it is not given.
    #[arg(long = "guest", required = true, value_parser = parse_guest, value_name = "GUEST")]
    guests: Vec<GuestConfig>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // There is nowhere else to say it.
            error.print().ok();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(arguments.guests) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The same.
            writeln!(std::io::stderr(), "{error}").ok();
            error.exit.into()
        }
    }
}

/// Switches until a signal comes.
fn run(guests: Vec<GuestConfig>) -> Result<(), CliError> {
    log();
    raise_descriptor_limit();
    // Before any thread starts: all of them leave the signals to this one.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(CliError::bug)?;
    let switch = Switch::new()?;
    let guests = guests.into_iter().map(|guest| switch.attach(guest));
    let attached: Vec<Guest> = guests.collect::<Result<_, _>>()?;
    let signal = signals.wait().map_err(CliError::bug)?;
    tracing::info!(guests = attached.len(), %signal, "ending");
    Ok(())
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Each connection with the host needs a descriptor; the usual soft limit is 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// `cid=N,socket=PATH[,host-cid=M][,host-path=PATH]`
fn parse_guest(text: &str) -> Result<GuestConfig, String> {
    let (mut cid, mut socket, mut host_cid, mut host_path) = (None, None, None, None);
    for field in text.split(',') {
        let (name, value) = field
            .split_once('=')
            .ok_or(format!("{field:?} is not NAME=VALUE"))?;
        match name {
            "cid" => cid = Some(parse_cid(value)?),
            "socket" => socket = Some(PathBuf::from(value)),
            "host-cid" => host_cid = Some(parse_cid(value)?),
            "host-path" => host_path = Some(PathBuf::from(value)),
            _ => {
                return Err(format!(
                    "{name:?} is none of cid, socket, host-cid and host-path"
                ));
            }
        }
    }
    if host_cid.is_some() && host_path.is_none() {
        return Err("host-cid needs host-path".to_owned());
    }
    Ok(GuestConfig {
        cid: cid.ok_or("cid is missing")?,
        socket: socket.ok_or("socket is missing")?,
        host: host_path.map(|path| HostSide {
            cid: host_cid.unwrap_or(HOST_CID),
            path,
        }),
    })
}

fn parse_cid(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a CID, a number below 4294967296"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_named_by_its_fields() {
        let guest = parse_guest("cid=16,socket=/run/a.sock,host-path=/run/a").unwrap();
        let expected = GuestConfig {
            cid: 16,
            socket: "/run/a.sock".into(),
            host: Some(HostSide {
                cid: 3,
                path: "/run/a".into(),
            }),
        };
        assert_eq!(guest, expected);
        assert_eq!(parse_guest("cid=3,socket=a").unwrap().host, None);
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (text, error) in [
            ("cid", "\"cid\" is not NAME=VALUE"),
            ("cid=-1", "\"-1\" is not a CID, a number below 4294967296"),
            ("socket=a", "cid is missing"),
            ("cid=3", "socket is missing"),
            ("cid=3,socket=a,host-cid=4", "host-cid needs host-path"),
            (
                "uds=a",
                "\"uds\" is none of cid, socket, host-cid and host-path",
            ),
        ] {
            assert_eq!(parse_guest(text), Err(error.to_owned()));
        }
    }
}
