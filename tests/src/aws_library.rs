//! An enclave image as AWS's library writes it.

use aws_nitro_enclaves_image_format::defs::{EifBuildInfo, EifIdentityInfo};
use aws_nitro_enclaves_image_format::utils::EifBuilder;
use eif_builder::eif::{Eif, SectionKind};
use serde_json::Value;
use sha2::{Digest as _, Sha384};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Writes an image of these parts.
pub fn write_eif(kernel: &Path, cmdline: String, ramdisks: &[&Path], to: &Path) {
    let mut builder = EifBuilder::new(kernel, cmdline, None, Sha384::new(), 0, identity());
    for ramdisk in ramdisks {
        builder.add_ramdisk(ramdisk);
    }
    builder.write_to(&mut File::create(to).unwrap());
}

/// The content of a section of an image, the first of its kind being 0.
#[must_use]
pub fn section(image: &Path, kind: SectionKind, nth: usize) -> Vec<u8> {
    let eif = Eif::open(image).unwrap();
    let mut sections = eif.sections().iter().filter(|section| section.kind == kind);
    let range = sections.nth(nth).unwrap().range();
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    eif.file().read_exact_at(&mut bytes, range.start).unwrap();
    bytes
}

fn identity() -> EifIdentityInfo {
    let text = || "theirs".to_owned();
    EifIdentityInfo {
        img_name: text(),
        img_version: text(),
        build_info: EifBuildInfo {
            build_time: text(),
            build_tool: text(),
            build_tool_version: text(),
            img_os: text(),
            img_kernel: text(),
        },
        docker_info: Value::Null,
        custom_info: Value::Null,
    }
}
