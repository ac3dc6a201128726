//! What a person meets first when something is wrong: a code, a message that says what, and a next step.

use crate::deploy::{create, start};
use crate::{SPEC, listing_image};
use std::path::Path;
use std::process::Command;
use tests::daemon::Daemon;
use tests::programs::lib;
use tests::registry::{Registry, USER};
use tests::wait_for;

struct Scene {
    folder: tempfile::TempDir,
    registry: Registry,
    reference: String,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    listing_image().write(&folder.path().join("layout"));
    let reference = registry.push(&folder.path().join("layout"), "org/app:v1");
    Scene {
        folder,
        registry,
        reference,
    }
}

/// Creates an enclave that must fail, checks how, and that nothing of it runs on.
fn fails(
    daemon: &Daemon,
    reference: &str,
    spec: &str,
    code: &str,
    stage: &str,
    message: &str,
    hint: &str,
) {
    let answer = create(daemon, "app", reference, spec);
    let record = daemon.show("app");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(record["status"], "FAILED");
    let failure = &record["failure"];
    assert_eq!(
        (failure["code"].as_str(), failure["stage"].as_str()),
        (Some(code), Some(stage)),
        "{failure}"
    );
    for (what, text, wanted) in [
        ("message", &failure["message"], message),
        ("hint", &failure["next_step"], hint),
    ] {
        assert!(
            text.as_str().unwrap().contains(wanted),
            "{what} should hold '{wanted}': {failure}"
        );
    }
    assert!(
        answer.stderr.contains(message) && answer.stderr.contains(hint),
        "{}",
        answer.stderr
    );
    assert_eq!(daemon.helpers(), Vec::<String>::new());
    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
}

#[test]
fn registry_errors_say_whose_fault_it_is() {
    let Scene {
        registry,
        reference,
        folder,
    } = scene();
    let mut arm = listing_image();
    arm.architecture = "arm64";
    arm.write(&folder.path().join("arm"));
    let arm = registry.push(&folder.path().join("arm"), "org/arm:v1");
    let daemon = start(&registry, &[]);

    let wrong = [
        "create",
        "--name",
        "app",
        "--image",
        &reference,
        "--registry-username",
        USER,
        "--registry-password-stdin",
    ];
    let answer = daemon.ctl(&wrong, "not-the-password");
    assert_eq!(answer.code, 1, "{answer:?}");
    let failure = daemon.show("app")["failure"].clone();
    assert_eq!(
        (failure["code"].as_str(), failure["retryable"].as_bool()),
        (Some("REGISTRY_UNAUTHORIZED"), Some(false)),
        "{failure}"
    );
    assert!(
        answer.stderr.contains("Check the user name and password"),
        "{}",
        answer.stderr
    );
    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);

    let missing = reference.replace(":v1", ":v2");
    fails(
        &daemon,
        &missing,
        SPEC,
        "IMAGE_NOT_FOUND",
        "resolve",
        "org/app:v2 does not exist",
        "case-sensitive",
    );
    let unknown = reference.replace("org/app", "org/other");
    fails(
        &daemon,
        &unknown,
        SPEC,
        "IMAGE_NOT_FOUND",
        "resolve",
        "org/other:v1 does not exist",
        "case-sensitive",
    );
    fails(
        &daemon,
        &arm,
        SPEC,
        "NO_SUCH_PLATFORM",
        "pull",
        "no linux/amd64; it offers linux/arm64",
        "--platform",
    );
    drop(registry);
    fails(
        &daemon,
        &reference,
        SPEC,
        "REGISTRY_UNREACHABLE",
        "resolve",
        "cannot reach 127.0.0.1",
        "Check that the registry is running",
    );
}

#[test]
fn a_machine_that_lacks_something_says_what() {
    let Scene {
        registry,
        reference,
        folder,
    } = scene();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();

    let no_qemu = start(&registry, &[("HOST_PROXY_QEMU__DIRECTORY", empty)]);
    fails(
        &no_qemu,
        &reference,
        SPEC,
        "LAUNCHER_MISSING",
        "launch",
        "qemu-system-x86_64 was not found",
        "scripts/sandbox",
    );
    let no_kernel = start(
        &registry,
        &[("REDOUBT_LIB", empty), ("XDG_CACHE_HOME", empty)],
    );
    fails(
        &no_kernel,
        &reference,
        SPEC,
        "KERNEL_MISSING",
        "build",
        "no bzImage found; looked at",
        "scripts/sandbox",
    );
    let daemon = start(&registry, &[]);
    let greedy = SPEC.replace("192", "1000000");
    fails(
        &daemon,
        &reference,
        &greedy,
        "OUT_OF_MEMORY",
        "allocate",
        "1000000 MiB are required",
        "memory_mib",
    );
}

#[test]
fn a_workload_that_cannot_run_says_why() {
    let Scene {
        registry,
        reference,
        ..
    } = scene();
    let daemon = start(&registry, &[]);
    let with = |run: &str| format!("{SPEC}[run]\n{run}\n");
    let missing = with("command = ['/usr/bin/nope']");
    fails(
        &daemon,
        &reference,
        &missing,
        "WORKLOAD_NOT_FOUND",
        "configure",
        "'/usr/bin/nope' is not in the image",
        "Entrypoint",
    );
    let not_a_program = with("command = ['/etc/hosts']");
    fails(
        &daemon,
        &reference,
        &not_a_program,
        "WORKLOAD_NOT_EXECUTABLE",
        "configure",
        "'/etc/hosts' cannot be started",
        "executable",
    );
    let no_user = with("user = 'nobody'");
    fails(
        &daemon,
        &reference,
        &no_user,
        "USER_NOT_FOUND",
        "configure",
        "'nobody' is not in the image's /etc/passwd",
        "[run] user",
    );
    let at_once = with("command = ['/tree-listing', '/etc']");
    fails(
        &daemon,
        &reference,
        &at_once,
        "WORKLOAD_EXITED",
        "configure",
        "exit code 0; its last line: END",
        "foreground",
    );
}

#[test]
fn an_enclave_that_never_sends_its_heartbeat_is_given_up() {
    let Scene {
        registry,
        reference,
        folder,
    } = scene();
    let lib_folder = folder.path().join("lib");
    std::fs::create_dir(&lib_folder).unwrap();
    std::fs::copy(lib().join("bzImage"), lib_folder.join("bzImage")).unwrap();
    // A program that is static and is no agent: the kernel starts it as PID 1 and panics when it ends.
    std::fs::copy(lib().join("tree-listing"), lib_folder.join("enclave-agent")).unwrap();
    let daemon = start(
        &registry,
        &[
            ("REDOUBT_LIB", lib_folder.to_str().unwrap()),
            ("HOST_PROXY_LAUNCH__HEARTBEAT_TIMEOUT_SECONDS", "8"),
        ],
    );
    fails(
        &daemon,
        &reference,
        SPEC,
        "HEARTBEAT_MISSING",
        "heartbeat",
        "no heartbeat within 8 seconds; its console ends with",
        "belong together",
    );
}

/// A file system of a few MB, which only root can have.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(path: &Path) -> Option<SmallDisk<'_>> {
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
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_half_done_stays_on_it() {
    let Scene {
        registry,
        reference,
        folder,
    } = scene();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let Some(disk) = SmallDisk::mount(&state) else {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: only root can mount a small disk\n",
        );
        return;
    };
    let daemon = start(
        &registry,
        &[("HOST_PROXY_STATE_DIR", state.to_str().unwrap())],
    );
    let answer = create(&daemon, "app", &reference, SPEC);
    let failure = daemon.show("app")["failure"].clone();
    assert_eq!(
        (answer.code, failure["code"].as_str()),
        (1, Some("OUT_OF_DISK")),
        "{failure}"
    );
    assert!(
        answer.stderr.contains("Free disk space"),
        "{}",
        answer.stderr
    );
    assert_eq!(
        std::fs::read_dir(state.join("enclaves")).unwrap().count(),
        0
    );
    drop(daemon);
    drop(disk);
}

#[test]
fn orders_that_make_no_sense_are_refused_before_anything_is_stored() {
    let Scene {
        registry,
        reference,
        ..
    } = scene();
    let daemon = start(&registry, &[]);
    let refused = |arguments: &[&str], code: i32, text: &str| {
        let answer = daemon.ctl(&[&["create"], arguments].concat(), "pw");
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(
            answer.stderr.contains(text),
            "'{text}' is not in {}",
            answer.stderr
        );
    };
    let credentials = ["--registry-username", USER, "--registry-password-stdin"];
    refused(
        &["--name", "a b", "--image", &reference],
        64,
        "a name is 1 to 63",
    );
    refused(
        &["--name", "app", "--image", "UPPER/x"],
        64,
        "is not an image reference",
    );
    refused(
        &[
            &[
                "--name",
                "app",
                "--image",
                &reference,
                "--registry-url",
                "ghcr.io",
            ],
            &credentials[..],
        ]
        .concat(),
        64,
        "the credentials are for ghcr.io",
    );
    refused(
        &[
            "--name",
            "app",
            "--image",
            &reference,
            "--provider",
            "aws-nitro",
        ],
        64,
        "cannot launch on /dev/nitro_enclaves yet",
    );
    refused(&["--image", &reference], 64, "--name is missing");
    refused(
        &[
            "--name",
            "app",
            "--image",
            &reference,
            "--source-type",
            "private-registry",
        ],
        64,
        "--registry-username is missing",
    );
    assert!(daemon.ctl(&["list"], "").stdout.contains("no enclaves"));
    assert_eq!(daemon.ctl(&["show", "app"], "").code, 77);
    assert_eq!(daemon.ctl(&["show", "../../healthz"], "").code, 64);

    // A password on the command line works, with a warning.
    let answer = daemon.ctl(
        &[
            "create",
            "--name",
            "app",
            "--image",
            &reference,
            "--registry-username",
            USER,
            "--registry-password",
            "x",
            "--no-wait",
        ],
        "",
    );
    assert!(
        answer
            .stderr
            .contains("warning: a password on the command line"),
        "{}",
        answer.stderr
    );
    let taken = daemon.ctl(&["create", "--name", "app", "--image", &reference], "");
    assert!(
        taken.code == 77 && taken.stderr.contains("exists already"),
        "{taken:?}"
    );
}

/// Answers prompts on a terminal of its own (script(1) makes one), and gives everything that the terminal showed.
fn converse(command: &str, answers: &[(&str, &str)]) -> String {
    use std::io::{Read as _, Write as _};
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", command, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    for (prompt, answer) in answers {
        while !String::from_utf8_lossy(&shown).contains(prompt) {
            let mut byte = [0];
            assert_eq!(
                stdout.read(&mut byte).unwrap(),
                1,
                "no '{prompt}' in {}",
                String::from_utf8_lossy(&shown)
            );
            shown.push(byte[0]);
        }
        // The program prompts first and turns the echo off then; nobody types as fast as this test.
        if prompt.starts_with("Password") {
            let tty = String::from_utf8_lossy(&shown)
                .lines()
                .next()
                .unwrap()
                .trim()
                .to_owned();
            wait_for("the echo to be off", 10, || {
                let settings =
                    tests::programs::run(Command::new("stty").args(["--file", &tty, "--all"]));
                settings
                    .split_ascii_whitespace()
                    .any(|word| word == "-echo")
            });
        }
        writeln!(stdin, "{answer}").unwrap();
    }
    stdout.read_to_end(&mut shown).unwrap();
    child.wait().unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn create_asks_for_what_is_missing_and_does_not_show_the_password() {
    let Scene {
        registry,
        reference,
        ..
    } = scene();
    let daemon = start(&registry, &[]);
    let program = tests::programs::ours("enclavectl");
    let command = format!(
        "tty; exec {} --socket {}/run/api.sock create --no-wait",
        program.display(),
        daemon.folder().display()
    );
    let shown = converse(
        &command,
        &[
            ("Name of the enclave", "asked"),
            ("Image (registry-host", &reference),
            ("User name at the registry", USER),
            ("Password or access token", tests::registry::PASSWORD),
        ],
    );
    assert!(shown.contains("asked PENDING_DEPLOY"), "{shown}");
    assert!(!shown.contains(tests::registry::PASSWORD), "{shown}");
    let record = daemon.show("asked");
    assert_eq!(
        (record["image"].as_str(), record["source_type"].as_str()),
        (Some(reference.as_str()), Some("private-registry"))
    );
}
