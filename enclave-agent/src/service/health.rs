//! What checks of the workload mean for its health. Pure: what they found and the program's age come
//! in.

use std::time::Duration;
use wire::control::WorkloadHealth;
use wire::spec::HealthRules;

pub(super) struct Health {
    interval: Duration,
    start_interval: Duration,
    start_period: Duration,
    retries: u32,
    state: WorkloadHealth,
    /// Of the latest checks.
    failures: u32,
    /// A check has succeeded: the start is over.
    is_up: bool,
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

impl Health {
    pub(super) fn new(rules: &HealthRules) -> Health {
        Health {
            interval: seconds(rules.interval),
            start_interval: seconds(rules.start_interval),
            start_period: seconds(rules.start_period),
            retries: rules.retries,
            state: WorkloadHealth::Starting,
            failures: 0,
            is_up: false,
        }
    }

    /// The program was started, for the first time or once more.
    pub(super) fn begin(&mut self) {
        self.state = WorkloadHealth::Starting;
        self.failures = 0;
        self.is_up = false;
    }

    fn is_starting(&self, age: Duration) -> bool {
        !self.is_up && age < self.start_period
    }

    /// How long until the next check of a program that was started `age` ago.
    pub(super) fn wait(&self, age: Duration) -> Duration {
        if self.is_starting(age) {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// A check that began at this age succeeded, or failed. Gives the health if that changed it.
    pub(super) fn found(&mut self, success: bool, age: Duration) -> Option<WorkloadHealth> {
        let before = self.state;
        if success {
            self.is_up = true;
            self.failures = 0;
            self.state = WorkloadHealth::Healthy;
        } else if !self.is_starting(age) {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.retries {
                self.state = WorkloadHealth::Unhealthy;
            }
        }
        (self.state != before).then_some(self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::spec::HealthCheck;

    const RULES: HealthRules = HealthRules {
        check: HealthCheck::Tcp(1),
        interval: 10,
        timeout: 1,
        retries: 3,
        start_period: 60,
        start_interval: 2,
    };

    fn health() -> Health {
        Health::new(&RULES)
    }

    #[test]
    fn so_many_failures_in_a_row_are_unhealthy_and_one_success_heals() {
        let mut health = health();
        let late = seconds(100);
        let results = [false, false, true, false, false, false, false, true, false];
        let found = results.map(|success| health.found(success, late));
        use WorkloadHealth::{Healthy, Unhealthy};
        let expected = [
            None,
            None,
            Some(Healthy),
            None,
            None,
            Some(Unhealthy),
            None,
            Some(Healthy),
            None,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn failures_count_after_the_start_period_or_the_first_success() {
        let mut health = health();
        for age in 0..60 {
            assert_eq!(health.found(false, seconds(age)), None);
            assert_eq!(health.wait(seconds(age)), seconds(2));
        }
        assert_eq!(health.wait(seconds(60)), seconds(10));
        for _ in 0..2 {
            assert_eq!(health.found(false, seconds(60)), None);
        }
        let unhealthy = Some(WorkloadHealth::Unhealthy);
        assert_eq!(health.found(false, seconds(60)), unhealthy);
        health.begin();
        let healthy = Some(WorkloadHealth::Healthy);
        assert_eq!(health.found(true, seconds(1)), healthy);
        assert_eq!(health.wait(seconds(1)), seconds(10));
        for _ in 0..2 {
            assert_eq!(health.found(false, seconds(2)), None);
        }
        assert_eq!(health.found(false, seconds(2)), unhealthy);
    }
}
