//! Whom and what a statement is about.

use super::document::Statement;
use super::glob;

impl Statement {
    pub(super) fn covers_action(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let any = |patterns: &[String]| {
            let mut patterns = patterns.iter().map(|pattern| pattern.to_ascii_lowercase());
            patterns.any(|pattern| glob::matches(&pattern, &action))
        };
        match (&self.action, &self.not_action) {
            (Some(actions), _) => any(actions.as_slice()),
            (None, Some(actions)) => !any(actions.as_slice()),
            (None, None) => false,
        }
    }

    /// Whether it surely is about this key; about any, if it is not known.
    pub(super) fn covers_key(&self, key: Option<&str>) -> bool {
        let Some(resources) = &self.resource else {
            return false;
        };
        resources
            .as_slice()
            .iter()
            .any(|pattern| pattern == "*" || key.is_some_and(|key| glob::matches(pattern, key)))
    }

    /// Whom an Allow may let in.
    pub(super) fn allowed(&self) -> Vec<String> {
        match (&self.principal, &self.not_principal) {
            (Some(named), _) => named.principals(),
            (None, Some(_)) => vec!["*".to_owned()],
            (None, None) => vec![],
        }
    }

    /// Whether a Deny is for all of these principals. That of an account's root is for everyone in
    /// the account.
    pub(super) fn denies_all(&self, principals: &[String]) -> bool {
        let Some(named) = &self.principal else {
            return false;
        };
        let denied = named.principals();
        let is_denied = |name: &String| {
            denied.iter().any(|denied| {
                denied == "*" || denied == name || Some(denied) == root_of(name).as_ref()
            })
        };
        principals.iter().all(is_denied)
    }
}

/// The ARN of the root of a principal's account.
fn root_of(arn: &str) -> Option<String> {
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    match fields.as_slice() {
        ["arn", partition, "iam" | "sts", _, account, _] => {
            Some(format!("arn:{partition}:iam::{account}:root"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Statement {
        serde_json::from_str(&format!("{{\"Effect\": \"Deny\", {text}}}")).unwrap()
    }

    #[test]
    fn actions_are_patterns_in_any_case() {
        for (text, covered) in [
            (r#""Action": "kms:Decrypt""#, true),
            (r#""Action": ["kms:Encrypt", "KMS:DE*"]"#, true),
            (r#""Action": "*""#, true),
            (r#""NotAction": "kms:Encrypt""#, true),
            (r#""Action": "kms:Encrypt""#, false),
            (r#""NotAction": "kms:De*""#, false),
            (r#""Resource": "*""#, false),
        ] {
            let found = statement(text).covers_action("kms:Decrypt");
            assert_eq!(found, covered, "{text}");
        }
    }

    #[test]
    fn a_deny_counts_only_if_it_is_surely_for_all() {
        let role = "arn:aws:iam::111122223333:role/a".to_owned();
        let everyone = "*".to_owned();
        for (text, denied) in [
            (r#""Principal": "*""#, (true, true)),
            (r#""Principal": {"AWS": "*"}"#, (true, true)),
            (r#""Principal": {"AWS": "111122223333"}"#, (true, false)),
            (
                r#""Principal": {"AWS": ["arn:aws:iam::111122223333:role/a"]}"#,
                (true, false),
            ),
            (r#""Principal": {"AWS": "444455556666"}"#, (false, false)),
            (r#""NotPrincipal": {"AWS": "444455556666"}"#, (false, false)),
        ] {
            let statement = statement(text);
            let found = (
                statement.denies_all(std::slice::from_ref(&role)),
                statement.denies_all(std::slice::from_ref(&everyone)),
            );
            assert_eq!(found, denied, "{text}");
        }
    }

    #[test]
    fn a_resource_other_than_the_key_does_not_count() {
        let key = "arn:aws:kms:us-east-1:111122223333:key/k";
        let resource = |text: &str| statement(&format!("\"Resource\": \"{text}\""));
        assert!(resource("*").covers_key(None));
        assert!(!resource(key).covers_key(None), "it may be another");
        assert!(resource(key).covers_key(Some(key)));
        assert!(!resource("arn:aws:kms:*:*:key/j").covers_key(Some(key)));
        assert!(!statement(r#""Action": "*""#).covers_key(Some(key)));
    }
}
