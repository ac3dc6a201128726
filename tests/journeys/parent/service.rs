//! The packaged unit under systemd: whatever ends the daemon, its enclaves come back, and nothing is
//! left behind.

use super::Box;
use tests::parent::Free;
use tests::wait_for;

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn the_service_brings_every_enclave_back() {
    let mut scene = Box::new(&[]);
    let before = scene.parent.free();
    scene.deployed("lasting");
    let with_one = scene.parent.free();
    runs_as_its_own_user(&scene);
    quick_watchdog(&scene);
    for end in [
        "systemctl restart host-proxy",
        "systemctl kill --signal=KILL --kill-whom=main host-proxy",
        // What a package's script does after new files are in place.
        "systemctl daemon-reload && systemctl try-restart host-proxy",
    ] {
        scene.parent.ok(end);
        is_back(&scene, &with_one);
    }
    is_ended_when_it_hangs(&scene);
    is_back(&scene, &with_one);
    scene
        .parent
        .ok("(sleep 1; systemctl reboot) >/dev/null 2>&1 &");
    std::thread::sleep(std::time::Duration::from_secs(5));
    scene.parent.machine.wait().unwrap();
    scene.parent.ok("systemctl is-system-running --wait");
    scene.parent.bring(scene.scene.registry.port);
    is_back(&scene, &with_one);
    scene.terminate("lasting");
    scene.parent.has_back(&before);
    scene.parent.ok("systemctl stop host-proxy");
    assert_eq!(scene.parent.machine.hypervisor().slots(), 0);
}

fn runs_as_its_own_user(scene: &Box) {
    let parent = &scene.parent;
    let pid = parent.ok("systemctl show host-proxy -p MainPID --value");
    let pid = pid.trim();
    let status = parent.ok(&format!(
        "ps -o user= -o group= -p {pid}; grep CapEff /proc/{pid}/status"
    ));
    assert!(status.contains("redoubt"), "{status}");
    assert!(
        status.contains("0000000000000000"),
        "it has capabilities: {status}"
    );
}

fn quick_watchdog(scene: &Box) {
    let directory = "/etc/systemd/system/host-proxy.service.d";
    scene.parent.ok(&format!("mkdir -p {directory}"));
    scene.parent.put(
        &format!("{directory}/quick.conf"),
        "[Service]\nWatchdogSec=6\nTimeoutAbortSec=2\n",
    );
    scene.parent.ok("systemctl daemon-reload");
}

/// A daemon that does nothing any more is ended by systemd's watchdog, and started again.
fn is_ended_when_it_hangs(scene: &Box) {
    let pid = "systemctl show host-proxy -p MainPID --value";
    let stopped = scene.parent.ok(pid);
    scene.parent.ok(&format!("kill -STOP {}", stopped.trim()));
    wait_for("another process of the service", 40, || {
        let now = scene.parent.ok(pid);
        now.trim() != "0" && now != stopped
    });
    let journal = scene.parent.ok("journalctl -u host-proxy --no-pager");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}

pub(super) fn is_back(scene: &Box, with_one: &Free) {
    scene.parent.becomes("lasting", "DEPLOYED");
    scene.serves("lasting");
    scene.parent.has_back(with_one);
}
