//! `enclavectl audit`: prints the audit log of this machine, and `audit verify` checks it. Reads the
//! files and needs no daemon.

use crate::ui;
use ::audit::{Actor, AuditEntry, AuditLine, AuditReport};
use explain::{CliError, Exit, printable};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    place: Place,
    /// Only lines from this time on: RFC 3339 in UTC, or the beginning of one, such as 2026-01-31
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines that name this enclave, by name or id
    #[arg(long, value_name = "NAME")]
    enclave: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check that no line was changed, removed, inserted or moved, and print the last line's hash
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// Hash that an earlier check printed; a line must have it
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Directory of the log, or one of its files
    #[arg(env = "REDOUBT_AUDIT", default_value = "/var/lib/redoubt/audit")]
    path: PathBuf,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), CliError> {
    match args.command {
        Some(Command::Verify(args)) => verify(&args, json),
        None => print(&args, json),
    }
}

fn verify(VerifyArgs { place, head }: &VerifyArgs, json: bool) -> Result<(), CliError> {
    let report = ::audit::verify(&place.path, head.as_deref())?;
    let AuditReport {
        files,
        lines,
        first,
        head,
        notes,
    } = report;
    if json {
        return ui::print_json(&json!({
            "files": files, "lines": lines, "first": first, "seq": head.seq, "hash": head.hash,
            "notes": notes.iter().map(|(seq, note)| json!({ "seq": seq, "note": note })).collect::<Vec<_>>(),
        }));
    }
    for (seq, note) in notes {
        ui::tell(&format!("note in line {seq}: {}", printable(&note)));
    }
    if first > 1 {
        ui::tell(&format!("note: lines before {first} are not here"));
    }
    ui::print(&format!("{lines} lines in {files} files, no line is wrong"))?;
    ui::print(&format!("head: {} {}", head.seq, head.hash))
}

fn print(args: &Args, json: bool) -> Result<(), CliError> {
    let since = args.since.as_deref().map(since).transpose()?;
    let mut printed = Ok(());
    ::audit::walk(&args.place.path, |line| {
        if printed.is_ok() && is_wanted(line, since, args.enclave.as_deref()) {
            printed = show(line, json);
        }
    })?;
    printed
}

fn show(line: &AuditLine, json: bool) -> Result<(), CliError> {
    if json {
        return ui::print(&serde_json::to_string(line).map_err(CliError::bug)?);
    }
    ui::print(&printable(&describe(line)))
}

/// Times of one form sort as texts; a time without its `Z` is before all that it begins.
fn since(text: &str) -> Result<&str, CliError> {
    let is_part = |b: u8| b.is_ascii_digit() || b"-:.T".contains(&b);
    let text = text.strip_suffix('Z').unwrap_or(text);
    if text.len() >= 4 && text.bytes().all(is_part) {
        return Ok(text);
    }
    Err(CliError::new(
        Exit::Usage,
        format!("--since: '{text}' is not a time in UTC"),
        "Write it like 2026-01-31 or 2026-01-31T23:59:59Z.",
    ))
}

fn is_wanted(line: &AuditLine, since: Option<&str>, enclave: Option<&str>) -> bool {
    let AuditEntry {
        enclave: id, name, ..
    } = &line.entry;
    let is_named = |wanted| id.as_deref() == Some(wanted) || name.as_deref() == Some(wanted);
    since.is_none_or(|since| line.time.as_str() >= since) && enclave.is_none_or(is_named)
}

/// One line for people.
fn describe(line: &AuditLine) -> String {
    let AuditLine {
        seq, time, entry, ..
    } = line;
    let AuditEntry {
        action,
        outcome,
        by,
        order,
        enclave,
        name,
        image,
        digest,
        pcr0,
        project,
        access,
        expires_at,
        request,
        code,
        count,
        note,
    } = entry;
    let mut text = format!("{time}  {seq:>6}  {action} {outcome}");
    let (order, count) = (order.map(|n| n.to_string()), count.map(|n| n.to_string()));
    for (what, value) in [
        ("code", code),
        ("order", &order),
        ("name", name),
        ("enclave", enclave),
        ("by", &actor(by)),
        ("image", image),
        ("digest", digest),
        ("pcr0", pcr0),
        ("project", project),
        ("access", access),
        ("expires_at", expires_at),
        ("request", request),
        ("count", &count),
        ("note", note),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("  {what}={value}"));
        }
    }
    text
}

fn actor(by: &Actor) -> Option<String> {
    let Actor {
        uid,
        pid,
        subject,
        address,
    } = by;
    let parts = [
        uid.map(|uid| format!("uid {uid}")),
        pid.map(|pid| format!("pid {pid}")),
        subject.as_ref().map(|subject| format!("'{subject}'")),
        address.as_ref().map(|address| format!("from {address}")),
    ];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::audit::{AuditAction, AuditOutcome};

    fn line() -> AuditLine {
        let by = Actor::process(Some(1000), Some(7));
        let entry = AuditEntry::new(AuditAction::Create, AuditOutcome::Begun, by);
        AuditLine {
            seq: 12,
            time: "2026-01-31T10:00:00.500000Z".to_owned(),
            prev: String::new(),
            entry: entry.enclave(Some("e-0123456789abcdef"), Some("web")),
            hash: String::new(),
        }
    }

    #[test]
    fn a_line_says_when_what_and_who() {
        assert_eq!(
            describe(&line()),
            "2026-01-31T10:00:00.500000Z      12  create begun  name=web  \
             enclave=e-0123456789abcdef  by=uid 1000 pid 7"
        );
    }

    #[test]
    fn lines_are_chosen_by_time_and_enclave() {
        let line = line();
        for (from, expected) in [
            ("2026", true),
            ("2026-01-31T10:00:00Z", true),
            ("2026-01-31T10:00:01", false),
            ("2026-02", false),
        ] {
            assert_eq!(is_wanted(&line, Some(since(from).unwrap()), None), expected);
        }
        for (enclave, expected) in [("web", true), ("e-0123456789abcdef", true), ("we", false)] {
            assert_eq!(is_wanted(&line, None, Some(enclave)), expected);
        }
        for wrong in ["", "now", "2h", "yesterday"] {
            assert_eq!(since(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }
}
