//! Conditions of a statement against a request that is only partly known.

use super::document::{OneOrMany, Value};
use super::glob;
use std::collections::BTreeMap;

/// What a request has under a condition key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// Nothing.
    Absent,
    /// This value.
    Is(String),
    /// The value that suits the attacker.
    Suitable,
    /// Nothing can be said: the key is about who asks, from where, and when.
    Unknown,
}

/// Whether all conditions hold; `None` if that depends on what is not known.
pub(super) fn hold(
    conditions: &BTreeMap<String, BTreeMap<String, OneOrMany<Value>>>,
    fact: &dyn Fn(&str) -> Fact,
) -> Option<bool> {
    let each = conditions.iter().flat_map(|(operator, keys)| {
        keys.iter().map(move |(key, values)| {
            let texts: Vec<String> = values.as_slice().iter().map(Value::to_string).collect();
            // Names of condition keys are not case-sensitive (IAM user guide, "Condition").
            one(operator, &fact(&key.to_ascii_lowercase()), &texts)
        })
    });
    let each: Vec<Option<bool>> = each.collect();
    if each.contains(&Some(false)) {
        Some(false)
    } else if each.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn one(operator: &str, fact: &Fact, values: &[String]) -> Option<bool> {
    let (set, operator) = match operator.split_once(':') {
        Some((set, operator)) => (Some(set.to_ascii_lowercase()), operator),
        None => (None, operator),
    };
    let operator = operator.to_ascii_lowercase();
    let (operator, if_exists) = match operator.strip_suffix("ifexists") {
        Some(operator) => (operator, true),
        None => (operator.as_str(), false),
    };
    // A policy variable stands for something that only the request knows.
    if values.iter().any(|value| value.contains("${")) {
        return None;
    }
    if operator == "null" {
        return null(fact, values);
    }
    let (same, negated) = comparison(operator)?;
    let found = match fact {
        Fact::Unknown | Fact::Suitable => return None,
        Fact::Absent if if_exists => return Some(true),
        // IAM user guide, "Set operators for multivalued context keys": for all of none is true.
        Fact::Absent => {
            return match set.as_deref() {
                Some("forallvalues") => Some(true),
                Some("foranyvalue") => Some(false),
                _ => Some(negated),
            };
        }
        Fact::Is(found) => found,
    };
    Some(values.iter().any(|value| same(value, found)) != negated)
}

fn null(fact: &Fact, values: &[String]) -> Option<bool> {
    let absent = match fact {
        Fact::Absent => true,
        Fact::Is(_) | Fact::Suitable => false,
        Fact::Unknown => return None,
    };
    Some(values.iter().any(|value| *value == absent.to_string()))
}

type Same = fn(&str, &str) -> bool;

/// How the operator compares, and whether it negates. `None` for operators of other types.
fn comparison(operator: &str) -> Option<(Same, bool)> {
    let equal: Same = |a, b| a == b;
    Some(match operator {
        "stringequals" => (equal, false),
        "stringnotequals" => (equal, true),
        "stringequalsignorecase" => (str::eq_ignore_ascii_case, false),
        "stringnotequalsignorecase" => (str::eq_ignore_ascii_case, true),
        "stringlike" => (glob::matches, false),
        "stringnotlike" => (glob::matches, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(text: &str) -> Fact {
        Fact::Is(text.to_owned())
    }

    #[test]
    fn operators_hold_as_iam_says() {
        for (operator, value, fact, holds) in [
            ("StringEquals", "a", is("a"), Some(true)),
            ("StringEquals", "a", is("A"), Some(false)),
            ("StringEquals", "a", Fact::Absent, Some(false)),
            ("StringEqualsIgnoreCase", "a", is("A"), Some(true)),
            ("StringEqualsIfExists", "a", Fact::Absent, Some(true)),
            ("StringEqualsIfExists", "a", is("b"), Some(false)),
            ("StringNotEquals", "a", is("a"), Some(false)),
            ("StringNotEquals", "a", Fact::Absent, Some(true)),
            ("StringNotEqualsIgnoreCase", "a", is("A"), Some(false)),
            ("StringNotEqualsIfExists", "a", Fact::Absent, Some(true)),
            ("StringLike", "a*", is("abc"), Some(true)),
            ("StringNotLike", "a*", is("abc"), Some(false)),
            ("StringNotLike", "a*", Fact::Absent, Some(true)),
            ("ForAllValues:StringEquals", "a", Fact::Absent, Some(true)),
            (
                "ForAnyValue:StringNotEquals",
                "a",
                Fact::Absent,
                Some(false),
            ),
            ("ForAnyValue:StringEquals", "a", is("a"), Some(true)),
            ("Null", "true", Fact::Absent, Some(true)),
            ("Null", "false", Fact::Absent, Some(false)),
            ("Null", "false", Fact::Suitable, Some(true)),
            ("StringEquals", "a", Fact::Suitable, None),
            ("StringEquals", "${aws:username}", is("a"), None),
            ("Null", "true", Fact::Unknown, None),
            ("NumericEquals", "1", is("1"), None),
        ] {
            let found = one(operator, &fact, &[value.to_owned()]);
            assert_eq!(found, holds, "{operator} {value} {fact:?}");
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let conditions = |text: &str| serde_json::from_str(text).unwrap();
        let fact = |key: &str| match key {
            "kms:a" => is("1"),
            "kms:b" => Fact::Absent,
            _ => Fact::Unknown,
        };
        for (text, holds) in [
            (r#"{}"#, Some(true)),
            (r#"{"StringEquals": {"KMS:A": ["0", "1"]}}"#, Some(true)),
            (
                r#"{"StringEquals": {"kms:a": "1"}, "Null": {"kms:b": true}}"#,
                Some(true),
            ),
            (
                r#"{"StringEquals": {"kms:a": "1", "kms:b": "1"}}"#,
                Some(false),
            ),
            (r#"{"StringEquals": {"kms:a": "1", "aws:x": "1"}}"#, None),
            (
                r#"{"StringEquals": {"kms:a": "0", "aws:x": "1"}}"#,
                Some(false),
            ),
        ] {
            assert_eq!(hold(&conditions(text), &fact), holds, "{text}");
        }
    }
}
