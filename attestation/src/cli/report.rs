//! A verdict for people and for programs.

use attestation::{Check, Error, Part, Time, Untrusted, Verified};
use serde_json::{Map, Value, json};

/// How long a value may be on a line of the table before it is cut. In characters.
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
    /// `None` if an earlier failure left it open.
    holds: Option<bool>,
    expected: String,
    found: String,
    advice: &'static str,
}

impl<'v> Report<'v> {
    pub(super) fn new(
        verdict: &'v Result<Verified, Error>,
        at: Time,
        cautions: &'v [String],
    ) -> Report<'v> {
        let mut cautions: Vec<&str> = cautions.iter().map(String::as_str).collect();
        if verdict.as_ref().is_ok_and(|verified| verified.debug) {
            cautions.push("the enclave runs in debug mode: its parent reads its memory");
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
                "nonce": hex(&verified.nonce),
            });
            report.insert("document".to_owned(), document);
        }
        format!("{:#}", Value::Object(report))
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for Row {
            name,
            holds,
            expected,
            found,
            advice,
        } in self.rows()
        {
            let (expected, found) = (cut(&expected), cut(&found));
            text += &match holds {
                None => format!("{name:<14} -       not checked\n"),
                Some(true) => format!("{name:<14} ok      {found}\n"),
                Some(false) => format!(
                    "{name:<14} FAILED  expected  {expected}\n{0:<23}found     {found}\n{0:<23}{advice}\n",
                    ""
                ),
            };
        }
        let reason = match self.verdict {
            Ok(verified) => format!("{}, made {}", verified.module_id, verified.timestamp),
            Err(Error::Rejected(checks)) => {
                let failed = checks
                    .iter()
                    .filter(|check| !check.passed)
                    .map(|check| check.subject.to_string());
                format!(
                    "genuine, but not what the policy asks for: {}",
                    failed.collect::<Vec<_>>().join(", ")
                )
            }
            Err(error) => error.to_string(),
        };
        let cautions: String = self
            .cautions
            .iter()
            .map(|caution| format!("caution: {caution}\n"))
            .collect();
        format!(
            "{text}\n{}: {reason}\n{cautions}",
            self.word().to_uppercase()
        )
    }

    /// Format, origin and time come before the policy; the first that fails leaves the rest open.
    fn rows(&self) -> Vec<Row> {
        let stage = match self.verdict {
            Ok(_) | Err(Error::Rejected(_)) => 3,
            Err(Error::NotYetValid { .. } | Error::Expired { .. }) => 2,
            Err(Error::Untrusted(_)) => 1,
            Err(Error::Malformed(_)) => 0,
        };
        let found = self
            .verdict
            .as_ref()
            .err()
            .map(Error::to_string)
            .unwrap_or_default();
        let time = format!("valid at {}", self.at);
        let stages = [
            ("format", "an attestation document", "COSE_Sign1 with ES384"),
            (
                "origin",
                "signed by an enclave, below the trusted root",
                "signed by an enclave, below the trusted root",
            ),
            ("time", time.as_str(), time.as_str()),
        ];
        let mut rows: Vec<Row> = (0..)
            .zip(stages)
            .map(|(index, (name, expected, passed))| Row {
                name: name.to_owned(),
                holds: (index <= stage).then_some(index < stage),
                expected: expected.to_owned(),
                found: if index < stage {
                    passed.to_owned()
                } else {
                    found.clone()
                },
                advice: self.verdict.as_ref().err().map(advice).unwrap_or_default(),
            })
            .collect();
        rows.extend(self.checks().iter().map(|check| Row {
            name: check.subject.to_string(),
            holds: Some(check.passed),
            expected: check.expected.clone(),
            found: check.found.clone(),
            advice: check.advice(),
        }));
        if stage < 3 {
            let open = String::new;
            rows.push(Row {
                name: "policy".to_owned(),
                holds: None,
                expected: open(),
                found: open(),
                advice: "",
            });
        }
        rows
    }
}

fn advice(error: &Error) -> &'static str {
    match error {
        Error::Malformed(_) => {
            "Get the document again: the bytes that the NSM gave out, in base64, or in hexadecimal digits."
        }
        Error::Untrusted(Untrusted::Root) => {
            "Only AWS's root vouches for enclaves; a PKI of your own needs --root."
        }
        Error::Untrusted(Untrusted::Algorithm(_)) => {
            "Real enclaves sign with ES384; documents of a sandbox cannot be verified."
        }
        Error::Untrusted(_) => "No Nitro Enclave made this document as it is: do not rely on it.",
        Error::NotYetValid { .. } => "Check this machine's clock.",
        Error::Expired {
            part: Part::Ca(_) | Part::Leaf,
            ..
        } => {
            "Ask for a new document. An archived one was valid at its time (--at), which proves nothing about now."
        }
        Error::Expired { .. } => "Ask for a new document.",
        Error::Rejected(checks) => checks
            .iter()
            .find(|check| !check.passed)
            .map_or("", Check::advice),
    }
}

fn cut(text: &str) -> String {
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
