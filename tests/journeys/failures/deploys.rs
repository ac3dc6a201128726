//! Deploys that fail.

use super::scene;
use std::path::Path;
use std::process::Command;
use tests::daemon::Daemon;
use tests::files::count;
use tests::programs::lib;
use tests::registry::USER;
use tests::workloads::{SPEC, listing_image};

/// How a deploy must fail. Messages and next steps hold these texts.
struct Failure<'a> {
    code: &'a str,
    stage: &'a str,
    message: &'a str,
    next_step: &'a str,
}

/// Creates an enclave that must fail, checks how, and that nothing of it runs on.
#[track_caller]
fn assert_fails(daemon: &Daemon, reference: &str, spec: &str, expected: &Failure<'_>) {
    let answer = daemon.create("app", reference, spec);
    let record = daemon.show("app");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(record["status"], "FAILED");
    let failure = &record["failure"];
    let found = (failure["code"].as_str(), failure["stage"].as_str());
    assert_eq!(
        found,
        (Some(expected.code), Some(expected.stage)),
        "{failure}"
    );
    for (what, wanted) in [
        ("message", expected.message),
        ("next_step", expected.next_step),
    ] {
        let text = failure[what].as_str().unwrap();
        assert!(
            text.contains(wanted),
            "{what} should hold '{wanted}': {failure}"
        );
        assert!(
            answer.stderr.contains(wanted),
            "'{wanted}' is not in {}",
            answer.stderr
        );
    }
    assert_eq!(daemon.helpers(), Vec::<String>::new());
    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_wrong_password_is_no_matter_for_another_attempt() {
    let scene = scene();
    let daemon = scene.start(&[]);
    let image = ["create", "--name", "app", "--image", &scene.reference];
    let credentials = ["--registry-username", USER, "--registry-password-stdin"];
    let answer = daemon.ctl(&[&image[..], &credentials].concat(), "not-the-password");
    assert_eq!(answer.code, 1, "{answer:?}");
    let failure = daemon.show("app")["failure"].clone();
    assert_eq!(
        (failure["code"].as_str(), failure["retryable"].as_bool()),
        (Some("REGISTRY_UNAUTHORIZED"), Some(false)),
        "{failure}"
    );
    let next_step = "Check the user name and password";
    assert!(answer.stderr.contains(next_step), "{}", answer.stderr);
    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn registry_errors_say_whose_fault_it_is() {
    let scene = scene();
    let mut arm = listing_image();
    arm.architecture = "arm64";
    let arm = scene.push(&arm, "org/arm:v1");
    let daemon = scene.start(&[]);
    let missing = |message| Failure {
        code: "IMAGE_NOT_FOUND",
        stage: "resolve",
        message,
        next_step: "case-sensitive",
    };
    let tag = scene.reference.replace(":v1", ":v2");
    assert_fails(&daemon, &tag, SPEC, &missing("org/app:v2 does not exist"));
    let repository = scene.reference.replace("org/app", "org/other");
    let other = missing("org/other:v1 does not exist");
    assert_fails(&daemon, &repository, SPEC, &other);
    let platform = Failure {
        code: "NO_SUCH_PLATFORM",
        stage: "pull",
        message: "no linux/amd64; it offers linux/arm64",
        next_step: "--platform",
    };
    assert_fails(&daemon, &arm, SPEC, &platform);
    let reference = scene.reference.clone();
    drop(scene);
    let unreachable = Failure {
        code: "REGISTRY_UNREACHABLE",
        stage: "resolve",
        message: "cannot reach 127.0.0.1",
        next_step: "Check that the registry is running",
    };
    assert_fails(&daemon, &reference, SPEC, &unreachable);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_machine_without_qemu_says_so() {
    let scene = scene();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let daemon = scene.start(&[("HOST_PROXY_QEMU__DIRECTORY", empty)]);
    let expected = Failure {
        code: "LAUNCHER_MISSING",
        stage: "launch",
        message: "qemu-system-x86_64 was not found",
        next_step: "scripts/sandbox",
    };
    assert_fails(&daemon, &scene.reference, SPEC, &expected);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_machine_without_a_kernel_says_so() {
    let scene = scene();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let daemon = scene.start(&[("REDOUBT_LIB", empty), ("XDG_CACHE_HOME", empty)]);
    let expected = Failure {
        code: "KERNEL_MISSING",
        stage: "build",
        message: "no bzImage found; looked at",
        next_step: "scripts/sandbox",
    };
    assert_fails(&daemon, &scene.reference, SPEC, &expected);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_machine_without_enough_memory_says_so() {
    let scene = scene();
    let daemon = scene.start(&[]);
    let greedy = SPEC.replace("192", "1000000");
    let expected = Failure {
        code: "OUT_OF_MEMORY",
        stage: "allocate",
        message: "1000000 MiB are required",
        next_step: "memory_mib",
    };
    assert_fails(&daemon, &scene.reference, &greedy, &expected);
}

/// A test for each `[run]` that cannot be carried out; all fail in the stage `configure`.
macro_rules! workloads_that_cannot_run {
    ($($name:ident: $run:literal $code:literal $message:literal $next_step:literal,)*) => {$(
        #[test]
        #[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
        fn $name() {
            let scene = scene();
            let spec = format!("{SPEC}[run]\n{}\n", $run);
            let expected = Failure {
                code: $code,
                stage: "configure",
                message: $message,
                next_step: $next_step,
            };
            assert_fails(&scene.start(&[]), &scene.reference, &spec, &expected);
        }
    )*};
}

workloads_that_cannot_run! {
    a_program_that_is_not_in_the_image_is_named:
        "command = ['/usr/bin/nope']"
        "WORKLOAD_NOT_FOUND" "'/usr/bin/nope' is not in the image" "Entrypoint",
    a_file_that_is_no_program_is_named:
        "command = ['/etc/hosts']"
        "WORKLOAD_NOT_EXECUTABLE" "'/etc/hosts' cannot be started" "executable",
    a_user_that_is_not_in_the_image_is_named:
        "user = 'nobody'"
        "USER_NOT_FOUND" "'nobody' is not in the image's /etc/passwd" "[run] user",
    a_workload_that_ends_at_once_was_never_deployed:
        "command = ['/tree-listing', '/etc']"
        "WORKLOAD_EXITED" "exit code 0; its last line: END" "foreground",
}

/// Deploys with another static program in the agent's place.
fn assert_fails_with_agent(agent: &Path, expected: &Failure<'_>) {
    let scene = scene();
    let directory = scene.path("lib");
    std::fs::create_dir(&directory).unwrap();
    std::fs::copy(lib().join("bzImage"), directory.join("bzImage")).unwrap();
    std::fs::copy(agent, directory.join("enclave-agent")).unwrap();
    let daemon = scene.start(&[
        ("REDOUBT_LIB", directory.to_str().unwrap()),
        ("HOST_PROXY_LAUNCH__HEARTBEAT_TIMEOUT_SECONDS", "8"),
    ]);
    assert_fails(&daemon, &scene.reference, SPEC, expected);
}

/// busybox, started as /init, waits for ever for a terminal.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_enclave_that_never_sends_its_heartbeat_is_given_up() {
    let expected = Failure {
        code: "HEARTBEAT_MISSING",
        stage: "heartbeat",
        message: "no heartbeat within 8 seconds; its console ends with",
        next_step: "belong together",
    };
    assert_fails_with_agent(Path::new("/bin/busybox"), &expected);
}

/// The kernel panics when PID 1 ends.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_enclave_whose_kernel_panics_ends_at_once() {
    let expected = Failure {
        code: "BOOT_FAILED",
        stage: "heartbeat",
        message: "Kernel panic",
        next_step: "Redoubt's own",
    };
    assert_fails_with_agent(&lib().join("tree-listing"), &expected);
}

/// A file system of a few MB, which only root can have.
pub(crate) struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    pub(crate) fn mount(path: &Path) -> Option<SmallDisk<'_>> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(path)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // What was mounted by this test can be unmounted by it; a failure would only leave a tmpfs.
        Command::new("umount")
            .arg("--lazy")
            .arg(self.0)
            .status()
            .ok();
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_full_disk_is_named_and_nothing_half_done_stays_on_it() {
    let scene = scene();
    let state = scene.path("state");
    std::fs::create_dir(&state).unwrap();
    let Some(disk) = SmallDisk::mount(&state) else {
        eprintln!("SKIPPED: only root can mount a small disk");
        return;
    };
    let daemon = scene.start(&[("HOST_PROXY_STATE_DIR", state.to_str().unwrap())]);
    let answer = daemon.create("app", &scene.reference, SPEC);
    let failure = daemon.show("app")["failure"].clone();
    let found = (answer.code, failure["code"].as_str());
    assert_eq!(found, (1, Some("OUT_OF_DISK")), "{failure}");
    assert!(
        answer.stderr.contains("Free disk space"),
        "{}",
        answer.stderr
    );
    assert_eq!(count(&state.join("enclaves")), 0);
    drop(daemon);
    drop(disk);
}
