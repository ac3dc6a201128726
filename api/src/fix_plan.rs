//! The commands that fix what a machine lacks, from its findings. Nothing is run here.

use crate::doctor::{Finding, Outcome};
use explain::printable;
use serde::Serialize;
use std::fmt;

/// What to do about the findings that failed, in an order that works.
///
/// Its `Display` is a shell script: commands, and everything else in comments. Commands come from
/// the findings as they are, so they are only as good as their source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FixPlan {
    /// One for each finding that failed.
    pub steps: Vec<FixStep>,
    /// What could not be checked, and why.
    pub not_checked: Vec<String>,
}

/// What to do about one finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FixStep {
    /// What was looked at, and what is wrong with it.
    pub problem: String,
    /// What to do about it, in words.
    pub next_step: String,
    /// Commands for root, in their order. A command that a later step has too is left to that step,
    /// so that a service is restarted once, after all that it reads was changed.
    pub commands: Vec<String>,
    /// Whether later steps have commands of this one.
    pub continues_below: bool,
}

impl FixPlan {
    /// Keeps the order of the findings, which is that of what builds on what.
    pub fn new(findings: &[Finding]) -> FixPlan {
        let mut steps: Vec<FixStep> = Vec::new();
        let mut later: Vec<&str> = Vec::new();
        for finding in findings.iter().rev().filter(|finding| finding.is_failed()) {
            let is_first = |command: &&String| !later.contains(&command.as_str());
            let commands: Vec<String> = finding.fix.iter().filter(is_first).cloned().collect();
            steps.push(FixStep {
                problem: format!("{}: {}", finding.what, finding.detail),
                next_step: finding.next_step.clone().unwrap_or_default(),
                continues_below: commands.len() < finding.fix.len(),
                commands,
            });
            later.extend(finding.fix.iter().map(String::as_str));
        }
        steps.reverse();
        let not_checked = findings
            .iter()
            .filter(|finding| finding.outcome == Outcome::NotChecked)
            .map(|finding| format!("{}: {}", finding.what, finding.detail))
            .collect();
        FixPlan { steps, not_checked }
    }
}

/// A comment stays one, whatever a message holds.
fn comment(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    writeln!(f, "# {}", printable(text))
}

impl fmt::Display for FixPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            comment(f, "Nothing to do: no check failed.")?;
        } else {
            comment(f, "Nothing was changed. Read this, then run it as root.")?;
        }
        for step in &self.steps {
            writeln!(f)?;
            comment(f, &step.problem)?;
            if step.commands.is_empty() && !step.continues_below {
                comment(f, &format!("By hand: {}", step.next_step))?;
            }
            for command in &step.commands {
                writeln!(f, "{}", printable(command))?;
            }
            if step.continues_below && step.commands.is_empty() {
                comment(f, "The commands for it are below.")?;
            } else if step.continues_below {
                comment(f, "The other commands for it are below.")?;
            }
        }
        if !self.not_checked.is_empty() {
            writeln!(f)?;
        }
        for text in &self.not_checked {
            comment(f, &format!("Not checked: {text}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn failed(what: &str, fix: &[&str]) -> Finding {
        Finding::wrong(what, "it is bad", "Mend it.").with_fix(fix.iter().copied())
    }

    #[test]
    fn a_service_is_restarted_once_and_after_what_it_reads() {
        let plan = FixPlan::new(&[
            failed("driver", &["modprobe x", "restart d"]),
            Finding::passed("kernel", "/lib/bzImage"),
            failed("pool", &["restart a"]),
            failed("pages", &["restart a", "restart d"]),
            failed("role", &[]),
            Finding::not_checked("imds", "no answer"),
        ]);
        let expected = "# Nothing was changed. Read this, then run it as root.\n\
            \n# driver: it is bad\nmodprobe x\n# The other commands for it are below.\n\
            \n# pool: it is bad\n# The commands for it are below.\n\
            \n# pages: it is bad\nrestart a\nrestart d\n\
            \n# role: it is bad\n# By hand: Mend it.\n\
            \n# Not checked: imds: no answer\n";
        assert_eq!(plan.to_string(), expected);
    }

    #[test]
    fn with_nothing_to_do_it_says_so() {
        let plan = FixPlan::new(&[Finding::passed("kernel", "/lib/bzImage")]);
        assert_eq!(plan.to_string(), "# Nothing to do: no check failed.\n");
    }

    #[test]
    fn what_a_message_holds_never_becomes_a_command() {
        let mut finding = failed("a\nfalse", &[]);
        finding.detail = "x\r\nfalse\u{1b}[2J".to_owned();
        finding.next_step = Some("y\nfalse".to_owned());
        let unchecked = Finding::not_checked("b", "z\nfalse");
        let script = FixPlan::new(&[finding, unchecked]).to_string();
        let status = Command::new("sh").arg("-ec").arg(&script).status().unwrap();
        assert!(status.success(), "{script}");
        let is_safe = |line: &str| line.is_empty() || line.starts_with('#');
        assert!(script.lines().all(is_safe), "{script}");
    }
}
