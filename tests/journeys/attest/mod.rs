//! The command `attest`, as a relying party runs it.

mod fetch;
mod flags;
mod policies;
mod show;
mod signer;
mod verdicts;

use pki::{Minted, Plan, pem};
use serde_json::Value;
use std::process::Command;
use tempfile::TempDir;
use tests::programs::ours;

const AT: &str = "2026-01-01T12:00:00Z";
/// The nonce of a good document.
const NONCE: &str = "3132333435363738";

/// A directory with a document, and the root that it chains to.
struct Case {
    directory: TempDir,
}

#[derive(Debug)]
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Case {
    fn new(Minted { document, root }: &Minted) -> Case {
        let case = Case {
            directory: tempfile::tempdir().unwrap(),
        };
        case.write("document", document);
        case.write("root.pem", pem(root));
        case
    }

    fn good() -> Case {
        Case::new(&Plan::default().mint())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.directory.path().join(name), content).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(ours("attest"));
        command.current_dir(&self.directory).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().unwrap();
        Outcome {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `attest verify document` below our root, at a time.
    fn verify_at(&self, at: &str, arguments: &[&str]) -> Outcome {
        let verify = ["verify", "document", "--root", "root.pem", "--at", at];
        self.run(&[&verify, arguments].concat())
    }

    /// `attest verify document` below our root, at the time it was made.
    fn verify(&self, arguments: &[&str]) -> Outcome {
        self.verify_at(AT, arguments)
    }
}

impl Outcome {
    #[track_caller]
    fn prints(&self, text: &str) {
        assert!(self.stdout.contains(text), "{text:?} in:\n{}", self.stdout);
    }

    #[track_caller]
    fn warns(&self, text: &str) {
        assert!(self.stderr.contains(text), "{text:?} in:\n{}", self.stderr);
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn digits(byte: u8) -> String {
    hex::encode([byte; 48])
}

/// The value of `--pcr`.
fn register(index: u8, byte: u8) -> String {
    format!("{index}={}", digits(byte))
}
