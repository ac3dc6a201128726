//! From a container image's reference to an enclave image, with the library alone: the core of
//! `eif-builder build`.
//!
//! ```text
//! cargo run --example build -- docker.io/library/nginx:1.29 nginx.eif
//! ```
//!
//! Kernel and agent are searched where `eif-builder` does: set `REDOUBT_LIB` to the directory that
//! has them.

use eif_builder::artifacts::{self, AGENT, KERNEL};
use eif_builder::build::{BuildProgress, DEFAULT_CMDLINE, Inputs, build};
use oci::pull::{DEFAULT_MAX_UNPACKED, PullRequest, pull};
use oci::{Digest, Endpoint, Reference};
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::spec::Spec;

/// Reports nothing.
struct Quiet;

impl oci::PullProgress for Quiet {
    fn resolved(&self, _: Digest, _: &[u64]) {}
    fn received(&self, _: u64) {}
}

impl BuildProgress for Quiet {
    fn merged(&self, _: u64) {}
    fn packed(&self, _: u64) {}
    fn measuring(&self) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(image), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: build IMAGE OUTPUT".into());
    };
    let inputs = Inputs {
        kernel: artifacts::find(KERNEL, None)?,
        agent: artifacts::find(AGENT, None)?,
        cmdline: DEFAULT_CMDLINE.to_owned(),
        spec: Spec::parse("[logs]\nforward = true\n")?,
        build_time: 0,
    };

    // Every byte of the image is verified against the digests that its reference leads to.
    let request = PullRequest {
        reference: Reference::parse(&image)?,
        platform: "linux/amd64".parse()?,
        credentials: None,
        endpoint: Endpoint {
            plain_http: Default::default(),
            ca_cert: None,
        },
        work_dir: std::env::temp_dir(),
        max_unpacked: DEFAULT_MAX_UNPACKED,
    };
    let image = pull(request, Arc::new(Quiet)).await?;

    // Building blocks: it belongs on a thread of its own.
    let output = PathBuf::from(output);
    let built =
        tokio::task::spawn_blocking(move || build(&image, &inputs, Path::new(&output), &Quiet));
    let built = built.await??;
    let pcr0 = built.measurements.pcr0;
    writeln!(std::io::stdout(), "{}: PCR0 {pcr0}", built.path.display())?;
    Ok(())
}
