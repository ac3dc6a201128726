//! Finds what an enclave image needs beside the container image: the kernel and the agent.

use explain::{Code, Explain};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// File name of the enclave's kernel.
pub const KERNEL: &str = "bzImage";
/// File name of the program that is PID 1 in the enclave.
pub const AGENT: &str = "enclave-agent";

/// Why the kernel or the agent cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is no such file in any of the places.
    #[error("no {name} found; looked at {}", list(tried))]
    Missing {
        /// [`KERNEL`] or [`AGENT`].
        name: &'static str,
        /// Where it was looked for, in this order.
        tried: Vec<PathBuf>,
    },
    /// The file is there but cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// [`KERNEL`] or [`AGENT`].
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The agent is no program that can be PID 1.
    #[error("{path}: {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ElfProblem,
    },
}

/// Why a file cannot be the first program of an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElfProblem {
    /// It is no ELF file, or one for another processor.
    #[error("not a program for 64-bit x86")]
    NotX86,
    /// It ends before its own headers do.
    #[error("not a whole program")]
    Truncated,
    /// It names an interpreter, which the enclave does not have.
    #[error("not statically linked; build it for x86_64-unknown-linux-musl")]
    Dynamic,
}

impl Explain for ArtifactError {
    fn code(&self) -> Code {
        match self {
            ArtifactError::Missing { name: KERNEL, .. }
            | ArtifactError::Unreadable { name: KERNEL, .. } => Code::KernelMissing,
            ArtifactError::Missing { .. }
            | ArtifactError::Unreadable { .. }
            | ArtifactError::Unusable { .. } => Code::AgentMissing,
        }
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            ArtifactError::Missing { .. } => self.code().next_step().into(),
            ArtifactError::Unreadable { .. } => "Check its permissions.".into(),
            ArtifactError::Unusable { .. } => "Build it again with scripts/build.".into(),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// Looks for a file: at `flag` alone if it is given; otherwise in `$REDOUBT_LIB`, beside the
/// running program, in `/usr/lib/redoubt`, and in the sandbox (`redoubt/sandbox` in
/// `$XDG_CACHE_HOME` or `~/.cache`), in this order. `name` is [`KERNEL`] or [`AGENT`].
///
/// ```
/// use eif_builder::artifacts::{KERNEL, find};
/// use explain::{Code, Explain as _};
/// use std::path::Path;
///
/// let error = find(KERNEL, Some(Path::new("/nowhere/bzImage"))).unwrap_err();
/// assert_eq!(error.to_string(), "no bzImage found; looked at /nowhere/bzImage");
/// assert_eq!(error.code(), Code::KernelMissing);
/// ```
///
/// # Errors
/// [`ArtifactError::Missing`] if there is no such file.
pub fn find(name: &'static str, flag: Option<&Path>) -> Result<PathBuf, ArtifactError> {
    let tried = match flag {
        Some(path) => vec![path.to_owned()],
        None => places().map(|directory| directory.join(name)).collect(),
    };
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(ArtifactError::Missing { name, tried }),
    }
}

fn places() -> impl Iterator<Item = PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache =
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let program = std::env::current_exe().ok();
    [
        variable("REDOUBT_LIB"),
        program.and_then(|path| path.parent().map(Path::to_owned)),
        Some(PathBuf::from("/usr/lib/redoubt")),
        cache.map(|cache| cache.join("redoubt/sandbox")),
    ]
    .into_iter()
    .flatten()
}

/// Checks that a program is a static one for x86_64: PID 1 has no libraries beside it, and a
/// program that names an interpreter would end in a kernel panic. `path` is for the error alone;
/// the file is not opened.
///
/// Source: System V ABI, "ELF Header" and "Program Header" (64-bit, little-endian).
///
/// # Errors
/// [`ArtifactError::Unusable`].
pub fn check_static_elf(path: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    check_elf(bytes).map_err(|problem| ArtifactError::Unusable {
        path: path.to_owned(),
        problem,
    })
}

/// ELF's e_machine for x86_64.
const EM_X86_64: usize = 62;
/// Type of the program header that names an interpreter.
const PT_INTERP: usize = 3;

fn check_elf(bytes: &[u8]) -> Result<(), ElfProblem> {
    let number = |at: usize, len: usize| {
        let field = bytes.get(at..at.checked_add(len)?)?;
        let digits = field.iter().rev();
        Some(digits.fold(0usize, |n, &byte| n << 8 | usize::from(byte)))
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") || number(18, 2) != Some(EM_X86_64) {
        return Err(ElfProblem::NotX86);
    }
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return Err(ElfProblem::Truncated);
    };
    for n in 0..count {
        let at = size
            .checked_mul(n)
            .and_then(|offset| table.checked_add(offset));
        match at.and_then(|at| number(at, 4)) {
            None => return Err(ElfProblem::Truncated),
            Some(PT_INTERP) => return Err(ElfProblem::Dynamic),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The version in a bzImage, of 1 to 64 characters; `None` if these bytes are no bzImage or name no
/// version.
///
/// Source: Linux, Documentation/arch/x86/boot.rst, field `kernel_version`.
pub fn kernel_version(kernel: &[u8]) -> Option<String> {
    if kernel.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = kernel
        .get(0x20e..0x210)?
        .first_chunk()
        .map(|bytes| usize::from(u16::from_le_bytes(*bytes)))?;
    let text = kernel
        .get(pointer + 0x200..)?
        .split(|&b| b == 0 || b == b' ')
        .next()?;
    String::from_utf8(text.to_vec())
        .ok()
        .filter(|text| (1..=64).contains(&text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_names_every_place_that_was_tried() {
        let error = find("no-such-artifact", None).unwrap_err().to_string();
        assert!(
            error.contains("/usr/lib/redoubt/no-such-artifact")
                && error.contains("redoubt/sandbox")
        );
    }

    #[test]
    fn tells_a_static_program_from_a_dynamic_one() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(check_elf(&own), Err(ElfProblem::Dynamic));
        assert_eq!(check_elf(b"#!/bin/sh"), Err(ElfProblem::NotX86));
        assert_eq!(check_elf(&own[..100]), Err(ElfProblem::Truncated));
    }

    #[test]
    fn an_error_names_what_is_missing() {
        let path = Path::new("x");
        let missing = |name| find(name, Some(Path::new("/nowhere"))).unwrap_err().code();
        assert_eq!(missing(KERNEL), Code::KernelMissing);
        assert_eq!(missing(AGENT), Code::AgentMissing);
        let unusable = check_static_elf(path, b"#!/bin/sh").unwrap_err();
        assert_eq!(unusable.code(), Code::AgentMissing);
        assert_eq!(unusable.to_string(), "x: not a program for 64-bit x86");
    }
}
