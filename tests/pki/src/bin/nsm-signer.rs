//! The signer as a program: see `--help`.

use anyhow::Context as _;
use clap::Parser;
use pki::Signer;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Signs the attestation documents of QEMU's NSM, for tests and the demo.
///
/// It needs a QEMU whose virtio-nsm-device has the property 'signer':
///
///   -chardev socket,id=nsm,path=SOCKET -global virtio-nsm-device.signer=nsm
///
/// 'attest verify DOCUMENT --root DIRECTORY/root.pem' accepts what it signs. That proves nothing
/// about an enclave: the signer signs for every process that can reach its socket.
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// Keeps the root in root.key and root.pem; what is missing is made.
    directory: PathBuf,
    /// The unix socket to listen on. Once it is there, the root is there too.
    socket: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { directory, socket } = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .init();
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let signer = Signer::open(&directory)?;
    let listener = listen(&socket).with_context(|| socket.display().to_string())?;
    signer.serve(listener)
}

/// Takes the place of a socket that nothing listens on any more.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(path) {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            _ => Err(error),
        },
        bound => bound,
    }
}
