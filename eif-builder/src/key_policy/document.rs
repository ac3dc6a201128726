//! A key policy as IAM writes it (IAM user guide, "IAM JSON policy element reference").

use super::KeyPolicyError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A key policy. Displayed as JSON with line breaks, as KMS takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KeyPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "Statement")]
    statements: OneOrMany<Statement>,
}

/// A statement of a key policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Statement {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sid: Option<String>,
    pub(super) effect: Effect,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) principal: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_principal: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<OneOrMany<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_action: Option<OneOrMany<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<OneOrMany<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_resource: Option<OneOrMany<String>>,
    /// Operator, condition key, values: all must hold, and of the values one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) condition: BTreeMap<String, BTreeMap<String, OneOrMany<Value>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// `"*"`, or principals by their type: AWS, Service, Federated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Named {
    Text(String),
    ByType(BTreeMap<String, OneOrMany<String>>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// A value of a condition. `true` and `"true"` mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Number(serde_json::Number),
}

impl<T> OneOrMany<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

impl<T> From<Vec<T>> for OneOrMany<T> {
    fn from(mut many: Vec<T>) -> OneOrMany<T> {
        match (many.pop(), many.is_empty()) {
            (Some(one), true) => OneOrMany::One(one),
            (last, _) => {
                many.extend(last);
                OneOrMany::Many(many)
            }
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Named {
    /// `*`, ARNs, and account ids as the ARN of the account's root.
    pub(super) fn principals(&self) -> Vec<String> {
        match self {
            Named::Text(text) => vec![principal(text)],
            Named::ByType(types) => types
                .values()
                .flat_map(|names| names.as_slice().iter().map(|name| principal(name)))
                .collect(),
        }
    }
}

fn principal(text: &str) -> String {
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        format!("arn:aws:iam::{text}:root")
    } else {
        text.to_owned()
    }
}

impl KeyPolicy {
    /// Reads a policy as KMS returns it (`GetKeyPolicy`).
    ///
    /// # Errors
    /// The text is not JSON, or has an element that policies do not have.
    pub fn parse(text: &str) -> Result<KeyPolicy, KeyPolicyError> {
        Ok(serde_json::from_str(text)?)
    }

    pub(super) fn of(id: String, statements: Vec<Statement>) -> KeyPolicy {
        KeyPolicy {
            version: Some("2012-10-17".to_owned()),
            id: Some(id),
            statements: OneOrMany::Many(statements),
        }
    }

    /// Its statements, in order.
    pub fn statements(&self) -> &[Statement] {
        self.statements.as_slice()
    }
}

impl std::fmt::Display for KeyPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = serde_json::to_string_pretty(self)
            .expect("strings, lists and maps with text keys always serialise");
        f.write_str(&text)
    }
}
