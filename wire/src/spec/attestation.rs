//! `[attestation]`: which users of the workload get attestation documents, and which registers they
//! extend. Left out, none and none.

use super::error::{InvalidValue, SpecError};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// PCR16 is the sealed config's; those below are the hypervisor's (AWS, "Cryptographic attestation").
const EXTENDABLE: RangeInclusive<u8> = 17..=31;
const MAX_USERS: usize = 32;

/// `attestation` of the measured spec, and `[attestation]` as written: both are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationRules {
    /// Users of the image who may use the [socket](Self::SOCKET), by name or number; 32 at most. No
    /// others may, root included. If there are none, there is no socket.
    pub users: Vec<String>,
    /// Registers that these users may extend and lock, 17 to 31.
    pub extend: Vec<u8>,
}

impl AttestationRules {
    /// Where the workload finds the socket.
    pub const SOCKET: &'static str = "/run/redoubt/attestation.sock";

    /// Sorted and each once, so that two ways to write a set measure the same.
    pub(super) fn resolve(&self) -> AttestationRules {
        let mut rules = self.clone();
        rules.users.sort_unstable();
        rules.users.dedup();
        rules.extend.sort_unstable();
        rules.extend.dedup();
        rules
    }

    pub(super) fn is_default(&self) -> bool {
        *self == AttestationRules::default()
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let AttestationRules { users, extend } = self;
        if users.len() > MAX_USERS {
            let (count, limit) = (users.len(), MAX_USERS);
            return Err(InvalidValue::TooMany { count, limit }.of("attestation.users"));
        }
        let is_name = |user: &&String| !user.is_empty() && !user.contains([':', '\0']);
        if let Some(user) = users.iter().find(|user| !is_name(user)) {
            return Err(InvalidValue::UserName(user.clone()).of("attestation.users"));
        }
        if let Some(register) = extend.iter().find(|index| !EXTENDABLE.contains(index)) {
            return Err(InvalidValue::Register(*register).of("attestation.extend"));
        }
        if users.is_empty() && !extend.is_empty() {
            return Err(InvalidValue::UsersMissing.of("attestation.extend"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ImageDefaults, MeasuredSpec, Spec};

    fn resolve(text: &str) -> Result<MeasuredSpec, SpecError> {
        Spec::parse(&format!("[attestation]\n{text}"))?.resolve(ImageDefaults::any())
    }

    #[test]
    fn there_is_no_socket_unless_the_measured_spec_names_its_users() {
        let plain = resolve("").unwrap();
        assert_eq!(plain.attestation, AttestationRules::default());
        let json = String::from_utf8(plain.to_json()).unwrap();
        assert!(!json.contains("attestation"), "{json}");
        let ruled = resolve("users = ['web', '4711', 'web']\nextend = [18, 17, 18]").unwrap();
        let json = String::from_utf8(ruled.to_json()).unwrap();
        let measured = r#""attestation":{"users":["4711","web"],"extend":[17,18]}"#;
        assert!(json.contains(measured), "{json}");
        assert_eq!(MeasuredSpec::parse(json.as_bytes()).unwrap(), ruled);
        let forged = json.replace("[17,18]", "[16]");
        let refused = Err(InvalidValue::Register(16).of("attestation.extend"));
        assert_eq!(MeasuredSpec::parse(forged.as_bytes()), refused);
    }

    #[test]
    fn users_and_registers_are_ones_that_there_can_be() {
        let refused = |text: &str| resolve(text).unwrap_err();
        let user = |name: &str| InvalidValue::UserName(name.to_owned()).of("attestation.users");
        for name in ["", "web:web"] {
            assert_eq!(refused(&format!("users = ['{name}']")), user(name));
        }
        for register in [0, 15, 16, 32, 255] {
            let text = format!("users = ['web']\nextend = [{register}]");
            let expected = InvalidValue::Register(register).of("attestation.extend");
            assert_eq!(refused(&text), expected);
        }
        assert!(resolve("users = ['web']\nextend = [17, 31]").is_ok());
        let without = InvalidValue::UsersMissing.of("attestation.extend");
        assert_eq!(refused("extend = [17]"), without);
        let users = |count: usize| {
            let names: Vec<_> = (0..count).map(|n| n.to_string()).collect();
            resolve(&format!("users = {names:?}")).map(drop)
        };
        let limit = InvalidValue::TooMany {
            count: 33,
            limit: 32,
        };
        assert_eq!(
            (users(32), users(33)),
            (Ok(()), Err(limit.of("attestation.users")))
        );
    }
}
