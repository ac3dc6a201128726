//! What goes wrong between the daemon and the driver.

use super::Box;
use parent::faults::Fault;
use parent::protocol::{Answer, Errno};
use serde_json::Value;
use std::time::Duration;
use tests::parent::Parent;

/// The driver's `enum ne_pci_dev_cmd_type`.
const ENCLAVE_START: u32 = 1;
const SLOT_ALLOC: u32 = 4;
const SLOT_ADD_MEM: u32 = 6;
const SLOT_ADD_VCPU: u32 = 7;

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn what_the_driver_refuses_is_told_and_leaves_nothing() {
    let scene = Box::new(&[]);
    let before = scene.parent.free();
    the_device_fails(&scene);
    scene.parent.has_back(&before);
    the_device_is_late_or_wrong(&scene);
    scene.parent.has_back(&before);
    too_little(&scene);
    scene.parent.has_back(&before);
    permissions(&scene);
    the_pool_is_taken_away(&scene);
    scene.deployed("after-all");
    scene.terminate("after-all");
    scene.parent.has_back(&before);
}

fn has(failure: &Value, text: &str) {
    let told = format!("{} {}", failure["message"], failure["next_step"]);
    assert!(told.contains(text), "'{text}' is not in: {failure}");
}

/// An errno of the device comes back from the ioctl that caused it.
fn the_device_fails(scene: &Box) {
    let faults = scene.parent.machine.faults();
    let steps = [
        (SLOT_ALLOC, 28, "NE_CREATE_VM"),
        (SLOT_ADD_MEM, 12, "NE_SET_USER_MEMORY_REGION"),
        (SLOT_ADD_VCPU, 16, "NE_ADD_VCPU"),
        (ENCLAVE_START, 22, "NE_START_ENCLAVE"),
        (ENCLAVE_START, 5, "NE_START_ENCLAVE"),
    ];
    for (command, errno, ioctl) in steps {
        faults.push(command, Fault::Refused(Errno(errno)));
        let failure = scene.failure("refused");
        has(&failure, ioctl);
    }
}

fn the_device_is_late_or_wrong(scene: &Box) {
    let faults = scene.parent.machine.faults();
    faults.push(ENCLAVE_START, Fault::Late(Duration::from_secs(5)));
    scene.deployed("late");
    scene.terminate("late");
    // No region may be added.
    faults.push(
        SLOT_ALLOC,
        Fault::Wrong(Answer {
            slot: 99,
            ..Answer::default()
        }),
    );
    has(&scene.failure("wrong"), "NE_");
}

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn a_device_that_never_answers_is_given_up() {
    let scene = Box::with(Parent::boot_beside(), &[]);
    let before = scene.parent.free();
    // The driver itself gives up after 120 seconds.
    scene
        .parent
        .machine
        .faults()
        .push(ENCLAVE_START, Fault::Silent);
    has(&scene.failure("unanswered"), "120");
    scene.parent.has_back(&before);
    scene.deployed("after-all");
}

fn too_little(scene: &Box) {
    let parent = &scene.parent;
    let spec = "[resources]\nmemory_mib = 4096\n";
    assert_eq!(parent.create("large", &scene.scene.reference, spec).code, 1);
    let failure = parent.show("large")["failure"].clone();
    has(&failure, "512 x 2 MiB");
    scene.terminate("large");
    let spec = "[resources]\nmemory_mib = 128\ncpus = 64\n";
    assert_eq!(parent.create("wide", &scene.scene.reference, spec).code, 1);
    has(&parent.show("wide")["failure"], "CPU");
    scene.terminate("wide");
}

/// The device is the group's, and nobody else's.
fn permissions(scene: &Box) {
    let parent = &scene.parent;
    let mode = parent.ok("stat -c '%U:%G %a' /dev/nitro_enclaves");
    assert_eq!(mode, "root:ne 660\n");
    let doctor = |identity: &str, arguments: &str| {
        let shell = parent.run(&format!(
            "export REDOUBT_TEST_ROOT=/opt/redoubt/root.pem AWS_EC2_METADATA_DISABLED=true HOST_PROXY_LAUNCHER=aws-nitro; \
             setpriv {identity} host-proxy doctor {arguments}"
        ));
        format!("{}{}", shell.stdout, shell.stderr)
    };
    let told = doctor("--reuid=nobody --regid=nogroup --clear-groups", "");
    assert!(told.contains("group ne"), "{told}");
    let told = doctor("--reuid=daemon --regid=ne --clear-groups", "");
    assert!(told.contains("✓ launcher"), "{told}");
    assert!(!told.contains("✗"), "{told}");
    // The plan is what lets a stranger in.
    let stranger = "--reuid=stranger --regid=nogroup --init-groups";
    parent.ok("useradd --system stranger");
    let plan = doctor(stranger, "--fix-plan");
    parent
        .machine
        .put("/root/plan.sh", plan.as_bytes())
        .unwrap();
    parent.ok("bash -e /root/plan.sh");
    let told = doctor(stranger, "");
    assert!(told.contains("✓ driver"), "{told}");
}

fn the_pool_is_taken_away(scene: &Box) {
    let parent = &scene.parent;
    let pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    parent.ok(&format!("echo 0 >{pages}"));
    let failure = scene.failure("homeless");
    has(&failure, "nitro-enclaves-allocator");
    // What the page cache holds lies in the way of whole pages.
    parent.ok(&format!(
        "sync; cd /proc/sys/vm; echo 3 >drop_caches; echo 1 >compact_memory; echo 512 >{pages}"
    ));
}
