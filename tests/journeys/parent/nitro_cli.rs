//! AWS's own launcher on the same machine: it starts an image that we built, and gives the driver
//! the same commands as we do. And the other way round: we start an image that AWS's library wrote.

use super::Box;
use eif_builder::eif::SectionKind;
use std::path::{Path, PathBuf};
use tests::programs::named;
use tests::{aws_library, eif};

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
    let put = |name: &str, kind, nth| {
        let path = ours.with_file_name(name);
        std::fs::write(&path, aws_library::section(ours, kind, nth)).unwrap();
        path
    };
    let kernel = put("kernel", SectionKind::Kernel, 0);
    let ramdisks = [0, 1].map(|nth| put(&format!("ramdisk{nth}"), SectionKind::Ramdisk, nth));
    let cmdline = aws_library::section(ours, SectionKind::Cmdline, 0);
    let theirs = ours.with_file_name("theirs.eif");
    aws_library::write_eif(
        &kernel,
        String::from_utf8(cmdline).unwrap(),
        &ramdisks.each_ref().map(PathBuf::as_path),
        &theirs,
    );
    theirs
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
