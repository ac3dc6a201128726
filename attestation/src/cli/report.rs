//! A verdict for people and for programs.

use attestation::{Check, Error, Part, Subject, Time, Untrusted, Verified};
use serde_json::{Map, Value, json};

/// Longer values are truncated in the table. In characters.
const WIDTH: usize = 128;

#[derive(Debug)]
pub(super) struct Report<'v> {
    verdict: &'v Result<Verified, Error>,
    at: Time,
    cautions: Vec<&'v str>,
}

/// A line of the table.
struct Row {
    name: String,
    /// `None` if it was not checked, since an earlier check failed.
    passed: Option<bool>,
    expected: String,
    found: String,
    advice: &'static str,
}

const ANY_ORIGIN: &str = "this document carries values that its requester chose, and the policy does \
    not ask who that is; add origin = \"workload\" (--origin workload) if you rely on them";

/// Whether values would be taken from a document made for anyone. Documents without a tag of
/// Redoubt's agent cannot be told apart: for them there is nothing to add.
fn relies_on_any_requester(verified: &Verified) -> bool {
    let asked = |check: &Check| check.subject == Subject::Origin;
    let own = verified.own_user_data().is_some_and(|own| !own.is_empty());
    verified.origin().is_some()
        && (own || verified.public_key.is_some())
        && !verified.checks.iter().any(asked)
}

impl<'v> Report<'v> {
    pub(super) fn new(
        verdict: &'v Result<Verified, Error>,
        at: Time,
        cautions: &'v [String],
    ) -> Report<'v> {
        let mut cautions: Vec<&str> = cautions.iter().map(String::as_str).collect();
        if verdict.as_ref().is_ok_and(|verified| verified.debug) {
            cautions
                .push("the enclave runs in debug mode: its parent instance can read its memory");
        }
        if verdict.as_ref().is_ok_and(relies_on_any_requester) {
            cautions.push(ANY_ORIGIN);
        }
        Report {
            verdict,
            at,
            cautions,
        }
    }

    fn word(&self) -> &'static str {
        match self.verdict {
            Ok(_) => "trusted",
            Err(Error::Malformed(_)) => "malformed",
            Err(_) => "rejected",
        }
    }

    fn checks(&self) -> &[Check] {
        match self.verdict {
            Ok(verified) => &verified.checks,
            Err(Error::Rejected(checks)) => checks,
            Err(_) => &[],
        }
    }

    pub(super) fn json(&self) -> String {
        let mut report = Map::new();
        report.insert("verdict".to_owned(), self.word().into());
        report.insert("at".to_owned(), json!(self.at));
        if let Err(error) = self.verdict {
            report.insert("reason".to_owned(), error.to_string().into());
            report.insert("advice".to_owned(), advice(error).into());
        }
        report.insert("cautions".to_owned(), json!(self.cautions));
        report.insert("checks".to_owned(), json!(self.checks()));
        if let Ok(verified) = self.verdict {
            let hex = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(hex::encode);
            let document = json!({
                "module_id": verified.module_id,
                "timestamp": verified.timestamp,
                "valid_until": verified.valid_until,
                "debug": verified.debug,
                "pcrs": verified.pcrs,
                "public_key": hex(&verified.public_key),
                "user_data": hex(&verified.user_data),
                "origin": verified.origin(),
                "own_user_data": verified.own_user_data().map(hex::encode),
                "nonce": hex(&verified.nonce),
            });
            report.insert("document".to_owned(), document);
        }
        format!("{:#}", Value::Object(report))
    }

    pub(super) fn table(&self) -> String {
        let rows: String = self.rows().iter().map(Row::line).collect();
        let cautions: String = self
            .cautions
            .iter()
            .map(|caution| format!("caution: {caution}\n"))
            .collect();
        format!(
            "{rows}\n{}: {}\n{cautions}",
            self.word().to_uppercase(),
            self.reason()
        )
    }

    fn reason(&self) -> String {
        match self.verdict {
            Ok(verified) => {
                let origin = verified.origin().map(|origin| format!(", origin {origin}"));
                let origin = origin.unwrap_or_default();
                format!(
                    "{}, made {}{origin}",
                    verified.module_id, verified.timestamp
                )
            }
            Err(Error::Rejected(checks)) => {
                let failed = checks.iter().filter(|check| !check.passed);
                let names: Vec<_> = failed.map(|check| check.subject.to_string()).collect();
                format!(
                    "genuine, but does not satisfy the policy: {}",
                    names.join(", ")
                )
            }
            Err(error) => error.to_string(),
        }
    }

    /// Format, signature and time come before the policy; the first that fails leaves the rest
    /// unchecked.
    fn rows(&self) -> Vec<Row> {
        let passed_stages = match self.verdict {
            Ok(_) | Err(Error::Rejected(_)) => 3,
            Err(Error::NotYetValid { .. } | Error::Expired { .. }) => 2,
            Err(Error::Untrusted(_)) => 1,
            Err(Error::Malformed(_)) => 0,
        };
        let time = format!("valid at {}", self.at);
        let signature = "signed by an enclave that chains to the trusted root";
        let stages = [
            ("format", "an attestation document", "COSE_Sign1 with ES384"),
            ("signature", signature, signature),
            ("time", time.as_str(), time.as_str()),
        ];
        let mut rows: Vec<Row> = (0..)
            .zip(stages)
            .map(|(index, (name, expected, found))| match self.verdict {
                Err(error) if index == passed_stages => Row {
                    found: error.to_string(),
                    advice: advice(error),
                    ..Row::new(name, Some(false), expected)
                },
                _ => Row {
                    found: found.to_owned(),
                    ..Row::new(name, (index < passed_stages).then_some(true), expected)
                },
            })
            .collect();
        rows.extend(self.checks().iter().map(Row::of));
        if passed_stages < 3 {
            rows.push(Row::new("policy", None, ""));
        }
        rows
    }
}

impl Row {
    fn new(name: &str, passed: Option<bool>, expected: &str) -> Row {
        Row {
            name: name.to_owned(),
            passed,
            expected: expected.to_owned(),
            found: String::new(),
            advice: "",
        }
    }

    fn of(check: &Check) -> Row {
        Row {
            name: check.subject.to_string(),
            passed: Some(check.passed),
            expected: check.expected.clone(),
            found: check.found.clone(),
            advice: check.advice(),
        }
    }

    fn line(&self) -> String {
        let Row {
            name,
            passed,
            expected,
            found,
            advice,
        } = self;
        let (expected, found) = (truncated(expected), truncated(found));
        match passed {
            None => format!("{name:<14} -       not checked\n"),
            Some(true) => format!("{name:<14} ok      {found}\n"),
            Some(false) => format!(
                "{name:<14} FAILED  expected  {expected}\n{0:<23}found     {found}\n{0:<23}{advice}\n",
                ""
            ),
        }
    }
}

fn advice(error: &Error) -> &'static str {
    match error {
        Error::Malformed(_) => {
            "Get the document again: the bytes that the NSM returned, raw, in base64 or in hexadecimal."
        }
        Error::Untrusted(Untrusted::Root) => {
            "Documents of enclaves chain to AWS's root; for a PKI of your own use --root."
        }
        Error::Untrusted(Untrusted::Algorithm(_)) => {
            "Real enclaves sign with ES384; documents of an emulated NSM cannot be verified."
        }
        Error::Untrusted(_) => {
            "Do not rely on this document: no Nitro Enclave made it in this form."
        }
        Error::NotYetValid { .. } => "Check this machine's clock.",
        Error::Expired {
            part: Part::Ca(_) | Part::Leaf,
            ..
        } => {
            "Request a new document. Use --at to check an archived one at its time; that proves nothing about now."
        }
        Error::Expired { .. } => "Request a new document.",
        Error::Rejected(checks) => checks
            .iter()
            .find(|check| !check.passed)
            .map_or("", Check::advice),
    }
}

fn truncated(text: &str) -> String {
    match text.char_indices().nth(WIDTH) {
        None => text.to_owned(),
        Some((end, _)) => {
            format!(
                "{}… ({} characters)",
                text.get(..end).unwrap_or(text),
                text.chars().count()
            )
        }
    }
}
