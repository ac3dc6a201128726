//! What runs is what was attested: restarts launch the EIF that was kept, whatever its tag means by
//! now, and only an order brings other code. On the fake launcher but for the crash.

use crate::deploy::{WEB_SPEC, web_image};
use crate::launch::{Host, write_image};
use api::{EnclaveEvent, EnclaveId, Record, State};
use explain::Code;
use std::path::PathBuf;
use std::time::Duration;
use tests::daemon::Daemon;
use tests::image::{Compression, Layer};
use tests::launcher::Conduct;
use tests::scene::Scene;
use tests::tcp::get;
use tests::wait_for;
use tokio::time::{sleep, timeout};

impl Host {
    /// Somebody pushes another image to the tag.
    fn move_tag(&self) {
        write_image(self.directory.path(), "#!/bin/false\n");
    }

    /// The names in the store of EIFs.
    fn eifs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("state/eifs")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Waits until the store holds these alone: it is collected after a state was written.
    async fn holds(&self, records: &[&Record]) {
        let needed = records.iter().flat_map(|record| record.needed_eifs());
        let mut names: Vec<String> = needed.map(|pcr0| format!("{pcr0}.eif")).collect();
        names.sort();
        names.dedup();
        let collecting = async {
            while self.eifs() != names {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let collected = timeout(Duration::from_secs(20), collecting).await;
        collected.unwrap_or_else(|_| panic!("{:?} instead of {names:?}", self.eifs()));
    }

    /// All lines of the audit log.
    fn audit(&self) -> String {
        let files = std::fs::read_dir(self.directory.path().join("state/audit")).unwrap();
        files
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect()
    }

    fn eif(&self, record: &Record) -> PathBuf {
        let pcr0 = record.measurements.unwrap().pcr0;
        let name = format!("state/eifs/{pcr0}.eif");
        self.directory.path().join(name)
    }

    async fn deployed(&self, name: &str) -> (EnclaveId, Record) {
        let id = self.create(name, 128).await;
        let record = self.settled(&id).await;
        assert_eq!(record.state, State::Deployed, "{record:?}");
        (id, record)
    }

    /// How often it came to this.
    async fn times(&self, id: &EnclaveId, wanted: State) -> usize {
        let events = self.daemon.store().events(id.clone()).await.unwrap();
        let is_wanted = |event: &&EnclaveEvent| matches!(event, EnclaveEvent::Status { state, .. } if *state == wanted);
        events.iter().filter(is_wanted).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_brings_back_what_was_attested_though_the_tag_moved_and_the_registry_is_gone() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (id, before) = host.deployed("app").await;
    let host = host
        .restart(|host| {
            host.move_tag();
            host.registry.stop();
        })
        .await;
    let after = host.settled(&id).await;
    assert_eq!(after.state, State::Deployed, "{after:?}");
    assert_eq!(after.release(), before.release());
    host.holds(&[&after]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redeploy_serves_until_the_next_is_attested_and_a_rollback_needs_no_registry() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (id, first) = host.deployed("app").await;
    host.move_tag();
    let handle = host.daemon.find("app").unwrap();
    handle.redeploy(None).await.unwrap();
    let second = host.changed(&id, 2).await.unwrap();
    let record = host.record(&id).await;
    assert_eq!(record.release().as_ref(), Some(&second));
    assert_ne!(record.measurements, first.measurements);
    assert!(host.audit().contains(&second.measurements.pcr0.to_string()));
    assert_eq!(record.ingress, first.ingress);
    assert_eq!(host.times(&id, State::Deployed).await, 1);
    host.holds(&[&first, &record]).await;
    host.registry.stop();
    handle.rollback().await.unwrap();
    assert_eq!(Some(host.changed(&id, 3).await.unwrap()), first.release());
    handle.rollback().await.unwrap();
    assert_eq!(host.changed(&id, 4).await.unwrap(), second);
    let record = host.record(&id).await;
    assert_eq!((record.state, record.attested.len()), (State::Deployed, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_redeploy_leaves_the_old_one_serving() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (id, first) = host.deployed("app").await;
    let handle = host.daemon.find("app").unwrap();
    host.move_tag();
    host.launcher.next(Conduct::Dies);
    handle.redeploy(None).await.unwrap();
    let failure = host.changed(&id, 2).await.unwrap_err();
    assert_eq!(failure.code, Code::BootFailed, "{failure:?}");
    host.registry.stop();
    handle.redeploy(None).await.unwrap();
    let failure = host.changed(&id, 3).await.unwrap_err();
    assert_eq!(failure.code, Code::RegistryUnreachable, "{failure:?}");
    let record = host.record(&id).await;
    assert_eq!(record.release(), first.release());
    assert_eq!(record.ingress, first.ingress);
    assert_eq!(host.times(&id, State::Deployed).await, 1);
    assert!(handle.attestation(None).await.unwrap().is_ok());
    let refused = handle.rollback().await.unwrap_err();
    let words = "there is nothing to go back to";
    assert!(refused.to_string().starts_with(words), "{refused}");
    host.holds(&[&first]).await;
}

/// The daemon ends while the next enclave boots: what was built for it is not needed any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_ends_amid_a_redeploy_comes_back_with_the_old_one() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (id, first) = host.deployed("app").await;
    host.move_tag();
    host.launcher.next(Conduct::Silent);
    let handle = host.daemon.find("app").unwrap();
    handle.redeploy(None).await.unwrap();
    let building = async {
        while host.eifs().len() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), building).await.unwrap();
    let host = host
        .restart(|host| {
            host.launcher.next(Conduct::Good);
            host.registry.stop();
        })
        .await;
    let failure = host.changed(&id, 2).await.unwrap_err();
    assert_eq!(failure.code, Code::StateConflict, "{failure:?}");
    let record = host.settled(&id).await;
    assert_eq!(record.state, State::Deployed, "{record:?}");
    assert_eq!(record.release(), first.release());
    host.holds(&[&first]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_would_come_and_changes_nothing() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (id, first) = host.deployed("app").await;
    host.move_tag();
    let handle = host.daemon.find("app").unwrap();
    handle.dry_run(None).await.unwrap();
    let planned = host.changed(&id, 2).await.unwrap();
    assert_eq!(host.record(&id).await.release(), first.release());
    assert_eq!(host.times(&id, State::Deployed).await, 1);
    host.holds(&[&first]).await;
    handle.redeploy(None).await.unwrap();
    assert_eq!(host.changed(&id, 3).await.unwrap(), planned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_two_have_no_room_the_old_one_comes_back_if_the_new_one_fails() {
    let host = Host::new(Conduct::Good, 150).await;
    let (id, first) = host.deployed("app").await;
    host.move_tag();
    host.launcher.next(Conduct::Dies);
    let handle = host.daemon.find("app").unwrap();
    handle.redeploy(None).await.unwrap();
    let returning = async {
        while host.times(&id, State::Deployed).await != 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), returning).await.unwrap();
    assert_eq!(host.record(&id).await.release(), first.release());
    host.holds(&[&first]).await;
    handle.redeploy(None).await.unwrap();
    let returning = async {
        while host.times(&id, State::Deployed).await != 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), returning).await.unwrap();
    assert_ne!(host.record(&id).await.measurements, first.measurements);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_eif_is_never_launched_and_is_built_again_from_its_digest() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (id, before) = host.deployed("app").await;
    let damage = |host: &Host| {
        let mut bytes = std::fs::read(host.eif(&before)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(host.eif(&before), bytes).unwrap();
        host.move_tag();
    };
    let host = host.restart(damage).await;
    let after = host.settled(&id).await;
    assert_eq!(after.state, State::Deployed, "{after:?}");
    assert_eq!(after.release(), before.release());
    let damage = |host: &Host| {
        damage(host);
        host.registry.stop();
    };
    let host = host.restart(damage).await;
    let failure = host.failure(&id).await;
    assert_eq!(failure.code, Code::RegistryUnreachable, "{failure:?}");
    assert!(failure.message.contains("is damaged"), "{failure:?}");
}

/// An upgrade brought another agent, and the EIF is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_measures_to_something_else_is_not_launched_unless_it_was_ordered() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (id, before) = host.deployed("app").await;
    let upgrade = |host: &Host| {
        std::fs::remove_file(host.eif(&before)).unwrap();
        let agent = host.directory.path().join("enclave-agent");
        let mut bytes = std::fs::read(&agent).unwrap();
        bytes.extend_from_slice(&[0; 64]);
        std::fs::write(agent, bytes).unwrap();
    };
    let host = host.restart(upgrade).await;
    let failure = host.failure(&id).await;
    assert_eq!(failure.code, Code::MeasurementsChanged, "{failure:?}");
    let record = host.record(&id).await;
    assert_eq!(record.release(), before.release());
    let handle = host.daemon.find("app").unwrap();
    handle.redeploy(None).await.unwrap();
    let ordered = host.settled(&id).await;
    assert_eq!(ordered.state, State::Deployed, "{ordered:?}");
    assert_eq!(ordered.image_digest, before.image_digest);
    assert_ne!(ordered.measurements, before.measurements);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eif_stays_for_as_long_as_an_enclave_needs_it() {
    let host = Host::new(Conduct::Good, 1024).await;
    let (first, _) = host.deployed("first").await;
    let (second, record) = host.deployed("second").await;
    assert_eq!(host.eifs().len(), 1);
    host.daemon.find("first").unwrap().destroy().await.unwrap();
    while host.record(&first).await.state != State::Destroyed {
        sleep(Duration::from_millis(5)).await;
    }
    host.holds(&[&record]).await;
    host.daemon.find("second").unwrap().destroy().await.unwrap();
    while host.record(&second).await.state != State::Destroyed {
        sleep(Duration::from_millis(5)).await;
    }
    host.holds(&[]).await;
}

/// The same in QEMU, with a registry that is not ours, through `enclavectl`: a redeploy and its dry
/// run, a rollback, and SIGKILL while the tag means something else and the registry is gone.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_killed_daemon_brings_back_the_code_that_was_attested() {
    let scene = Scene::new(&web_image(), "org/web:v1");
    let mut daemon = scene.start(&[]);
    assert_eq!(daemon.create("web", &scene.reference, WEB_SPEC).code, 0);
    let first = daemon.show("web");
    let other = Layer::default().file("srv/index.html", 0o644, 0, "other\n");
    let other = web_image().layer(other, Compression::Gzip);
    assert_eq!(scene.push(&other, "org/web:v1"), scene.reference);

    let planned = redeploy(&daemon, &["--dry-run"]);
    assert_eq!(page(&daemon), "hello\n");
    redeploy(&daemon, &[]);
    let second = daemon.show("web");
    assert_eq!(second["measurements"], planned["measurements"]);
    assert_eq!(second["ingress"], first["ingress"]);
    assert_eq!(page(&daemon), "other\n");
    assert_eq!(daemon.ctl(&["rollback", "web"], "").code, 0);
    assert_eq!(page(&daemon), "hello\n");

    daemon.crash();
    drop(scene);
    daemon.restart();
    wait_for("the enclave to come back", 60, || {
        daemon.show("web")["status"] == "DEPLOYED"
    });
    let after = daemon.show("web");
    assert_eq!(after["measurements"], first["measurements"]);
    assert_eq!(after["image_digest"], first["image_digest"]);
    assert_eq!(daemon.ctl(&["attestation", "web"], "").code, 0);
    assert_eq!(page(&daemon), "hello\n");
    let refused = daemon.ctl(&["redeploy", "web"], "");
    assert_eq!(refused.code, 1, "{refused:?}");
    let words = "the enclave runs what it ran before";
    assert!(refused.stderr.contains(words), "{refused:?}");
    assert_eq!(page(&daemon), "hello\n");
}

fn redeploy(daemon: &Daemon, more: &[&str]) -> serde_json::Value {
    let arguments = [&["--json", "redeploy", "web"], more].concat();
    let answer = daemon.ctl(&arguments, "");
    assert_eq!(answer.code, 0, "{answer:?}\n{}", daemon.log());
    serde_json::from_str(&answer.stdout).unwrap()
}

/// What the workload serves.
fn page(daemon: &Daemon) -> String {
    let record = daemon.show("web");
    let answer = get(record["ingress"][0]["address"].as_str().unwrap(), "/");
    answer.rsplit_once("\r\n\r\n").unwrap().1.to_owned()
}
