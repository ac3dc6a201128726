//! Names that only one process resolves: libnss-wrapper puts a hosts file of the test before the C
//! library's own sources, so that no journey needs names of this machine.

use std::fmt::Write as _;
use tempfile::TempDir;

/// Where Debian's package of that name has it; without a directory, the dynamic linker knows it.
const WRAPPER: &str = "libnss_wrapper.so";

/// A hosts file, for as long as this lives.
pub struct Names {
    folder: TempDir,
}

impl Names {
    /// Every name is this machine.
    #[must_use]
    pub fn of_this_machine(names: &[&str]) -> Names {
        let folder = tempfile::tempdir().unwrap();
        let mut hosts = String::new();
        for name in names {
            writeln!(hosts, "127.0.0.1 {name}").unwrap();
        }
        std::fs::write(folder.path().join("hosts"), hosts).unwrap();
        Names { folder }
    }

    /// The environment that makes a process use it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let hosts = self.folder.path().join("hosts").display().to_string();
        [
            ("LD_PRELOAD", WRAPPER.to_owned()),
            ("NSS_WRAPPER_HOSTS", hosts),
        ]
    }
}
