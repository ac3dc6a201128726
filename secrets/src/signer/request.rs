//! What an enclave's request to KMS must be. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use wire::kms::{self, MAX_BODY, SignRefusal};
use wire::sealed::Header;
use wire::spec::MeasuredConfig;

/// The only algorithm of a recipient (KMS API reference, RecipientInfo).
const ALGORITHM: &str = "RSAES_OAEP_SHA_256";

/// The request that opens one sealed config.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) region: String,
    /// The header `host`.
    pub(super) host: String,
    key: String,
    context: BTreeMap<String, String>,
    /// Base64 of the data key.
    ciphertext: String,
}

impl Expected {
    pub(super) fn new(config: &MeasuredConfig, header: &Header) -> Expected {
        Expected {
            region: config.region.clone(),
            host: kms::host(&config.endpoint),
            key: config.kms_key.clone(),
            context: header.encryption_context(),
            ciphertext: STANDARD.encode(&header.encrypted_key),
        }
    }

    /// Whether a body asks for this and nothing else. It is read strictly: what KMS might read in
    /// another way than this does is refused.
    pub(super) fn check(&self, body: &[u8]) -> Result<(), SignRefusal> {
        if body.len() > MAX_BODY {
            return Err(SignRefusal::TooLong);
        }
        let Body {
            key_id,
            encryption_context,
            ciphertext_blob,
            recipient:
                Recipient {
                    key_encryption_algorithm,
                    attestation_document,
                },
        } = oci::json::parse(body).map_err(|_| SignRefusal::Malformed)?;
        if key_id != self.key {
            return Err(SignRefusal::Key);
        }
        if encryption_context != self.context {
            return Err(SignRefusal::Context);
        }
        if ciphertext_blob != self.ciphertext {
            return Err(SignRefusal::Ciphertext);
        }
        let is_document = STANDARD
            .decode(attestation_document)
            .is_ok_and(|document| !document.is_empty());
        if key_encryption_algorithm != ALGORITHM || !is_document {
            return Err(SignRefusal::Recipient);
        }
        Ok(())
    }
}

/// The input of `Decrypt`, as far as it is signed: no `GrantTokens`, no `DryRun`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Body {
    key_id: String,
    encryption_context: BTreeMap<String, String>,
    ciphertext_blob: String,
    recipient: Recipient,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Recipient {
    key_encryption_algorithm: String,
    attestation_document: String,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};
    use wire::spec::{ImageDefaults, Spec};

    pub(crate) const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/k";

    pub(crate) fn config() -> MeasuredConfig {
        let text = format!(
            "name = 'orders'\n[network]\negress = ['kms.eu-west-1.amazonaws.com:443']\n\
             [config]\nkms_key = '{KEY}'\nvariables = ['TOKEN']\ncontext = {{ app = 'orders' }}"
        );
        let spec = Spec::parse(&text).unwrap();
        spec.resolve(ImageDefaults::any()).unwrap().config.unwrap()
    }

    pub(crate) fn header() -> Header {
        Header {
            name: "orders".to_owned(),
            version: 7,
            kms_key: KEY.to_owned(),
            context: [("app".to_owned(), "orders".to_owned())].into(),
            encrypted_key: vec![9; 32],
            nonce: [0; 12],
            commitment: [0; 32],
            sealer: None,
        }
    }

    pub(crate) fn body() -> Value {
        json!({
            "KeyId": KEY,
            "EncryptionContext": { "name": "orders", "version": "7", "app": "orders" },
            "CiphertextBlob": STANDARD.encode([9; 32]),
            "Recipient": {
                "KeyEncryptionAlgorithm": ALGORITHM,
                "AttestationDocument": STANDARD.encode("a document"),
            },
        })
    }

    fn check(body: &str) -> Result<(), SignRefusal> {
        Expected::new(&config(), &header()).check(body.as_bytes())
    }

    /// The body with one change, at a JSON pointer.
    fn changed(pointer: &str, value: Value) -> String {
        let mut body = body();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string()
    }

    #[test]
    fn the_request_that_opens_the_config_is_signed() {
        assert_eq!(check(&body().to_string()), Ok(()));
    }

    #[test]
    fn another_key_context_ciphertext_or_recipient_is_refused() {
        use SignRefusal::{Ciphertext, Context, Key, Recipient};
        let context = "/EncryptionContext";
        let algorithm = "/Recipient/KeyEncryptionAlgorithm";
        let document = "/Recipient/AttestationDocument";
        for (pointer, value, expected) in [
            (
                "/KeyId",
                json!("arn:aws:kms:eu-west-1:111122223333:key/other"),
                Key,
            ),
            ("/KeyId", json!("k"), Key),
            (
                context,
                json!({ "name": "orders", "version": "7" }),
                Context,
            ),
            (context, json!({}), Context),
            ("/EncryptionContext/version", json!("8"), Context),
            ("/EncryptionContext/name", json!("billing"), Context),
            (
                "/CiphertextBlob",
                json!(STANDARD.encode([8; 32])),
                Ciphertext,
            ),
            ("/CiphertextBlob", json!(""), Ciphertext),
            (algorithm, json!("RSAES_OAEP_SHA_1"), Recipient),
            (document, json!(""), Recipient),
            (document, json!("?"), Recipient),
        ] {
            assert_eq!(
                check(&changed(pointer, value.clone())),
                Err(expected),
                "{pointer} {value}"
            );
        }
    }

    #[test]
    fn what_has_more_or_less_than_the_request_is_refused() {
        let with = |name: &str, value: Value| {
            let mut body = body();
            body[name] = value;
            body.to_string()
        };
        let without = |name: &str| {
            let mut body = body();
            body.as_object_mut().unwrap().remove(name);
            body.to_string()
        };
        let text = body().to_string();
        let twice = |entry: &str, at: &str| text.replacen(at, &format!("{at}{entry},"), 1);
        for body in [
            with("GrantTokens", json!([])),
            with("DryRun", json!(true)),
            with("EncryptionAlgorithm", json!("SYMMETRIC_DEFAULT")),
            with("keyId", json!(KEY)),
            without("KeyId"),
            without("EncryptionContext"),
            without("CiphertextBlob"),
            without("Recipient"),
            changed("/Recipient", Value::Null),
            changed("/Recipient", json!({})),
            changed("/EncryptionContext/app", json!(1)),
            twice(r#""KeyId":"x""#, "{"),
            twice(r#""name":"x""#, r#""EncryptionContext":{"#),
            twice(r#""AttestationDocument":"x""#, r#""Recipient":{"#),
            format!("{text}{text}"),
            format!("[{text}]"),
            String::new(),
        ] {
            assert_eq!(check(&body), Err(SignRefusal::Malformed), "{body}");
        }
    }

    /// Whatever one byte is changed to: a body that is still signed says the same to another parser,
    /// but for the document, which KMS judges.
    #[test]
    fn no_single_byte_makes_it_another_request() {
        let without_document = |text: &[u8]| {
            let mut body: Value = serde_json::from_slice(text).unwrap();
            let recipient = body["Recipient"].as_object_mut().unwrap();
            recipient.remove("AttestationDocument").unwrap();
            body
        };
        let expected = Expected::new(&config(), &header());
        let good = body().to_string().into_bytes();
        let meant = without_document(&good);
        let mut signed = 0;
        for index in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut body = good.clone();
                body[index] = byte;
                if expected.check(&body).is_ok() {
                    signed += 1;
                    assert_eq!(without_document(&body), meant, "{index} {byte}");
                }
            }
        }
        assert!(
            signed > good.len(),
            "each byte as it is, and other documents"
        );
    }

    #[test]
    fn a_body_has_a_limit() {
        let text = body().to_string();
        let padded = |len: usize| format!("{text}{}", " ".repeat(len - text.len()));
        assert_eq!(check(&padded(MAX_BODY)), Ok(()));
        assert_eq!(check(&padded(MAX_BODY + 1)), Err(SignRefusal::TooLong));
    }
}
