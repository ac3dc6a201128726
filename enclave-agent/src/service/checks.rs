//! The rhythm of health checks: when the next one is made, and what became of it.

use super::health::Health;
use super::probe::{self, Finding};
use crate::network::Namespace;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use wire::control::{WorkloadExit, WorkloadHealth};
use wire::spec::{HealthCheck, HealthRules};

pub(super) struct Checks {
    check: HealthCheck,
    limit: Duration,
    network: Arc<Namespace>,
    health: Health,
    started: Instant,
    /// When the latest check began.
    began: Instant,
    phase: Phase,
}

enum Phase {
    /// No program runs.
    Off,
    Waiting {
        until: Instant,
    },
    Asking(JoinHandle<Finding>),
    /// A program checks, until it is done or told to end.
    Running {
        until: Instant,
    },
    Overdue,
}

/// What the caller has to do, or to know.
pub(super) enum Step {
    /// Run the check's command; [`Checks::ended`] wants its end.
    Run,
    /// End it.
    End,
    Found(Finding),
}

impl Checks {
    pub(super) fn new(rules: &HealthRules, network: Arc<Namespace>) -> Checks {
        let now = Instant::now();
        Checks {
            check: rules.check.clone(),
            limit: Duration::from_secs(u64::from(rules.timeout)),
            network,
            health: Health::new(rules),
            started: now,
            began: now,
            phase: Phase::Off,
        }
    }

    /// The program was started.
    pub(super) fn begin(&mut self) {
        self.started = Instant::now();
        self.health.begin();
        self.rest();
    }

    /// The program ended: what is being asked is of no interest any more.
    pub(super) fn stop(&mut self) {
        if let Phase::Asking(task) = &self.phase {
            task.abort();
        }
        self.phase = Phase::Off;
    }

    fn rest(&mut self) {
        let now = Instant::now();
        let until = now + self.health.wait(now - self.started);
        self.phase = Phase::Waiting { until };
    }

    /// The next step. Cancel-safe.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            match &mut self.phase {
                Phase::Off | Phase::Overdue => std::future::pending().await,
                Phase::Waiting { until } => {
                    sleep_until(*until).await;
                    if self.make() {
                        return Step::Run;
                    }
                }
                Phase::Asking(task) => {
                    let found = task.await;
                    return Step::Found(found.unwrap_or_else(|error| Err(error.to_string())));
                }
                Phase::Running { until } => {
                    sleep_until(*until).await;
                    self.phase = Phase::Overdue;
                    return Step::End;
                }
            }
        }
    }

    /// Begins a check; says whether a command has to be run for it.
    fn make(&mut self) -> bool {
        self.began = Instant::now();
        let (network, limit) = (self.network.clone(), self.limit);
        let late = format!("no answer within {} s", limit.as_secs());
        self.phase = match self.check.clone() {
            HealthCheck::Command(_) => {
                let until = self.began + limit;
                self.phase = Phase::Running { until };
                return true;
            }
            HealthCheck::Tcp(port) => Phase::Asking(tokio::spawn(async move {
                let asked = timeout(limit, probe::tcp(port, &network)).await;
                asked.unwrap_or(Err(late))
            })),
            HealthCheck::Http(target) => Phase::Asking(tokio::spawn(async move {
                let asked = timeout(limit, probe::http(&target, &network)).await;
                asked.unwrap_or(Err(late))
            })),
        };
        false
    }

    /// The command ended like this, having written `output`; what the check found.
    pub(super) fn ended(&mut self, exit: WorkloadExit, output: &str) -> Option<Finding> {
        let said = match output.trim() {
            "" => String::new(),
            output => format!(": {}", output.replace(['\n', '\r', '\t'], " ")),
        };
        match self.phase {
            Phase::Running { .. } if exit == WorkloadExit::Code(0) => {
                Some(Ok(format!("{exit}{said}")))
            }
            Phase::Running { .. } => Some(Err(format!("{exit}{said}"))),
            Phase::Overdue => {
                let seconds = self.limit.as_secs();
                Some(Err(format!("did not end within {seconds} s{said}")))
            }
            _ => None,
        }
    }

    /// Takes in what a check found. Gives the workload's health if that changed it.
    pub(super) fn found(&mut self, finding: &Finding) -> Option<WorkloadHealth> {
        let age = self.began - self.started;
        let change = self.health.found(finding.is_ok(), age);
        self.rest();
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(text: &str) -> Checks {
        let spec = wire::spec::Spec::parse(&format!("[health]\n{text}")).unwrap();
        let spec = spec.resolve(wire::spec::ImageDefaults::any()).unwrap();
        let network = Arc::new(Namespace::current().unwrap());
        Checks::new(&spec.health.unwrap(), network)
    }

    fn failed(text: &str) -> Option<Finding> {
        Some(Err(text.to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_does_not_end_in_time_is_ended_and_has_failed() {
        let mut checks = checks("command = ['/x']\ninterval = 10\ntimeout = 3\nretries = 2");
        let start = Instant::now();
        checks.begin();
        let unhealthy = Some(WorkloadHealth::Unhealthy);
        for (round, change) in [(0, None), (1, unhealthy)] {
            assert!(matches!(checks.next().await, Step::Run));
            assert_eq!(start.elapsed().as_secs(), 10 + round * 13);
            assert!(matches!(checks.next().await, Step::End));
            let finding = checks.ended(WorkloadExit::Signal(9), "");
            assert_eq!(finding, failed("did not end within 3 s"));
            assert_eq!(checks.found(&finding.unwrap()), change);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_check_counts_for_the_program_that_was_checked() {
        let mut checks = checks("command = ['/x']\nretries = 1");
        checks.begin();
        assert!(matches!(checks.next().await, Step::Run));
        checks.stop();
        assert_eq!(checks.ended(WorkloadExit::Code(1), "late"), None);
        checks.begin();
        assert!(matches!(checks.next().await, Step::Run));
        let finding = checks.ended(WorkloadExit::Code(1), " no disk\n");
        assert_eq!(finding, failed("exit code 1: no disk"));
        let change = checks.found(&finding.unwrap());
        assert_eq!(change, Some(WorkloadHealth::Unhealthy));
    }
}
