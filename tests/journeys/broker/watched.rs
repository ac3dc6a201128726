//! Files that change are in effect without a restart.

use super::DOCKER;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tests::broker::{Broker, SECRET, token};
use tests::wait_for;

const SUBJECT: &str = "repo:org/app:main";
const FRESH: [u8; 40] = [b'z'; 40];

/// A broker whose rules and secret are files; the rules allow one project.
struct Files {
    broker: Broker,
    rules: PathBuf,
    secret: PathBuf,
    job: String,
}

impl Files {
    fn allowing(project: &str) -> Files {
        let folder = TempDir::new().unwrap();
        let [rules, secret] = ["rules.toml", "secret"].map(|name| folder.path().join(name));
        write_rule(&rules, project);
        std::fs::write(&secret, SECRET).unwrap();
        let [rules_file, secret_file] = [&rules, &secret].map(|path| path.to_str().unwrap());
        let files = [
            ("HOST_PROXY_BROKER__JWT_SECRET_FILE", secret_file),
            ("HOST_PROXY_BROKER__RULES_FILE", rules_file),
            ("HOST_PROXY_BROKER__RATE_PER_MINUTE", "100000"),
        ];
        Files {
            broker: Broker::start_in(folder, &[&DOCKER[..], &files].concat()),
            job: token(SUBJECT, &[], SECRET),
            rules,
            secret,
        }
    }

    /// The status of a question with the first secret's token.
    fn ask(&self, project: &str) -> u16 {
        self.ask_with(project, &self.job)
    }

    fn ask_with(&self, project: &str, token: &str) -> u16 {
        self.broker
            .ask(&format!("?project={project}"), Some(token))
            .0
    }
}

fn write_rule(path: &Path, project: &str) {
    let rule = format!("[[rule]]\nsubject = 'repo:org/app:*'\nprojects = ['{project}']");
    std::fs::write(path, rule).unwrap();
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn rules_that_change_hold_at_once() {
    let files = Files::allowing("first");
    assert_eq!((files.ask("first"), files.ask("second")), (200, 404));
    write_rule(&files.rules, "second");
    wait_for("the new rules", 30, || files.ask("second") == 200);
    assert_eq!(files.ask("first"), 404);
    // A mistake leaves them as they are.
    write_rule(&files.rules, "not a name");
    wait_for("the mistake", 30, || {
        assert_eq!(files.ask("second"), 200);
        let log = files.broker.daemon.log();
        log.contains("the previous rules stay in effect")
    });
    let other = token("repo:org/other:main", &[], SECRET);
    assert_eq!(files.ask_with("second", &other), 404);
}

/// What was signed with the one before is nothing any more.
#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_secret_that_changes_holds_at_once() {
    let files = Files::allowing("first");
    assert_eq!(files.ask("first"), 200);
    let after = token(SUBJECT, &[], &FRESH);
    assert_eq!(files.ask_with("first", &after), 401);
    std::fs::write(&files.secret, FRESH).unwrap();
    wait_for("the new secret", 30, || {
        files.ask_with("first", &after) == 200
    });
    assert_eq!(files.ask("first"), 401);
    std::fs::write(&files.secret, SECRET).unwrap();
    wait_for("the secret before", 30, || files.ask("first") == 200);
}
