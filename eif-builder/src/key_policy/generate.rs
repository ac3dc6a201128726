//! Writes the policy of a key that unseals the configs of one spec.

use super::KeyPolicyError;
use super::document::{Effect, KeyPolicy, Named, OneOrMany, Statement, Value};
use attestation::{Measurements, Pcr};
use std::collections::{BTreeMap, BTreeSet};
use wire::spec::{ImageDefaults, Spec};

/// What administers a key and reads nothing with it. Listed one by one: a wildcard would cover what
/// KMS adds.
const ADMINISTRATION: [&str; 22] = [
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
];

/// What gets plaintext out of a key, or the key to where another policy holds, and never takes an
/// attestation document.
const WAYS_AROUND: [&str; 5] = [
    "kms:CreateGrant",
    "kms:DeriveSharedSecret",
    "kms:ImportKeyMaterial",
    "kms:ReEncryptFrom",
    "kms:ReplicateKey",
];

/// ARNs of IAM roles, users or accounts. An empty list stands for the key's account: its IAM
/// policies then decide.
#[derive(Debug, Clone, Default)]
pub struct Principals {
    /// Who changes the policy, and so can always open the key.
    pub admins: Vec<String>,
    /// Who seals configs.
    pub sealers: Vec<String>,
    /// The roles of parent instances, with whose credentials enclaves call KMS.
    pub hosts: Vec<String>,
}

/// The one key and what its configs are sealed with, from a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingKey {
    pub(super) key: String,
    /// Names and values of the encryption context that each request carries; `name` among them.
    pub(super) context: BTreeMap<String, String>,
}

impl SealingKey {
    /// # Errors
    /// The spec is invalid, or has no `[config]`.
    pub fn of(spec: &Spec) -> Result<SealingKey, KeyPolicyError> {
        let spec = spec.resolve(ImageDefaults::any())?;
        let config = spec.config.ok_or(KeyPolicyError::NoConfig)?;
        let mut context = config.context;
        context.insert("name".to_owned(), spec.name.unwrap_or_default());
        Ok(SealingKey {
            key: config.kms_key,
            context,
        })
    }

    fn check(&self) -> Result<(), KeyPolicyError> {
        if self.key.contains(":key/mrk-") {
            return Err(KeyPolicyError::MultiRegion(self.key.clone()));
        }
        Ok(())
    }

    fn account(&self) -> String {
        let field = |index| self.key.split(':').nth(index).unwrap_or_default();
        format!("arn:{}:iam::{}:root", field(1), field(4))
    }

    fn name(&self) -> &str {
        self.context.get("name").map_or("", String::as_str)
    }
}

impl KeyPolicy {
    /// The whole policy of the key of `subject`: administration without use, sealing, opening for
    /// each of `measurements`, and a Deny for everyone who comes by another way. Several
    /// measurements are for a rollover.
    ///
    /// Each Deny has one condition key. Keys in one statement would have to differ all at once.
    /// A negated condition also holds if the key is missing, as in a request without a document.
    ///
    /// # Errors
    /// The key is a multi-Region key, there are no measurements or zero ones, or a principal is not
    /// the ARN of one.
    pub fn generate(
        subject: &SealingKey,
        measurements: &[Measurements],
        principals: &Principals,
    ) -> Result<KeyPolicy, KeyPolicyError> {
        subject.check()?;
        let registers = registers(measurements)?;
        let who = |arns: &[String]| named(arns, &subject.account());
        let mut context = BTreeMap::new();
        for (name, value) in &subject.context {
            context.insert(context_key(name), vec![value.clone()]);
        }
        let mut statements = vec![
            allow("AdministerOnly", who(&principals.admins)?, &ADMINISTRATION),
            Statement {
                condition: condition("StringEquals", context.clone()),
                ..allow("Seal", who(&principals.sealers)?, &["kms:GenerateDataKey"])
            },
            Statement {
                condition: condition("StringEquals", context.clone())
                    .into_iter()
                    .chain(condition("StringEqualsIgnoreCase", registers.clone()))
                    .collect(),
                ..allow(
                    "OpenWhenAttested",
                    who(&principals.hosts)?,
                    &["kms:Decrypt"],
                )
            },
            deny("DenyWaysAround", &WAYS_AROUND),
        ];
        statements.extend(registers.into_iter().map(|(key, values)| {
            let register = key.rsplit(':').next().unwrap_or_default();
            deny_unless(register, "StringNotEqualsIgnoreCase", &key, values)
        }));
        statements.extend((1..).zip(context).map(|(number, (key, values))| {
            deny_unless(&format!("Context{number}"), "StringNotEquals", &key, values)
        }));
        Ok(KeyPolicy::of(
            format!("redoubt-{}", subject.name()),
            statements,
        ))
    }
}

fn context_key(name: &str) -> String {
    format!("kms:EncryptionContext:{name}")
}

/// The condition keys of PCR0, 1 and 2 and the values that they may have.
fn registers(
    measurements: &[Measurements],
) -> Result<BTreeMap<String, Vec<String>>, KeyPolicyError> {
    if measurements.is_empty() {
        return Err(KeyPolicyError::NoMeasurements);
    }
    let keys = ["ImageSha384", "PCR1", "PCR2"];
    let mut registers = BTreeMap::<String, BTreeSet<Pcr>>::new();
    for measured in measurements {
        let values = [measured.pcr0, measured.pcr1, measured.pcr2];
        for ((index, key), pcr) in (0..).zip(keys).zip(values) {
            if pcr == Pcr::ZERO {
                return Err(KeyPolicyError::ZeroMeasurement(index));
            }
            let key = format!("kms:RecipientAttestation:{key}");
            registers.entry(key).or_default().insert(pcr);
        }
    }
    let texts = |pcrs: BTreeSet<Pcr>| pcrs.iter().map(Pcr::to_string).collect();
    Ok(registers
        .into_iter()
        .map(|(key, pcrs)| (key, texts(pcrs)))
        .collect())
}

fn condition(
    operator: &str,
    keys: BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, BTreeMap<String, OneOrMany<Value>>> {
    let value = |values: Vec<String>| {
        let values: Vec<Value> = values.into_iter().map(Value::Text).collect();
        OneOrMany::from(values)
    };
    let keys = keys.into_iter().map(|(key, values)| (key, value(values)));
    [(operator.to_owned(), keys.collect())].into()
}

fn named(arns: &[String], account: &str) -> Result<Named, KeyPolicyError> {
    let is_principal = |arn: &&String| {
        let fields: Vec<&str> = arn.splitn(6, ':').collect();
        matches!(fields.as_slice(), ["arn", _, "iam", "", account, name]
            if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty())
    };
    if let Some(bad) = arns.iter().find(|arn| !is_principal(arn)) {
        return Err(KeyPolicyError::Principal(bad.clone()));
    }
    let names = if arns.is_empty() {
        vec![account.to_owned()]
    } else {
        arns.to_vec()
    };
    Ok(Named::ByType([("AWS".to_owned(), names.into())].into()))
}

fn allow(sid: &str, principal: Named, actions: &[&str]) -> Statement {
    statement(sid, Effect::Allow, principal, actions)
}

fn deny(sid: &str, actions: &[&str]) -> Statement {
    statement(sid, Effect::Deny, Named::Text("*".to_owned()), actions)
}

fn deny_unless(what: &str, operator: &str, key: &str, values: Vec<String>) -> Statement {
    Statement {
        condition: condition(operator, [(key.to_owned(), values)].into()),
        ..deny(&format!("DenyUnless{what}"), &["kms:Decrypt"])
    }
}

fn statement(sid: &str, effect: Effect, principal: Named, actions: &[&str]) -> Statement {
    let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
    Statement {
        sid: Some(sid.to_owned()),
        effect,
        principal: Some(principal),
        not_principal: None,
        action: Some(actions.into()),
        not_action: None,
        resource: Some(OneOrMany::One("*".to_owned())),
        not_resource: None,
        condition: BTreeMap::new(),
    }
}
