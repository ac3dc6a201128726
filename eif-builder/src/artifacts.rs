//! Finds what an enclave image needs beside the container image: the kernel and the agent.

use std::path::{Path, PathBuf};

pub const KERNEL: &str = "bzImage";
pub const AGENT: &str = "enclave-agent";

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("no {name} found; looked at {}", tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Missing {
        name: &'static str,
        tried: Vec<PathBuf>,
    },
    #[error("{path}: {problem}")]
    Unusable { path: PathBuf, problem: String },
}

impl ArtifactError {
    /// The next step for a person.
    pub fn hint(&self) -> &'static str {
        match self {
            ArtifactError::Missing { name: KERNEL, .. } => {
                "build one with scripts/sandbox, or name AWS's with --kernel /usr/share/nitro_enclaves/blobs/bzImage"
            }
            ArtifactError::Missing { .. } => {
                "build it with scripts/build, and put it into $REDOUBT_LIB or /usr/lib/redoubt (eif-builder takes --agent FILE)"
            }
            ArtifactError::Unusable { .. } => "build it again with scripts/build",
        }
    }
}

/// The places, in order: the flag, `$REDOUBT_LIB`, beside this program, `/usr/lib/redoubt`, the sandbox in the cache.
pub fn find(name: &'static str, flag: Option<&Path>) -> Result<PathBuf, ArtifactError> {
    if let Some(path) = flag {
        return match path.is_file() {
            true => Ok(path.to_owned()),
            false => Err(ArtifactError::Missing {
                name,
                tried: vec![path.to_owned()],
            }),
        };
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache =
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let places = [
        variable("REDOUBT_LIB"),
        std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned)),
        Some(PathBuf::from("/usr/lib/redoubt")),
        cache.map(|cache| cache.join("redoubt/sandbox")),
    ];
    let tried: Vec<PathBuf> = places
        .into_iter()
        .flatten()
        .map(|folder| folder.join(name))
        .collect();
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(ArtifactError::Missing { name, tried }),
    }
}

/// PID 1 has no libraries beside it: a program that names an interpreter would end in a kernel panic.
/// Source: System V ABI, "ELF Header" and "Program Header" (64-bit, little-endian).
pub fn check_static_elf(path: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    let unusable = |problem: &str| ArtifactError::Unusable {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let number = |at: usize, len: usize| {
        let field = bytes.get(at..at.checked_add(len)?)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0usize, |n, &byte| n << 8 | usize::from(byte)),
        )
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") || number(18, 2) != Some(62) {
        return Err(unusable("not a program for 64-bit x86"));
    }
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return Err(unusable("not a whole program"));
    };
    for n in 0..count {
        let at = size
            .checked_mul(n)
            .and_then(|offset| table.checked_add(offset));
        match at.and_then(|at| number(at, 4)) {
            None => return Err(unusable("not a whole program")),
            Some(3) => {
                return Err(unusable(
                    "not statically linked; build it for x86_64-unknown-linux-musl",
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The version in a bzImage (Linux, Documentation/arch/x86/boot.rst, field `kernel_version`).
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
        let path = std::env::current_exe().unwrap();
        let own = std::fs::read(&path).unwrap();
        assert!(
            check_static_elf(&path, &own)
                .unwrap_err()
                .to_string()
                .contains("not statically linked")
        );
        assert!(
            check_static_elf(&path, b"#!/bin/sh")
                .unwrap_err()
                .to_string()
                .contains("not a program")
        );
        assert!(
            check_static_elf(&path, &own[..100])
                .unwrap_err()
                .to_string()
                .contains("not a whole program")
        );
    }
}
