//! The kernel that is measured, as a workload finds it.

use serde_json::json;
use tests::image::{Compression, Image};
use tests::scene::Scene;
use tests::wait_for;
use tests::workloads::busybox;

const SPEC: &str = "[logs]\nforward = true\n";
const SHOW: &str = "cd /sys/devices/system/cpu/vulnerabilities; busybox grep . *; \
     busybox ls /proc/sys/kernel/io_uring_disabled /dev/net/tun /proc/kallsyms; echo END; \
     exec busybox sleep 1000";

/// What an emulated CPU can show: the rest of the list depends on the CPU's microcode.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_kernel_has_its_mitigations_on_and_needless_doors_shut() {
    let image = Image::new(json!({ "Entrypoint": ["/bin/sh", "-c", SHOW] }))
        .layer(busybox(), Compression::Gzip);
    let scene = Scene::new(&image, "org/app:v1");
    let daemon = scene.start(&[]);
    assert_eq!(daemon.create("app", &scene.reference, SPEC).code, 0);
    wait_for("the end of the list", 20, || {
        daemon.logs("app").contains("END")
    });
    let said = daemon.logs("app");
    for name in ["spectre_v1", "spectre_v2"] {
        assert!(said.contains(&format!("{name}:Mitigation: ")), "{said}");
    }
    for name in ["io_uring_disabled", "tun", "kallsyms"] {
        assert!(said.contains(&format!("{name}: No such file")), "{said}");
    }
}
