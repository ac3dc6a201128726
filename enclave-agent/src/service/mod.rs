//! The workload's program from its first start to its last end: it is started once more as the
//! measured spec says, its health is checked, its output sent, and the host's order to stop obeyed.
//!
//! ```text
//!            started            ended, and to be restarted           wait is over
//! Starting ──────────► Running ───────────────────────────► Waiting ─────────────► Starting
//!                         │ unhealthy       ended ▲  │ stop
//!                         └─────────► Healing ────┘  └──► Over: init ends, and the kernel
//!                                                          ends what is left of the namespace
//! ```

mod checks;
mod health;
mod probe;
mod restart;

use crate::boundary::{Event, Order as InitOrder};
use crate::capacity::Capacity;
use crate::console;
use crate::control::{Control, Order, Report};
use crate::network::Namespace;
use crate::output::{Batch, LogQueue, own_line};
use crate::workload::Workload;
use checks::{Checks, Step};
use nix::errno::Errno;
use probe::Finding;
use restart::Restarts;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, Interval, interval, sleep_until, timeout_at};
use wire::control::{ALIVE_EVERY_MS, WorkloadExit, WorkloadHealth};
use wire::spec::MeasuredSpec;

/// How long the workload may take to end once the host is gone.
const HOST_GONE: Duration = Duration::from_secs(30);
/// How long an unhealthy program has between its stop signal and SIGKILL.
const HEAL: Duration = Duration::from_secs(10);
/// How long the last output may take to reach the host.
const DRAIN: Duration = Duration::from_secs(5);
/// What shells return for a program that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

pub(crate) struct Service {
    workload: Workload,
    logs: Option<Arc<LogQueue>>,
    connections: Capacity,
    restarts: Restarts,
    checks: Option<Checks>,
    phase: Phase,
    /// The host wants the end, or is gone: nothing is started any more.
    stopping: bool,
    /// When everything is killed.
    kill_at: Option<Instant>,
    /// How the program ended, while none runs.
    last: Option<WorkloadExit>,
}

#[derive(Clone, Copy)]
enum Phase {
    Starting,
    Running {
        since: Instant,
    },
    /// It is unhealthy and has to end.
    Healing {
        since: Instant,
        kill_at: Option<Instant>,
    },
    Waiting {
        until: Instant,
    },
    Over,
}

/// What the loop wakes up for.
enum Wake {
    Child,
    Alive,
    Output(Batch),
    Event(Event),
    Check(Step),
    Order(io::Result<Order>),
    Time,
}

impl Service {
    /// For a workload that was just started.
    pub(crate) fn new(
        spec: &MeasuredSpec,
        workload: Workload,
        network: &Arc<Namespace>,
        logs: Option<Arc<LogQueue>>,
        connections: Capacity,
    ) -> Service {
        let checks = spec.health.as_ref();
        Service {
            workload,
            logs,
            connections,
            restarts: Restarts::new(spec.run.restart),
            checks: checks.map(|rules| Checks::new(rules, network.clone())),
            phase: Phase::Starting,
            stopping: false,
            kill_at: None,
            last: None,
        }
    }

    /// Reports to the host and obeys it until the workload has ended for good.
    pub(crate) async fn run(mut self, mut children: Signal, control: &mut Control) -> WorkloadExit {
        let mut alive = interval(Duration::from_millis(ALIVE_EVERY_MS));
        // The agent's own lines go on after the program has closed its output.
        if let Some(logs) = &self.logs {
            logs.begin();
        }
        self.started(control).await;
        loop {
            match self.wake(&mut children, &mut alive, control).await {
                Wake::Child => {
                    if let Some(exit) = self.workload.reap() {
                        return self.end(exit, control).await;
                    }
                }
                Wake::Alive => control.send(Report::Alive).await,
                Wake::Output(batch) => control.send(Report::Log(batch)).await,
                Wake::Event(event) => self.happened(event, control).await,
                Wake::Check(Step::Run) => self.workload.order(InitOrder::Check).await,
                Wake::Check(Step::End) => self.workload.order(InitOrder::EndCheck).await,
                Wake::Check(Step::Found(finding)) => self.found(finding, control).await,
                Wake::Order(Ok(Order::Stop { deadline })) => self.stop(deadline).await,
                // Without its host the enclave has no one to serve.
                Wake::Order(Err(error)) => {
                    console::say(&format!("the control connection ended: {error}"));
                    control.expect_no_orders();
                    self.stop(HOST_GONE).await;
                }
                Wake::Time => self.time_is_up().await,
            }
        }
    }

    async fn wake(
        &mut self,
        children: &mut Signal,
        alive: &mut Interval,
        control: &mut Control,
    ) -> Wake {
        let timer = self.timer();
        let Service {
            workload,
            logs,
            checks,
            ..
        } = self;
        tokio::select! {
            _ = children.recv() => Wake::Child,
            _ = alive.tick() => Wake::Alive,
            Some(batch) = next_batch(logs) => Wake::Output(batch),
            event = workload.event() => Wake::Event(event),
            step = next_step(checks) => Wake::Check(step),
            order = control.order() => Wake::Order(order),
            () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => Wake::Time,
        }
    }

    /// When the next thing is due that only the time brings.
    fn timer(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Healing { kill_at, .. } => kill_at,
            Phase::Waiting { until } => Some(until),
            Phase::Starting | Phase::Running { .. } | Phase::Over => None,
        };
        own.into_iter().chain(self.kill_at).min()
    }

    async fn time_is_up(&mut self) {
        let now = Instant::now();
        if self.kill_at.take_if(|at| *at <= now).is_some() {
            self.connections.cut().await;
            Workload::kill_all();
        }
        match self.phase {
            Phase::Healing {
                since,
                kill_at: Some(at),
            } if at <= now => {
                let kill_at = None;
                self.phase = Phase::Healing { since, kill_at };
                self.workload.order(InitOrder::Kill).await;
            }
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Starting;
                self.workload.order(InitOrder::Start).await;
            }
            _ => {}
        }
    }

    async fn happened(&mut self, event: Event, control: &mut Control) {
        match event {
            Event::Started => self.started(control).await,
            Event::Exited { status } => self.ended(status, control).await,
            Event::Checked { status, output } => {
                let output = if self.logs.is_some() { &output } else { "" };
                let checks = self.checks.as_mut();
                if let Some(finding) = checks.and_then(|checks| checks.ended(status, output)) {
                    self.found(finding, control).await;
                }
            }
            // Both belong to a start that failed.
            Event::NotRun { errno } => {
                let error = Errno::from_raw(errno);
                self.say(&format!("the program cannot be started once more: {error}"));
                let missing = error == Errno::ENOENT;
                let code = if missing { NOT_FOUND } else { NOT_EXECUTABLE };
                self.ended(WorkloadExit::Code(code), control).await;
            }
            Event::NoBoundary { detail } => {
                self.say(&format!(
                    "the program cannot be started once more: {detail}"
                ));
                self.ended(WorkloadExit::Code(NOT_EXECUTABLE), control)
                    .await;
            }
        }
    }

    async fn started(&mut self, control: &mut Control) {
        let since = Instant::now();
        self.phase = Phase::Running { since };
        self.last = None;
        // An order to stop that came before the program was there.
        if self.stopping {
            self.workload.stop();
        } else if let Some(checks) = &mut self.checks {
            checks.begin();
            let state = WorkloadHealth::Starting;
            let detail = String::new();
            control.send(Report::Health { state, detail }).await;
        }
    }

    async fn ended(&mut self, exit: WorkloadExit, control: &mut Control) {
        self.last = Some(exit);
        self.stop_checks();
        let (ran, unhealthy) = match self.phase {
            Phase::Running { since } => (since.elapsed(), false),
            Phase::Healing { since, .. } => (since.elapsed(), true),
            _ => (Duration::ZERO, false),
        };
        let restart = self.restarts.ended(exit, ran, unhealthy);
        let Some(restart) = restart.filter(|_| !self.stopping) else {
            self.phase = Phase::Over;
            return self.workload.leave().await;
        };
        let (count, seconds) = (restart.count, restart.wait.as_secs());
        self.say(&format!(
            "the program ended with {exit} and is started once more in {seconds} s"
        ));
        self.phase = Phase::Waiting {
            until: Instant::now() + restart.wait,
        };
        control.send(Report::Restarted { exit, count }).await;
    }

    async fn found(&mut self, finding: Finding, control: &mut Control) {
        let checks = self.checks.as_mut();
        let Some(state) = checks.and_then(|checks| checks.found(&finding)) else {
            return;
        };
        let (Ok(detail) | Err(detail)) = finding;
        if let (WorkloadHealth::Unhealthy, true, Phase::Running { since }) =
            (state, self.restarts.heals(), self.phase)
        {
            self.say(&format!(
                "the program is unhealthy and has to end: {detail}"
            ));
            self.stop_checks();
            self.workload.stop();
            let kill_at = Some(Instant::now() + HEAL);
            self.phase = Phase::Healing { since, kill_at };
        }
        control.send(Report::Health { state, detail }).await;
    }

    /// The program gets its signal and until the deadline; one that is not there is not started.
    async fn stop(&mut self, deadline: Duration) {
        self.stopping = true;
        self.stop_checks();
        self.kill_at.get_or_insert(Instant::now() + deadline);
        if matches!(self.phase, Phase::Waiting { .. }) {
            self.phase = Phase::Over;
            self.workload.leave().await;
        } else {
            self.workload.stop();
        }
    }

    fn stop_checks(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.stop();
        }
    }

    fn say(&self, text: &str) {
        if let Some(logs) = &self.logs {
            logs.offer(own_line(text));
        }
    }

    /// Init is gone, and all processes with it. What the workload wrote before is still sent.
    async fn end(mut self, exit: WorkloadExit, control: &mut Control) -> WorkloadExit {
        while let Some(event) = self.workload.last_event().await {
            if let Event::Exited { status } = event {
                self.last = Some(status);
            }
        }
        if let Some(logs) = &self.logs {
            logs.end();
            drain(logs, control).await;
        }
        self.last.unwrap_or(exit)
    }
}

async fn next_batch(logs: &Option<Arc<LogQueue>>) -> Option<Batch> {
    match logs {
        Some(logs) => logs.next().await,
        None => std::future::pending().await,
    }
}

async fn next_step(checks: &mut Option<Checks>) -> Step {
    match checks {
        Some(checks) => checks.next().await,
        None => std::future::pending().await,
    }
}

/// A message is sent whole or not at all: only the wait for the next one is limited.
async fn drain(logs: &LogQueue, control: &mut Control) {
    let deadline = Instant::now() + DRAIN;
    while Instant::now() < deadline
        && let Ok(Some(batch)) = timeout_at(deadline, logs.next()).await
    {
        control.send(Report::Log(batch)).await;
    }
    let dropped = logs.abandon();
    if dropped > 0 {
        let lines = Vec::new();
        control.send(Report::Log(Batch { dropped, lines })).await;
    }
}
