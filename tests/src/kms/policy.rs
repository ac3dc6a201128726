//! Key policies, judged as AWS does (IAM user guide, "Policy evaluation logic"): an explicit Deny
//! beats every Allow and every grant, and what nothing allows is refused. A statement for an
//! account is for all callers of the account: this fake has no IAM, and reads it as if IAM allowed
//! everything.

use super::document::Attested;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct Policy {
    statements: Vec<Value>,
}

/// Who asks, and the condition keys of the request, in lower case.
pub(super) struct Facts {
    caller: String,
    key: String,
    values: BTreeMap<String, String>,
}

impl Facts {
    pub(super) fn new(
        caller: &str,
        key: &str,
        input: &Value,
        document: Option<&Attested>,
    ) -> Facts {
        let mut values = BTreeMap::new();
        let mut insert = |key: String, value: &str| {
            values.insert(key.to_ascii_lowercase(), value.to_owned());
        };
        for (name, value) in input["EncryptionContext"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            insert(format!("kms:EncryptionContext:{name}"), value);
        }
        for (index, pcr) in document.into_iter().flat_map(|found| found.pcrs.iter()) {
            let pcr = pcr.to_string();
            insert(format!("kms:RecipientAttestation:PCR{index}"), &pcr);
            if index == 0 {
                insert("kms:RecipientAttestation:ImageSha384".to_owned(), &pcr);
            }
        }
        insert("aws:PrincipalArn".to_owned(), caller);
        insert("kms:CallerAccount".to_owned(), account(caller));
        Facts {
            caller: caller.to_owned(),
            key: key.to_owned(),
            values,
        }
    }
}

fn account(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap()
}

fn one_or_many(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(one_or_many).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Bool(value) => vec![value.to_string()],
        Value::Null => vec![],
        other => panic!("this fake does not know {other}"),
    }
}

/// What a policy says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    Denied,
    Allowed,
    Silent,
}

impl Policy {
    pub(super) fn parse(text: &str) -> Policy {
        let policy: Value = serde_json::from_str(text).unwrap();
        Policy {
            statements: policy["Statement"].as_array().unwrap().clone(),
        }
    }

    /// A session policy names no principal: it is about its session.
    pub(super) fn of_session(text: &str) -> Policy {
        let mut policy = Policy::parse(text);
        for statement in &mut policy.statements {
            statement["Principal"] = "*".into();
        }
        policy
    }

    pub(super) fn judge(&self, action: &str, facts: &Facts) -> Judgement {
        let matching = |effect: &str| {
            let mut statements = self.statements.iter();
            statements.any(|statement| {
                statement["Effect"] == effect
                    && names(statement, "Action", |pattern| {
                        like(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase())
                    })
                    && names(statement, "Resource", |pattern| like(pattern, &facts.key))
                    && principal_matches(statement, &facts.caller)
                    && conditions_hold(&statement["Condition"], facts)
            })
        };
        if matching("Deny") {
            Judgement::Denied
        } else if matching("Allow") {
            Judgement::Allowed
        } else {
            Judgement::Silent
        }
    }
}

/// Whether the element, or else its `Not…`, is about what `is` knows.
fn names(statement: &Value, element: &str, is: impl Fn(&str) -> bool) -> bool {
    let any = |value: &Value| one_or_many(value).iter().any(|pattern| is(pattern));
    match (
        statement.get(element),
        statement.get(format!("Not{element}")),
    ) {
        (Some(value), None) => any(value),
        (None, Some(value)) => !any(value),
        _ => panic!("a statement has one of {element} and Not{element}: {statement}"),
    }
}

fn principal_matches(statement: &Value, caller: &str) -> bool {
    let is = |named: &str| {
        let root = format!("arn:aws:iam::{}:root", account(caller));
        named == "*" || named == caller || named == account(caller) || named == root
    };
    let any = |value: &Value| match value {
        Value::Object(types) => one_or_many(&types["AWS"]).iter().any(|named| is(named)),
        value => one_or_many(value).iter().any(|named| is(named)),
    };
    match (&statement["Principal"], &statement["NotPrincipal"]) {
        (Value::Null, Value::Null) => panic!("a statement without a principal: {statement}"),
        (Value::Null, not) => !any(not),
        (principal, _) => any(principal),
    }
}

/// Patterns of IAM: `*` and `?`.
fn like(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return text.is_empty();
    };
    let rest = &pattern[first.len_utf8()..];
    if first == '*' {
        let mut ends = text.char_indices().map(|(index, _)| index);
        return ends.any(|index| like(rest, &text[index..])) || like(rest, "");
    }
    let mut characters = text.chars();
    let found = characters.next();
    found.is_some_and(|found| first == '?' || first == found) && like(rest, characters.as_str())
}

fn conditions_hold(conditions: &Value, facts: &Facts) -> bool {
    let operators = conditions.as_object().into_iter().flatten();
    let mut all = operators.flat_map(|(operator, pairs)| {
        let pairs = pairs.as_object().unwrap().iter();
        pairs.map(move |(key, expected)| (operator, key.to_ascii_lowercase(), expected))
    });
    all.all(|(operator, key, expected)| {
        let found = facts.values.get(&key).map(String::as_str);
        condition_holds(operator, found, &one_or_many(expected))
    })
}

/// IAM user guide, "IAM JSON policy elements: Condition operators". A negated operator holds if the
/// key is absent.
fn condition_holds(operator: &str, found: Option<&str>, expected: &[String]) -> bool {
    if operator == "Null" {
        return expected == [found.is_none().to_string()];
    }
    let (base, if_exists) = match operator.strip_suffix("IfExists") {
        Some(base) => (base, true),
        None => (operator, false),
    };
    let (set, base) = base.split_once(':').unwrap_or(("", base));
    let (same, negated): (fn(&str, &str) -> bool, bool) = match base {
        "StringEquals" => (|a, b| a == b, false),
        "StringNotEquals" => (|a, b| a == b, true),
        "StringEqualsIgnoreCase" => (str::eq_ignore_ascii_case, false),
        "StringNotEqualsIgnoreCase" => (str::eq_ignore_ascii_case, true),
        "StringLike" | "ArnLike" => (like, false),
        "StringNotLike" | "ArnNotLike" => (like, true),
        other => panic!("this fake does not know {other}"),
    };
    match (found, set) {
        (None, _) if if_exists => true,
        (None, "ForAllValues") => true,
        (None, "ForAnyValue") => false,
        (None, "") => negated,
        (Some(found), "" | "ForAllValues" | "ForAnyValue") => {
            expected.iter().any(|expected| same(expected, found)) != negated
        }
        (_, other) => panic!("this fake does not know {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CALLER: &str = "arn:aws:iam::111122223333:role/parent";

    fn judge(statements: Value) -> Judgement {
        let input = json!({ "EncryptionContext": { "name": "orders" } });
        let policy = Policy::parse(&json!({ "Statement": statements }).to_string());
        let facts = Facts::new(
            CALLER,
            "arn:aws:kms:us-east-1:111122223333:key/k",
            &input,
            None,
        );
        policy.judge("kms:Decrypt", &facts)
    }

    fn statement(effect: &str, more: Value) -> Value {
        let mut statement =
            json!({ "Effect": effect, "Principal": "*", "Action": "kms:De*", "Resource": "*" });
        let more = more.as_object().unwrap().clone();
        statement.as_object_mut().unwrap().extend(more);
        statement
    }

    #[test]
    fn an_explicit_deny_beats_an_allow_and_silence_is_no_allow() {
        let (allow, deny) = (statement("Allow", json!({})), statement("Deny", json!({})));
        assert_eq!(judge(json!([])), Judgement::Silent);
        assert_eq!(judge(json!([allow])), Judgement::Allowed);
        assert_eq!(judge(json!([deny, allow])), Judgement::Denied);
        assert_eq!(judge(json!([allow, deny])), Judgement::Denied);
    }

    #[test]
    fn principals_resources_and_actions_count() {
        for (more, holds) in [
            (json!({ "Principal": { "AWS": CALLER } }), true),
            (
                json!({ "Principal": { "AWS": ["x", "111122223333"] } }),
                true,
            ),
            (
                json!({ "Principal": { "AWS": "arn:aws:iam::111122223333:root" } }),
                true,
            ),
            (json!({ "Principal": { "AWS": "444455556666" } }), false),
            (json!({ "Resource": "arn:aws:kms:*:key/k" }), true),
            (json!({ "Resource": "arn:aws:kms:*:key/j" }), false),
            (json!({ "Action": ["kms:Encrypt", "kms:decrypt"] }), true),
            (json!({ "Action": "kms:Encrypt" }), false),
        ] {
            let found = judge(json!([statement("Allow", more.clone())]));
            assert_eq!(found == Judgement::Allowed, holds, "{more}");
        }
    }

    #[test]
    fn negated_operators_hold_if_the_key_is_absent() {
        const PCR0: &str = "kms:RecipientAttestation:ImageSha384";
        for (operator, key, holds) in [
            ("StringEquals", PCR0, false),
            ("StringNotEquals", PCR0, true),
            ("StringNotEqualsIgnoreCase", PCR0, true),
            ("StringNotLike", PCR0, true),
            ("StringEqualsIfExists", PCR0, true),
            ("ForAllValues:StringEquals", PCR0, true),
            ("ForAnyValue:StringNotEquals", PCR0, false),
            ("StringEquals", "KMS:EncryptionContext:Name", true),
            ("StringNotEquals", "kms:EncryptionContext:name", false),
            ("StringLike", "aws:PrincipalArn", false),
        ] {
            let condition = json!({ "Condition": { operator: { key: "orders" } } });
            let found = judge(json!([statement("Deny", condition)]));
            assert_eq!(found == Judgement::Denied, holds, "{operator} {key}");
        }
        let null = |expected| json!({ "Condition": { "Null": { PCR0: expected } } });
        assert_eq!(
            judge(json!([statement("Deny", null("true"))])),
            Judgement::Denied
        );
        assert_eq!(
            judge(json!([statement("Deny", null("false"))])),
            Judgement::Silent
        );
    }

    #[test]
    fn patterns_are_iams() {
        for (pattern, text, holds) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a?c", "abc", true),
            ("a*", "b", false),
            ("a", "ab", false),
            ("*b", "abab", true),
        ] {
            assert_eq!(like(pattern, text), holds, "{pattern} {text}");
        }
    }
}
