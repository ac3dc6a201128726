//! The loop of an enclave's task: it waits for whatever comes first, and takes a step.

use super::Order;
use super::replace::replacement;
use super::state::{Deploying, Enclave, Reported};
use crate::deploy::{AttestedEnclave, DeployEvent, Replacement, ServingEnclave, exit_error};
use crate::lifecycle::Event;
use api::{DeployError, State};
use launch::Logs;
use relay::control::Report;
use std::time::Duration;
use tokio::time::timeout;

/// What the task wakes up for.
enum Wake {
    Order(Order),
    Event(DeployEvent),
    Deployed(Box<Result<ServingEnclave, DeployError>>),
    Replaced(Result<Replacement, DeployError>),
    Ended(DeployError),
    Workload,
    Stop,
}

impl Enclave {
    pub(super) async fn run(mut self) {
        while self.record.state != State::Destroyed {
            if matches!(
                self.record.state,
                State::PendingDeploy | State::PendingDestroy
            ) {
                self.step(Event::Begin).await;
                continue;
            }
            match self.wake().await {
                Wake::Order(order) => self.obey(order).await,
                Wake::Event(event) => self.report(event).await,
                Wake::Deployed(result) => self.deployed(*result).await,
                Wake::Replaced(result) => self.replaced(result).await,
                Wake::Ended(error) => {
                    self.take_workload();
                    self.step(Event::Failed(error)).await;
                }
                Wake::Workload => self.report_workload().await,
                Wake::Stop => {
                    // The record stays as it is: the next daemon brings the enclave back.
                    self.stop().await;
                    return;
                }
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let Enclave {
            orders,
            stopping,
            deploying,
            serving,
            replacing,
            logs,
            workload,
            ..
        } = self;
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => Wake::Stop,
            Some(order) = orders.recv() => Wake::Order(order),
            wake = progress(deploying) => wake,
            result = replacement(replacing) => Wake::Replaced(result),
            error = ended(serving, logs) => Wake::Ended(error),
            () = news(workload) => Wake::Workload,
        }
    }

    /// Whoever gave the order may be gone by the time of the answer.
    async fn obey(&mut self, order: Order) {
        let (result, answer) = match order {
            Order::Redeploy(target, answer) => (self.redeploy(*target).await, answer),
            Order::DryRun(target, answer) => (self.dry_run(*target).await, answer),
            Order::Rollback(answer) => (self.rollback().await, answer),
            Order::Destroy(answer) => (self.apply(Event::Destroy).await, answer),
            Order::ReplaceConfig(config, answer) => (self.replace_config(*config).await, answer),
        };
        answer.send(result.map(|()| self.record.clone())).ok();
    }
}

async fn progress(deploying: &mut Option<Deploying>) -> Wake {
    let Some(Deploying { task, events }) = deploying else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        Some(event) = events.recv() => Wake::Event(event),
        result = task => {
            Wake::Deployed(Box::new(result.unwrap_or_else(|e| Err(DeployError::internal(e)))))
        }
    }
}

async fn news(workload: &mut Option<Reported>) {
    match workload {
        Some(reported) => reported.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits until a deployed enclave is gone, and says why.
async fn ended(serving: &mut Option<ServingEnclave>, logs: &Logs) -> DeployError {
    let Some(ServingEnclave { enclave, .. }) = serving else {
        return std::future::pending().await;
    };
    let AttestedEnclave {
        instance, control, ..
    } = enclave;
    let report = tokio::select! {
        biased;
        report = control.report() => report,
        () = instance.ended() => {
            // The last report may still be on its way.
            let late = timeout(Duration::from_secs(1), control.report()).await;
            late.unwrap_or_else(|_| Report::Lost("it ended by itself".to_owned()))
        }
    };
    exit_error(&report, &instance.console(), logs)
}
