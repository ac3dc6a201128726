//! A workload's life after its start: restarts, health, lines of output, and the way it is stopped.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tests::daemon::Daemon;
use tests::image::{Compression, Image, Layer};
use tests::scene::Scene;
use tests::workloads::{SPEC, busybox};
use tests::{tcp, wait_for};

/// A shell runs this script.
fn image(script: &str) -> Image {
    let config = json!({ "Entrypoint": ["/bin/sh", "-c", script] });
    Image::new(config).layer(busybox(), Compression::Gzip)
}

/// Runs what is sent to port 8080; descriptor 3 is the workload's output.
const REMOTE: &str = "exec 3>&1; exec busybox nc -ll -p 8080 -e /bin/sh";
const PORT: &str = "[network]\ningress = [{ port = 8080 }]\n";

/// Has [`REMOTE`] run a line, and gives what that wrote.
fn remote(daemon: &Daemon, line: &str) -> String {
    let record = daemon.show("app");
    let address = record["ingress"][0]["address"].as_str().unwrap().to_owned();
    tcp::exchange(&address, &format!("{line}; exit\n"))
}

#[track_caller]
fn create(daemon: &Daemon, reference: &str, more: &str) -> String {
    let created = daemon.create("app", reference, &format!("{SPEC}{more}"));
    assert_eq!(created.code, 0, "{created:?}");
    daemon.show("app")["id"].as_str().unwrap().to_owned()
}

fn health(record: &Value) -> &str {
    record["workload"]["health"]["state"].as_str().unwrap_or("")
}

/// Each run says which it is, what it may, and what is left of the run before.
const FAILS_TWICE: &str = r#"
n=$(busybox cat /n || echo 0); echo $((n + 1)) > /n
echo "run $n, left: $(busybox ps | busybox grep -c 'sleep 99[9]$')"
busybox grep -E 'Cap|NoNewPrivs|Seccomp:|[UG]id' /proc/self/status | busybox sed "s/^/is /"
echo -1000 2>&- > /proc/self/oom_score_adj && echo "spares itself"
busybox setsid busybox sleep 999 &
until busybox ps | busybox grep -q 'sleep 99[9]$'; do :; done
[ $n -lt 2 ] && exit 3
busybox sleep 15
"#;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_program_that_fails_is_started_once_more_behind_the_same_boundary() {
    let scene = Scene::new(&image(FAILS_TWICE), "org/app:v1");
    let daemon = scene.start(&[]);
    create(&daemon, &scene.reference, "[run]\nrestart = 'on-failure'\n");
    wait_for("two restarts in the list", 60, || {
        let list = daemon.ctl(&["list"], "").stdout;
        list.contains("DEPLOYED (2 restarts)")
    });
    assert_eq!(
        daemon.show("app")["workload"]["last_exit"],
        json!({ "code": 3 })
    );
    // A clean end is final, and the enclave's.
    wait_for("the end", 60, || daemon.show("app")["status"] == "FAILED");
    let record = daemon.show("app");
    let expected = json!({ "restarts": 2, "last_exit": { "code": 0 } });
    assert_eq!(record["workload"], expected);
    let message = record["failure"]["message"].as_str().unwrap();
    assert!(message.contains("exit code 0"), "{message}");
    let said = daemon.logs("app");
    let runs: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("run "))
        .collect();
    assert_eq!(
        runs,
        ["run 0, left: 0", "run 1, left: 0", "run 2, left: 0"],
        "{said}"
    );
    let is: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("is "))
        .collect();
    let different: BTreeSet<&str> = is.iter().copied().collect();
    assert_eq!(is.len(), 3 * different.len(), "{said}");
    assert!(different.contains("is NoNewPrivs:\t1"), "{said}");
    assert!(different.contains("is CapEff:\t00000000800005fb"), "{said}");
    assert!(!said.contains("spares itself"), "{said}");
    let restart =
        "enclave-agent: the program ended with exit code 3 and is started once more in 1 s";
    assert!(said.contains(restart), "{said}");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn an_unhealthy_program_is_ended_and_started_once_more() {
    // The first run listens nowhere.
    let script =
        "[ -e /www ] || { busybox mkdir /www; echo up > /www/up; exec busybox sleep 1000; }
        exec busybox httpd -f -p 127.0.0.1:8080 -h /www";
    let scene = Scene::new(&image(script), "org/app:v1");
    let daemon = scene.start(&[]);
    let health_rules = "[health]\nhttp = 'http://localhost:8080/up'\ninterval = 1\nretries = 3\n";
    let spec = format!("[run]\nrestart = 'on-failure'\n{health_rules}");
    create(&daemon, &scene.reference, &spec);
    let mut record = Value::Null;
    wait_for("a healthy second run", 60, || {
        record = daemon.show("app");
        health(&record) == "healthy"
    });
    let workload = &record["workload"];
    assert_eq!(workload["restarts"], 1, "{record}");
    assert_eq!(workload["last_exit"], json!({ "signal": 15 }), "{record}");
    assert_eq!(workload["health"]["detail"], "status 200");
    let said = daemon.logs("app");
    assert!(
        said.contains("the program is unhealthy and has to end: cannot connect"),
        "{said}"
    );
}

/// Is ill, or slow, if a file says so; only the workload's user can check it.
const CHECK: &str = "[ $(busybox id -un) = web ] || exit 9
test ! -e /srv/slow || busybox sleep 1000
echo looked; test ! -e /srv/ill || { echo too ill; exit 1; }";

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_images_healthcheck_is_taken_and_health_comes_back() {
    let mut image = image(REMOTE).layer(Layer::default().dir("srv", 0o777), Compression::Gzip);
    image.config["User"] = json!("web");
    image.config["Healthcheck"] = json!({
        "Test": ["CMD-SHELL", CHECK],
        "Interval": 1_000_000_000, "Timeout": 4_000_000_000_u64, "Retries": 2,
    });
    let scene = Scene::new(&image, "org/app:v1");
    let daemon = scene.start(&[]);
    create(&daemon, &scene.reference, PORT);
    for (line, state, detail) in [
        ("true", "healthy", "exit code 0: looked"),
        (
            "echo > /srv/ill",
            "unhealthy",
            "exit code 1: looked too ill",
        ),
        ("busybox rm /srv/ill", "healthy", "exit code 0: looked"),
        ("echo > /srv/slow", "unhealthy", "did not end within 4 s"),
        ("busybox rm /srv/slow", "healthy", "exit code 0: looked"),
    ] {
        remote(&daemon, line);
        wait_for(state, 60, || health(&daemon.show("app")) == state);
        let record = daemon.show("app");
        assert_eq!(record["workload"]["health"]["detail"], detail, "{record}");
        let list = daemon.ctl(&["list"], "").stdout;
        assert!(list.contains(&format!("DEPLOYED ({state})")), "{list}");
    }
    // Without a restart policy it is only said.
    let record = daemon.show("app");
    assert_eq!(record["workload"].as_object().unwrap().len(), 1, "{record}");
    assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);

    let secretive = format!("{SPEC}{PORT}").replace("forward = true", "forward = false");
    assert_eq!(daemon.create("app", &scene.reference, &secretive).code, 0);
    remote(&daemon, "echo > /srv/ill");
    wait_for("illness", 60, || health(&daemon.show("app")) == "unhealthy");
    let record = daemon.show("app");
    assert_eq!(
        record["workload"]["health"]["detail"], "exit code 1",
        "{record}"
    );
    assert_eq!(daemon.logs("app"), "");
}

/// Opens the daemon's own stream of a log, and reads nothing of it.
fn follow(daemon: &Daemon, name: &str) -> impl Iterator<Item = Value> {
    let socket = daemon.folder().join("run/api.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let request = format!("GET /v1/enclaves/{name}/logs?follow HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(&line).unwrap())
}

const FLOOD: u64 = 200_000;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn lines_of_a_flood_are_whole_and_in_order_and_missing_ones_counted() {
    let scene = Scene::new(&image(&format!("echo ready; {REMOTE}")), "org/app:v1");
    let daemon = scene.start(&[]);
    create(&daemon, &scene.reference, PORT);
    let mut entries = follow(&daemon, "app");
    let first = entries.next().unwrap();
    assert_eq!(
        (&first["text"], &first["stream"]),
        (&json!("ready"), &json!("stdout"))
    );
    remote(
        &daemon,
        &format!("busybox seq 1 {FLOOD} >&3; echo over >&2"),
    );
    wait_for("the flood's end", 120, || {
        daemon.logs("app").contains("over")
    });
    let (mut at, mut seen, mut dropped, mut over) = (0, 0, 0, false);
    let mut time = first["time"].as_str().unwrap().to_owned();
    // The two streams have pipes of their own: "over" may come before the last numbers.
    while at < FLOOD || !over {
        let entry = entries.next().unwrap();
        if entry["kind"] == "dropped" {
            let lines = entry["lines"].as_u64().unwrap();
            (at, dropped) = (at + lines, dropped + lines);
            continue;
        }
        if entry["stream"] == "stderr" {
            assert_eq!(entry["text"], "over");
            over = true;
            continue;
        }
        at += 1;
        seen += 1;
        assert_eq!(
            (&entry["text"], &entry["partial"]),
            (&json!(at.to_string()), &Value::Null)
        );
        let next = entry["time"].as_str().unwrap().to_owned();
        assert!(time <= next, "{time} comes before {next}");
        time = next;
    }
    assert_eq!((at, seen + dropped), (FLOOD, FLOOD));
    assert!(
        seen > 0 && dropped > 0,
        "{seen} lines and {dropped} dropped ones"
    );
    let stamped = daemon.ctl(&["logs", "app", "--timestamps", "--stream", "stderr"], "");
    let (stamp, text) = stamped.stdout.split_once(' ').unwrap();
    assert!(
        stamp.len() == 24 && stamp.ends_with('Z') && text == "over\n",
        "{stamped:?}"
    );
}

/// Follows the log to its end while the enclave is terminated; what came, and how it ended.
fn terminated(daemon: &Daemon, id: &str) -> (String, Value) {
    let said = std::thread::scope(|scope| {
        let logs = scope.spawn(|| daemon.ctl(&["logs", "--follow", id], "").stdout);
        wait_for("the log", 30, || daemon.logs("app").contains("ready"));
        assert_eq!(daemon.ctl(&["terminate", "app"], "").code, 0);
        logs.join().unwrap()
    });
    (said, daemon.show(id)["workload"]["last_exit"].clone())
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_stopped_workload_says_its_last_and_its_end_is_known() {
    let leaves = "trap 'echo one; busybox sleep 2; busybox seq 1 5000; printf last; exit 7' TERM
        echo ready; while :; do busybox sleep 1; done";
    let scene = Scene::new(&image(leaves), "org/app:v1");
    let daemon = scene.start(&[]);
    // Stopping is no failure: nothing is started once more.
    let id = create(&daemon, &scene.reference, "[run]\nrestart = 'always'\n");
    let (said, exit) = terminated(&daemon, &id);
    let numbers: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    assert_eq!(said, format!("ready\none\n{numbers}last"));
    assert_eq!(exit, json!({ "code": 7 }));

    let deaf = scene.push(
        &image("trap 'echo no' TERM; echo ready; while :; do busybox sleep 1; done"),
        "org/deaf:v1",
    );
    let id = create(&daemon, &deaf, "");
    let (said, exit) = terminated(&daemon, &id);
    assert_eq!(said, "ready\nno\n");
    assert_eq!(exit, json!({ "signal": 9 }));
    assert_eq!(daemon.helpers(), Vec::<String>::new());
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn nothing_is_started_once_the_host_wants_the_end() {
    let scene = Scene::new(&image("echo ready"), "org/app:v1");
    let daemon = scene.start(&[]);
    let id = create(&daemon, &scene.reference, "[run]\nrestart = 'always'\n");
    // The next start is four seconds away then.
    wait_for("three restarts", 60, || {
        daemon.show("app")["workload"]["restarts"] == 3
    });
    let (said, exit) = terminated(&daemon, &id);
    assert_eq!(exit, json!({ "code": 0 }));
    let runs = said.lines().filter(|line| *line == "ready").count();
    assert_eq!(daemon.show(&id)["workload"]["restarts"], runs, "{said}");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_privileged_program_is_privileged_each_time() {
    let script = "busybox grep CapEff /proc/self/status
        [ -e /n ] && exec busybox sleep 1000; echo > /n; exit 1";
    let scene = Scene::new(&image(script), "org/app:v1");
    let daemon = scene.start(&[]);
    let spec = "[run]\nrestart = 'on-failure'\n[security]\nprivileged = true\n";
    create(&daemon, &scene.reference, spec);
    let mut said = String::new();
    wait_for("the second run", 60, || {
        said = daemon.logs("app");
        said.matches("CapEff").count() == 2
    });
    let sets: BTreeSet<&str> = said
        .lines()
        .filter(|line| line.starts_with("Cap"))
        .collect();
    assert_eq!(sets.len(), 1, "{said}");
    assert!(sets.iter().all(|set| set.ends_with("ffffffff")), "{said}");
}
