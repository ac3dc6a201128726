//! Which AWS product a document comes from, as far as the document shows it.

use serde::{Deserialize, Serialize};

/// The AWS product that a document must come from. Several have documents below the same root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// A Nitro Enclave: the module id has the form `i-…-enc…`, with hexadecimal digits in both
    /// places. AWS does not specify the form; every known document of an enclave has it. A product
    /// whose module ids have the same form cannot be told apart by it, only by PCR0.
    #[default]
    Enclave,
    /// Any product whose documents have the fields of an enclave's, such as Nitro Sandboxes. The
    /// policy's registers alone decide.
    Any,
}

impl Kind {
    /// Whether a module id has the form that this kind requires.
    pub(crate) fn has_module_id(self, module_id: &str) -> bool {
        match self {
            Kind::Any => true,
            Kind::Enclave => is_enclave(module_id),
        }
    }

    /// What a module id must look like.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Kind::Any => "any",
            Kind::Enclave => "an enclave: i-…-enc…",
        }
    }
}

fn is_enclave(module_id: &str) -> bool {
    let digits = |text: &str| {
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        !text.is_empty() && text.bytes().all(is_digit)
    };
    module_id
        .strip_prefix("i-")
        .and_then(|rest| rest.split_once("-enc"))
        .is_some_and(|(instance, enclave)| digits(instance) && digits(enclave))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enclave_is_known_by_the_form_of_its_module_id() {
        for enclave in ["i-0123456789abcdef0-enc0123456789abcde", "i-1-enc1"] {
            assert!(Kind::Enclave.has_module_id(enclave), "{enclave}");
        }
        for other in [
            "",
            "i-0123456789abcdef0",
            "i-0123456789abcdef0-enc",
            "i--enc0123456789abcde",
            "i-0123456789abcdef0-sbx0123456789abcde",
            "i-0123456789abcdef0-enc0123-enc4567",
            "i-0123456789ABCDEF0-enc0123456789abcde",
            "x-i-0123456789abcdef0-enc0123456789abcde",
            "i-0123456789abcdef0-enc0123456789abcde ",
        ] {
            assert!(!Kind::Enclave.has_module_id(other), "{other}");
            assert!(Kind::Any.has_module_id(other), "{other}");
        }
    }
}
