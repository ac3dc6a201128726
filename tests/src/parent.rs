//! A parent instance with the daemon of this repository as its service, and `enclavectl` speaking
//! to it there.

use crate::daemon::CommandOutput;
use crate::programs::named;
use crate::registry::{PASSWORD, Registry, USER};
use crate::wait_for;
use parent::{Files, Machine};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One machine at a time: each has the work of two cores.
static TURN: Mutex<()> = Mutex::new(());
const LIMIT: Duration = Duration::from_secs(200);

pub struct Parent {
    pub machine: Machine,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// What the machine has for enclaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Free {
    /// Huge pages of 2 MiB.
    pub pages: u32,
    /// The driver's pool.
    pub pool: String,
    /// CPUs that the machine has for itself.
    pub online: String,
    /// Enclaves that the hypervisor knows.
    pub slots: usize,
}

impl Parent {
    /// Boots; its services are started.
    #[must_use]
    pub fn boot() -> Parent {
        Parent::after(Some(TURN.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Boots, whatever other machine runs: for what waits most of the time.
    #[must_use]
    pub fn boot_beside() -> Parent {
        Parent::after(None)
    }

    fn after(turn: Option<MutexGuard<'static, ()>>) -> Parent {
        let machine = Machine::boot(&Files::below(&named("REDOUBT_TEST_PARENT"))).unwrap();
        let parent = Parent {
            machine,
            _turn: turn,
        };
        parent.ok("systemctl is-system-running --wait");
        parent
    }

    /// By bash, as root.
    #[must_use]
    pub fn run(&self, command: &str) -> CommandOutput {
        let output = self.machine.run(command, LIMIT).unwrap();
        CommandOutput {
            code: output.code.into(),
            stdout: output.stdout,
            stderr: output.stderr,
        }
    }

    /// What a command that must succeed printed.
    pub fn ok(&self, command: &str) -> String {
        let output = self.run(command);
        assert_eq!(output.code, 0, "{command}: {output:?}\n{}", self.logs());
        output.stdout
    }

    /// The end of the daemon's journal, and of what the hypervisor says of its enclaves.
    #[must_use]
    pub fn logs(&self) -> String {
        let journal = self.run("journalctl -u host-proxy --no-pager | tail -n 40");
        let events = self.machine.events().lines();
        let last = &events[events.len().saturating_sub(20)..];
        format!("{}\n{}", journal.stdout, last.join("\n"))
    }

    /// `enclavectl`, with this on its standard input.
    #[must_use]
    pub fn ctl(&self, arguments: &str, stdin: &str) -> CommandOutput {
        self.machine.put("/root/stdin", stdin.as_bytes()).unwrap();
        self.run(&format!("enclavectl {arguments} </root/stdin"))
    }

    /// Puts a file there.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        self.machine.put(path, content.as_ref()).unwrap();
    }

    /// Starts the service again, with these settings in its environment.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let lines = settings
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"));
        self.put("/etc/redoubt/environment", lines.collect::<String>());
        self.ok("systemctl restart host-proxy");
    }

    /// A service of this machine's loopback, at the same port there.
    pub fn bring(&self, port: u16) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.machine.bring(port, address).unwrap();
    }

    /// Creates an enclave with a spec, and waits for its end state.
    #[must_use]
    pub fn create(&self, name: &str, reference: &str, spec: &str) -> CommandOutput {
        self.create_with(name, reference, spec, "")
    }

    /// The same, with more arguments.
    #[must_use]
    pub fn create_with(
        &self,
        name: &str,
        reference: &str,
        spec: &str,
        more: &str,
    ) -> CommandOutput {
        let path = format!("/root/{name}.toml");
        self.put(&path, spec);
        let arguments = format!(
            "create --name {name} --image {reference} --registry-username {USER} \
             --registry-password-stdin --spec {path} {more}"
        );
        self.ctl(&arguments, PASSWORD)
    }

    #[must_use]
    pub fn show(&self, name: &str) -> Value {
        let text = self.ok(&format!("enclavectl --json show {name}"));
        serde_json::from_str(&text).unwrap()
    }

    /// What `curl` gets from the first ingress of an enclave.
    #[must_use]
    pub fn get(&self, name: &str, path: &str) -> String {
        let record = self.show(name);
        let address = record["ingress"][0]["address"].as_str().unwrap().to_owned();
        self.ok(&format!(
            "curl --silent --show-error --fail --max-time 20 http://{address}{path}"
        ))
    }

    #[must_use]
    pub fn free(&self) -> Free {
        let text = self.ok(
            "cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages \
             /sys/module/nitro_enclaves/parameters/ne_cpus /sys/devices/system/cpu/online",
        );
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Free {
            pages: next().parse().unwrap(),
            pool: next(),
            online: next(),
            slots: self.machine.hypervisor().slots(),
        }
    }

    /// Waits until the machine has again what it had.
    pub fn has_back(&self, before: &Free) {
        let mut now = self.free();
        for _ in 0..100 {
            if now == *before {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
            now = self.free();
        }
        assert_eq!(now, *before, "{:#?}", self.machine.events().lines());
    }

    /// Waits until the record of an enclave is in this state. The daemon may be gone for a while.
    pub fn becomes(&self, name: &str, status: &str) {
        wait_for(&format!("{name} {status}"), 100, || {
            let shown = self.run(&format!("enclavectl --json show {name}"));
            let record: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
            record["status"] == status
        });
    }

    /// With a registry, which it reaches without TLS.
    pub fn with_registry(&self, registry: &Registry, more: &[(&str, &str)]) {
        self.bring(registry.port);
        let plain_http = format!("['{}']", registry.host());
        let own = [("HOST_PROXY_PULL__PLAIN_HTTP", plain_http.as_str())];
        self.configure(&[&own[..], more].concat());
    }
}
