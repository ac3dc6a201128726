//! Key policies, as far as this fake needs them: Allow and Deny, actions, string conditions (IAM
//! user guide, "Policy evaluation logic").

use super::document::Attested;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct Policy {
    statements: Vec<Value>,
}

/// Condition keys and their values in one request.
pub(super) struct Facts(BTreeMap<String, String>);

impl Facts {
    pub(super) fn new(input: &Value, document: Option<&Attested>) -> Facts {
        let mut facts = BTreeMap::new();
        for (name, value) in input["EncryptionContext"].as_object().into_iter().flatten() {
            facts.insert(
                format!("kms:EncryptionContext:{name}"),
                value.as_str().unwrap_or_default().to_owned(),
            );
        }
        for (index, pcr) in document
            .into_iter()
            .flat_map(|document| document.pcrs.iter())
        {
            facts.insert(
                format!("kms:RecipientAttestation:PCR{index}"),
                pcr.to_string(),
            );
            if index == 0 {
                facts.insert(
                    "kms:RecipientAttestation:ImageSha384".to_owned(),
                    pcr.to_string(),
                );
            }
        }
        Facts(facts)
    }
}

fn one_or_many(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    }
}

impl Policy {
    pub(super) fn parse(text: &str) -> Policy {
        let policy: Value = serde_json::from_str(text).unwrap();
        Policy {
            statements: policy["Statement"].as_array().unwrap().clone(),
        }
    }

    pub(super) fn allows(&self, action: &str, facts: &Facts) -> bool {
        let matching = |effect: &str| {
            self.statements.iter().any(|statement| {
                statement["Effect"] == effect
                    && one_or_many(&statement["Action"])
                        .iter()
                        .any(|known| *known == action || *known == "kms:*")
                    && conditions_hold(&statement["Condition"], facts)
            })
        };
        matching("Allow") && !matching("Deny")
    }
}

fn conditions_hold(conditions: &Value, facts: &Facts) -> bool {
    conditions
        .as_object()
        .into_iter()
        .flatten()
        .all(|(operator, pairs)| {
            pairs.as_object().unwrap().iter().all(|(key, expected)| {
                let found = facts.0.get(key);
                let equal = |same: fn(&str, &str) -> bool| {
                    found.is_some_and(|found| {
                        one_or_many(expected)
                            .iter()
                            .any(|expected| same(found, expected))
                    })
                };
                match operator.as_str() {
                    "StringEquals" => equal(|a, b| a == b),
                    "StringEqualsIgnoreCase" => equal(str::eq_ignore_ascii_case),
                    "StringNotEquals" => !equal(|a, b| a == b),
                    "Null" => found.is_none() == (one_or_many(expected) == ["true"]),
                    other => panic!("this fake does not know {other}"),
                }
            })
        })
}
