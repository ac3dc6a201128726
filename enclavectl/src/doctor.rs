//! `enclavectl doctor`: what the daemon finds out about its machine, one line each, with the next
//! step where something is missing; with `--fix-plan`, the commands for all of it.

use crate::ui;
use api::client::{Client, ClientError};
use api::{Finding, FixPlan};
use explain::{CliError, Exit};
use hyper::Method;

const WITHOUT_DAEMON: &str = "'host-proxy doctor' checks this machine without a running daemon.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print shell commands that fix what failed, without running them
    #[arg(long)]
    fix_plan: bool,
}

pub(crate) async fn run(client: &Client, args: &Args, json: bool) -> Result<(), CliError> {
    let answer = client.json(Method::GET, "/v1/doctor", Vec::new()).await;
    let findings = with_daemon(answer);
    if args.fix_plan {
        let plan = FixPlan::new(&findings);
        return if json {
            ui::print_json(&plan)
        } else {
            ui::print(plan.to_string().trim_end())
        };
    }
    if json {
        ui::print_json(&findings)?;
    } else {
        for finding in &findings {
            ui::print(&finding.to_string())?;
        }
    }
    match findings
        .iter()
        .filter(|finding| finding.is_failed())
        .count()
    {
        0 => Ok(()),
        1 => Err(failed("1 check failed".to_owned())),
        count => Err(failed(format!("{count} checks failed"))),
    }
}

fn failed(message: String) -> CliError {
    CliError::new(
        Exit::Unavailable,
        message,
        "Follow the next step below each ✗; 'enclavectl doctor --fix-plan' prints commands.",
    )
}

/// What the daemon found, and last whether it answers.
fn with_daemon(answer: Result<Vec<Finding>, ClientError>) -> Vec<Finding> {
    match answer {
        Ok(mut findings) => {
            findings.push(Finding::passed("daemon", "answers"));
            findings
        }
        Err(error) => {
            let mut finding = Finding::failed("daemon", &error);
            if let (ClientError::Unreachable { .. }, Some(step)) = (&error, &mut finding.next_step)
            {
                *step = format!("{step} {WITHOUT_DAEMON}");
            }
            vec![finding.with_fix(["systemctl enable --now host-proxy"])]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_answers_is_the_last_finding() {
        let kernel = Finding::passed("kernel", "/lib/bzImage");
        let findings = with_daemon(Ok(vec![kernel]));
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["✓ kernel: /lib/bzImage", "✓ daemon: answers"]);
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_the_only_one() {
        let findings = with_daemon(Err(ClientError::Unreachable {
            path: "/run/api.sock".into(),
            reason: "No such file".to_owned(),
        }));
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert!(finding.is_failed());
        assert_eq!(finding.fix, ["systemctl enable --now host-proxy"]);
        assert_eq!(
            finding.detail,
            "cannot reach the daemon at /run/api.sock: No such file"
        );
        let step = finding.next_step.as_deref().unwrap();
        assert!(
            step.contains("host-proxy serve") && step.ends_with(WITHOUT_DAEMON),
            "{step}"
        );
    }
}
