//! Where the programs under test and their oracles are. `scripts/test` puts them there.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A program of this workspace, from the folder that this test was built into.
#[must_use]
pub fn ours(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join(name);
    assert!(
        path.is_file(),
        "{} is missing; run scripts/test, which builds it",
        path.display()
    );
    path
}

/// The folder with kernel, agent and `tree-listing`.
#[must_use]
pub fn lib() -> PathBuf {
    named("REDOUBT_LIB")
}

/// Links in a folder to all that the QEMU launcher needs: a test is not beside `vsock-switch`.
pub fn link_launcher(folder: &Path) {
    let kernel = std::fs::read_link(lib().join("bzImage")).unwrap();
    let sandbox = kernel.parent().unwrap();
    for name in ["qemu-system-x86_64", "firmware"] {
        symlink(sandbox.join(name), folder.join(name)).unwrap();
    }
    symlink(ours("vsock-switch"), folder.join("vsock-switch")).unwrap();
}

/// A path from the environment that `scripts/test` sets.
#[must_use]
pub fn named(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; run scripts/test"));
    PathBuf::from(value)
}

/// Runs an oracle and gives its standard output.
pub fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        status.success(),
        "{command:?}: {status}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).unwrap()
}
