//! AWS's own launcher on the same machine: it starts an image that we built, and gives the driver
//! the same commands as we do. And the other way round: we start an image that AWS's library wrote.

use super::Box;
use aws_nitro_enclaves_image_format::defs::{EifBuildInfo, EifIdentityInfo};
use aws_nitro_enclaves_image_format::utils::EifBuilder;
use eif_builder::eif::{Eif, SectionKind};
use serde_json::Value;
use sha2::{Digest as _, Sha384};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tests::eif;
use tests::programs::named;

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn nitro_cli_starts_our_image_and_takes_the_same_steps() {
    let scene = Box::new(&[]);
    let parent = &scene.parent;
    let before = parent.free();
    let path = scene.scene.path("app.eif");
    let built = eif::build(&scene.scene.registry, &scene.scene.reference, &path, &[]);
    assert!(built.status.success(), "{built:?}");
    let theirs = written_by_awss_library(&path);
    parent.put("/root/app.eif", std::fs::read(path).unwrap());
    parent.put("/root/theirs.eif", std::fs::read(theirs).unwrap());
    parent.put(
        "/root/nitro-cli",
        std::fs::read(named("REDOUBT_TEST_NITRO_CLI")).unwrap(),
    );
    // Both listen on the heartbeat's port.
    parent.ok("systemctl stop host-proxy; chmod +x /root/nitro-cli");
    parent.ok("mkdir -p /var/log/nitro_enclaves /run/nitro_enclaves");
    let started = parent.ok(
        "strace -f -e trace=ioctl -o /root/theirs /root/nitro-cli run-enclave --eif-path /root/app.eif \
         --cpu-count 2 --memory 256",
    );
    let cid = "\"EnclaveCID\": 16";
    assert!(
        started.contains(cid) && started.contains("\"MemoryMiB\": 256"),
        "{started}"
    );
    parent.ok("/root/nitro-cli terminate-enclave --all");
    parent.has_back(&before);
    let started = parent.ok("/opt/redoubt/bin/start-eif /root/theirs.eif");
    assert!(started.ends_with("on Nitro\n"), "{started}");
    parent.has_back(&before);
    parent.ok("systemctl start host-proxy");
    parent.ok("strace -f -e trace=ioctl -o /root/ours -p $(systemctl show -p MainPID --value host-proxy) 2>/dev/null & sleep 2");
    scene.deployed("ours");
    scene.terminate("ours");
    let theirs = steps(&scene, "/root/theirs");
    assert_eq!(steps(&scene, "/root/ours"), theirs);
    let first_and_last = (
        theirs.first().unwrap().as_str(),
        theirs.last().unwrap().as_str(),
    );
    assert_eq!(first_and_last, ("NE_CREATE_VM", "NE_START_ENCLAVE"));
}

/// The same kernel, command line and ramdisks, put together by AWS's library.
fn written_by_awss_library(ours: &Path) -> PathBuf {
    let eif = Eif::open(ours).unwrap();
    let part = |kind, nth| {
        let mut sections = eif.sections().iter().filter(|section| section.kind == kind);
        let range = sections.nth(nth).unwrap().range();
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        eif.file().read_exact_at(&mut bytes, range.start).unwrap();
        bytes
    };
    let put = |name: &str, bytes| {
        let path = ours.with_file_name(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let kernel = put("kernel", part(SectionKind::Kernel, 0));
    let ramdisks = [0, 1].map(|nth| put(&format!("ramdisk{nth}"), part(SectionKind::Ramdisk, nth)));
    let cmdline = String::from_utf8(part(SectionKind::Cmdline, 0)).unwrap();
    let mut builder = EifBuilder::new(&kernel, cmdline, None, Sha384::new(), 0, identity());
    for ramdisk in &ramdisks {
        builder.add_ramdisk(ramdisk);
    }
    let theirs = ours.with_file_name("theirs.eif");
    builder.write_to(&mut File::create(&theirs).unwrap());
    theirs
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

/// The driver's ioctls in a trace, in order; the same one several times in a row counts once.
fn steps(scene: &Box, trace: &str) -> Vec<String> {
    let text = scene.parent.ok(&format!("grep -o 'NE_[A-Z_]*, ' {trace}"));
    let mut steps: Vec<String> = text
        .lines()
        .map(|line| line.trim_end_matches(", ").to_owned())
        .collect();
    steps.dedup();
    steps
}
