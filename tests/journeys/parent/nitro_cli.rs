//! AWS's own launcher on the same machine: it starts an image that we built, and gives the driver
//! the same commands as we do.

use super::Box;
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
    parent.put("/root/app.eif", std::fs::read(path).unwrap());
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
