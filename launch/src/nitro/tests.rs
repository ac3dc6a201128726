//! Whole launches on the fake parent instance.

use super::fake::{Dialler, FakeParent, THREADS, port};
use super::pages::UNIT;
use super::*;
use explain::{Code, Explain as _};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

const GIB: u64 = 1 << 30;
/// For what must happen; far more than it takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// A launcher on a fake machine, and the ends of the ports that its enclaves connect to.
struct Scene {
    nitro: Nitro,
    parent: FakeParent,
    heartbeat: Dialler,
    directory: tempfile::TempDir,
}

impl Scene {
    /// Must be called inside of a runtime.
    fn new(cores: u32, pages: &[(u64, u64)]) -> Scene {
        let parent = FakeParent::new(cores, pages);
        let [(heartbeats, heartbeat), (controls, _), (egresses, _)] = [port(), port(), port()];
        let ports = Ports::accepting(heartbeats, controls, egresses);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("eif"), [7; 100]).unwrap();
        Scene {
            nitro: Nitro {
                parent: Arc::new(parent.clone()),
                ports: Mutex::new(Some(Arc::new(ports))),
                ..Nitro::new().unwrap()
            },
            parent,
            heartbeat,
            directory,
        }
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("eif")
    }

    fn reserve(&self, memory_mib: u32, cpus: u32) -> Result<Reservation, LaunchError> {
        self.nitro.reserve(Resources { memory_mib, cpus })
    }

    async fn launch(
        &self,
        reservation: Reservation,
        debug: bool,
    ) -> Result<(Instance, Listeners), LaunchError> {
        let request = LaunchRequest {
            id: &api::EnclaveId::random().unwrap(),
            eif: &self.image(),
            resources: Resources::default(),
            run_dir: self.directory.path(),
            debug,
        };
        self.nitro.launch(request, reservation).await
    }

    async fn start(&self) -> (Instance, Listeners) {
        let reservation = self.reserve(64, 2).unwrap();
        self.launch(reservation, false).await.unwrap()
    }

    /// Nothing of any launch is left, in the machine or in the launcher.
    fn is_whole(&self) -> bool {
        let ports = self.nitro.ports().unwrap();
        self.parent.is_whole() && self.nitro.cores.promised() == 0 && ports.is_idle()
    }

    /// Waits for what other threads have still to give back.
    async fn becomes_whole(&self) {
        until(|| self.is_whole()).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap();
}

/// As the log and errors name it.
fn cid(instance: &Instance) -> u32 {
    let text = format!("{:?}", instance.vsock());
    let digits = text.trim_matches(|c: char| !c.is_ascii_digit());
    digits.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_launches_at_once_share_eight_cores_and_leave_nothing() {
    let scene = Arc::new(Scene::new(8, &[(UNIT, 8 * 32), (GIB, 1)]));
    let launches: Vec<_> = (0..200)
        .map(|number| {
            let scene = scene.clone();
            tokio::spawn(async move {
                let reservation = loop {
                    match scene.reserve(64, 1) {
                        Ok(reservation) => break reservation,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                    sleep(Duration::from_millis(1)).await;
                };
                let (instance, listeners) = scene.launch(reservation, false).await.unwrap();
                let mut agent = scene.heartbeat.connect(cid(&instance)).await;
                agent.write_all(&[wire::HEARTBEAT]).await.unwrap();
                crate::heartbeat(&listeners.heartbeat).await.unwrap();
                if number % 2 == 0 {
                    instance.kill().await;
                }
            })
        })
        .collect();
    for launch in launches {
        timeout(DEADLINE, launch).await.unwrap().unwrap();
    }
    scene.becomes_whole().await;
    assert_eq!(scene.parent.starts(), 200);
}

/// What the driver and the kernel answer with.
fn errnos() -> impl Iterator<Item = i32> {
    use nix::libc::{
        EACCES, EBUSY, EFAULT, EINTR, EINVAL, EIO, EMFILE, ENFILE, ENODEV, ENOENT, ENOMEM, ENOSPC,
        ENOTTY, ENXIO, EPERM, ETIMEDOUT,
    };
    let plain = [
        EACCES, EBUSY, EFAULT, EINTR, EINVAL, EIO, EMFILE, ENFILE, ENODEV, ENOENT, ENOMEM, ENOSPC,
        ENOTTY, ENXIO, EPERM, ETIMEDOUT,
    ];
    (256..=275).chain(plain)
}

#[tokio::test]
async fn every_error_at_every_step_is_named_and_leaves_nothing() {
    let scene = Scene::new(1, &[(UNIT, 32)]);
    for step in DriverStep::ALL {
        for errno in errnos() {
            scene.parent.fail(step, errno);
            let failed = match scene.reserve(64, 2) {
                Ok(reservation) => scene.launch(reservation, false).await.map(drop),
                Err(error) => Err(error),
            };
            let error = failed.unwrap_err();
            let LaunchError::Driver(driver) = &error else {
                panic!("{step:?} {errno}: {error}")
            };
            assert_eq!((driver.step, driver.errno()), (step, errno));
            assert!(error.to_string().contains(&errno.to_string()), "{error}");
            assert!(error.next_step().ends_with('.'), "{error}");
            assert!(scene.is_whole(), "{error}");
        }
    }
}

#[tokio::test]
async fn an_enclave_that_ends_hangs_up_and_gives_everything_back() {
    let scene = Scene::new(2, &[(UNIT, 64)]);
    let (mut first, _listeners) = scene.start().await;
    let (mut second, _listeners) = scene.start().await;
    assert_ne!(cid(&first), cid(&second));
    scene.parent.end(cid(&first));
    timeout(DEADLINE, first.ended()).await.unwrap();
    // It stays ended, and the other one lives.
    timeout(DEADLINE, first.ended()).await.unwrap();
    let others = timeout(Duration::from_millis(50), second.ended()).await;
    assert!(others.is_err());
    first.kill().await;
    second.kill().await;
    assert!(scene.is_whole());
}

#[tokio::test]
async fn what_is_promised_is_not_promised_again() {
    let scene = Scene::new(3, &[(UNIT, 100)]);
    let held = scene.reserve(128, 3).unwrap();
    let error = scene.reserve(64, 3).unwrap_err();
    assert_eq!(error.code(), Code::OutOfCpus);
    let text = "3 CPUs in whole cores are required, and 2 of the pool's 6 are left";
    assert_eq!(error.to_string(), text);
    let error = scene.reserve(74, 1).unwrap_err();
    assert_eq!(error.code(), Code::OutOfMemory);
    let text = "74 MiB of huge pages are required, and free are: 36 x 2 MiB";
    assert_eq!(error.to_string(), text);
    drop(held);
    assert!(scene.is_whole());
}

#[tokio::test]
async fn a_reservation_of_another_launcher_is_replaced_by_an_own_one() {
    let scene = Scene::new(1, &[(UNIT, 256)]);
    let foreign = Reservation::new(());
    let (instance, _listeners) = scene.launch(foreign, false).await.unwrap();
    assert!(!scene.is_whole());
    instance.kill().await;
    assert!(scene.is_whole());
}

#[tokio::test]
async fn a_launch_that_is_cancelled_while_the_device_starts_it_leaves_nothing() {
    let scene = Scene::new(1, &[(UNIT, 32)]);
    scene.parent.hold_starts(true);
    let reservation = scene.reserve(64, 2).unwrap();
    let launching = scene.launch(reservation, false);
    tokio::select! {
        _ = launching => panic!("it cannot have started"),
        () = until(|| scene.parent.starts() == 1) => {}
    }
    // Its resources are not free before the device has answered.
    assert!(scene.reserve(64, 2).is_err());
    scene.parent.hold_starts(false);
    scene.becomes_whole().await;
}

#[tokio::test]
async fn a_connection_that_comes_before_the_cid_is_known_is_the_enclaves() {
    let scene = Scene::new(1, &[(UNIT, 32)]);
    scene.parent.hold_starts(true);
    let reservation = scene.reserve(64, 2).unwrap();
    let early = async {
        until(|| scene.parent.starts() == 1).await;
        // A stranger's heartbeat, and the enclave's own.
        let stranger = scene.heartbeat.connect(99).await;
        let mut agent = scene.heartbeat.connect(17).await;
        agent.write_all(&[wire::HEARTBEAT]).await.unwrap();
        let ports = scene.nitro.ports().unwrap();
        until(|| ports.parked() == 2).await;
        scene.parent.hold_starts(false);
        (stranger, agent)
    };
    let (launched, _ends) = tokio::join!(scene.launch(reservation, false), early);
    let (instance, listeners) = launched.unwrap();
    assert_eq!(cid(&instance), 17);
    let answered = timeout(DEADLINE, crate::heartbeat(&listeners.heartbeat)).await;
    answered.unwrap().unwrap();
}

#[tokio::test]
async fn an_image_must_fit_and_be_there() {
    let scene = Scene::new(1, &[(UNIT, 32)]);
    let image = std::fs::File::create(scene.image()).unwrap();
    image.set_len((56 << 20) + 1).unwrap();
    let reservation = scene.reserve(64, 2).unwrap();
    let error = scene.launch(reservation, false).await.unwrap_err();
    let text = "the enclave image has 57 MiB, too much for an enclave with 64 MiB";
    assert_eq!(error.to_string(), text);
    image.set_len(56 << 20).unwrap();
    let reservation = scene.reserve(64, 2).unwrap();
    drop(scene.launch(reservation, false).await.unwrap());
    scene.becomes_whole().await;
    std::fs::remove_file(scene.image()).unwrap();
    let reservation = scene.reserve(64, 2).unwrap();
    let error = scene.launch(reservation, false).await.unwrap_err();
    assert!(matches!(error, LaunchError::Image { .. }), "{error}");
    assert!(scene.is_whole());
}

#[tokio::test]
async fn debug_mode_is_what_was_asked_for() {
    let scene = Scene::new(1, &[(UNIT, 32)]);
    for debug in [true, false] {
        let reservation = scene.reserve(64, 2).unwrap();
        let (instance, _listeners) = scene.launch(reservation, debug).await.unwrap();
        assert_eq!(scene.parent.last_debug(), Some(debug));
        instance.kill().await;
    }
    assert!(scene.is_whole());
}

#[tokio::test]
async fn preflight_names_what_is_there_or_missing() {
    let scene = Scene::new(1, &[(UNIT, 32)]);
    let found = scene.nitro.preflight().unwrap().to_string();
    assert!(
        found.contains(&format!("{THREADS} CPUs in its pool")),
        "{found}"
    );
    assert!(found.contains("32 x 2 MiB"), "{found}");
    let empty = Scene::new(0, &[(UNIT, 32)]);
    let error = empty.nitro.preflight().unwrap_err();
    assert!(matches!(error, LaunchError::NoCpuPool), "{error}");
    let error = empty.reserve(64, 1).unwrap_err();
    assert!(matches!(error, LaunchError::NoCpuPool), "{error}");
    scene.parent.fail(DriverStep::Open, nix::libc::EACCES);
    let error = scene.nitro.preflight().unwrap_err();
    assert!(error.next_step().contains("group 'ne'"), "{error}");
}
