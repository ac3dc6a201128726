//! A fake of AWS KMS, for tests and the demo: HTTPS below an authority of its own, Signature
//! Version 4 checked, key policies with conditions on attestation and encryption context enforced,
//! KMS's error shapes, both forms of its BER. Unless it is given a root it believes the documents of
//! QEMU's NSM, signed or not, which the real one never would. A green run against it says nothing about the real one.

mod cipher;
mod cms;
mod document;
mod policy;
mod sigv4;
mod sts;

use attestation::{TrustAnchor, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cipher::{encrypt, open, random};
use document::Attested;
use pki::{Server, pem, server};
use policy::{Facts, Judgement, Policy};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sigv4::{Session, Signatory};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use cms::Form;

pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// Whose credentials those are: the role of a parent instance.
pub const HOST: &str = "arn:aws:iam::111122223333:role/parent";
const MAX_BODY: usize = 1 << 20;

/// What it does to attested requests instead of answering them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mischief {
    #[default]
    None,
    /// As emulators do: the recipient is ignored.
    AnswersPlaintext,
    /// As LocalStack does: DER, version 0.
    AnswersLocalStack,
    /// The connection stays open and silent.
    Stalls,
    /// The connection closes after the request.
    Hangs,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<String, StoredKey>,
    /// For attestation documents, if they must be signed.
    verifier: Option<Verifier>,
    mischief: Mischief,
    form: Form,
    /// Actions that were answered, for tests to look at.
    seen: Vec<String>,
    /// By access key ID.
    sessions: BTreeMap<String, Session>,
    session_policies: Vec<String>,
}

struct StoredKey {
    material: [u8; 32],
    policy: Policy,
    grants: Vec<Grant>,
}

/// Without constraints: the grantee may do this, whatever is attested.
struct Grant {
    grantee: String,
    operation: String,
}

pub struct Kms {
    pub port: u16,
    authority: Vec<u8>,
    state: Arc<Mutex<State>>,
}

impl Kms {
    /// Serves `localhost` until the process ends.
    #[must_use]
    pub fn start() -> Kms {
        Kms::start_as("localhost")
    }

    /// With a certificate for another name.
    #[must_use]
    pub fn start_as(name: &str) -> Kms {
        let Server {
            authority,
            certificate,
            key,
        } = server(name);
        let chain = vec![CertificateDer::from(certificate)];
        let key = PrivateKeyDer::Pkcs8(key.into());
        let config = ServerConfig::builder_with_provider(
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (config, serving) = (Arc::new(config), state.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, state) = (config.clone(), serving.clone());
                std::thread::spawn(move || serve(stream, config, &state));
            }
        });
        Kms {
            port,
            authority,
            state,
        }
    }

    /// PEM of the authority behind its certificate.
    #[must_use]
    pub fn ca(&self) -> String {
        pem(&self.authority)
    }

    /// A new key under a policy; its ARN.
    #[must_use]
    pub fn key(&self, policy: &Value) -> String {
        let answer = create_key(
            &mut self.state.lock().unwrap(),
            &json!({ "Policy": policy.to_string() }),
        )
        .unwrap();
        answer["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }

    pub fn set_policy(&self, arn: &str, policy: &Value) {
        self.state.lock().unwrap().keys.get_mut(arn).unwrap().policy =
            Policy::parse(&policy.to_string());
    }

    /// What a principal is answered, without a connection and a signature.
    pub fn ask(&self, caller: &str, action: &str, input: &Value) -> Answer {
        perform(&mut self.state.lock().unwrap(), caller, action, input)
    }

    /// What a request with these headers, in lower case, is answered, without a connection.
    pub fn answer(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let request = Request {
            headers: headers.iter().map(owned).collect(),
            body: body.to_vec(),
        };
        answer(&request, &self.state)
    }

    /// From now on, attestation documents must be signed below this root, in DER.
    pub fn trust(&self, root: &[u8]) {
        let verifier = Verifier::new(TrustAnchor::from_der(root).unwrap());
        self.state.lock().unwrap().verifier = Some(verifier);
    }

    pub fn misbehave(&self, mischief: Mischief) {
        self.state.lock().unwrap().mischief = mischief;
    }

    pub fn answer_in(&self, form: Form) {
        self.state.lock().unwrap().form = form;
    }

    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }
}

/// A policy in which the account may do everything but decrypt, and decrypt only what is attested
/// with this PCR0.
#[must_use]
pub fn attested_policy(pcr0: &str) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": "*", "Action": ["kms:GenerateDataKey", "kms:Encrypt"], "Resource": "*" },
        { "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {
            "StringEqualsIgnoreCase": { "kms:RecipientAttestation:ImageSha384": pcr0 } } }
    ] })
}

/// A request, as far as anybody here looks at it.
struct Request {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, state: &Mutex<State>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let Ok(connection) = ServerConnection::new(config) else {
        return;
    };
    let mut tls = BufReader::new(StreamOwned::new(connection, stream));
    let Some(request) = read_request(&mut tls) else {
        return;
    };
    let mischief = state.lock().unwrap().mischief;
    let attested = String::from_utf8_lossy(&request.body).contains("Recipient");
    match mischief {
        Mischief::Stalls if attested => return std::thread::sleep(Duration::from_secs(120)),
        Mischief::Hangs if attested => return,
        _ => {}
    }
    let (status, body) = match answer(&request, state) {
        Ok(body) => (200, body),
        Err((kind, message)) => (400, json!({ "__type": kind, "message": message })),
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let tls = tls.get_mut();
    let _ = tls
        .write_all(head.as_bytes())
        .and_then(|()| tls.write_all(body.as_bytes()));
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

fn read_request(stream: &mut BufReader<impl Read>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    assert!(line.starts_with("POST / HTTP/1.1"), "{line:?}");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        headers,
        body: vec![],
    };
    let len: usize = request
        .header("content-length")?
        .parse()
        .ok()
        .filter(|len| *len <= MAX_BODY)?;
    request.body = vec![0; len];
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// The answer, or the error's type and message.
pub type Answer = Result<Value, (&'static str, String)>;

fn answer(request: &Request, state: &Mutex<State>) -> Answer {
    let mut state = state.lock().unwrap();
    let State { sessions, .. } = &*state;
    let Signatory { role, limits } = sigv4::check(request, "kms", sessions)?;
    let action = request
        .header("x-amz-target")
        .and_then(|target| target.strip_prefix("TrentService."))
        .unwrap_or_default();
    let input: Value = serde_json::from_slice(&request.body)
        .map_err(|e| ("SerializationException", e.to_string()))?;
    let key = input["KeyId"].as_str().unwrap_or_default();
    let facts = Facts::new(role, key, &input, None);
    let action_name = format!("kms:{action}");
    if limits.is_some_and(|limits| limits.judge(&action_name, &facts) != Judgement::Allowed) {
        let message = format!("because no session policy allows the {action_name} action");
        return Err(("AccessDeniedException", message));
    }
    let role = role.to_owned();
    state.seen.push(action.to_owned());
    perform(&mut state, &role, action, &input)
}

fn perform(state: &mut State, caller: &str, action: &str, input: &Value) -> Answer {
    match action {
        "CreateKey" => create_key(state, input),
        "Encrypt" => {
            let plaintext =
                blob(&input["Plaintext"]).filter(|text| (1..=4096).contains(&text.len()));
            let plaintext =
                plaintext.ok_or(("ValidationException", "1 to 4096 bytes".to_owned()))?;
            let (arn, key) = allowed(state, caller, "Encrypt", input, None)?;
            Ok(
                json!({ "KeyId": arn, "CiphertextBlob": STANDARD.encode(encrypt(key, arn, input, &plaintext)) }),
            )
        }
        "GenerateDataKey" => {
            let (arn, key) = allowed(state, caller, "GenerateDataKey", input, None)?;
            let plaintext = random::<32>();
            let encrypted = encrypt(key, arn, input, &plaintext);
            Ok(
                json!({ "KeyId": arn, "Plaintext": STANDARD.encode(plaintext), "CiphertextBlob": STANDARD.encode(encrypted) }),
            )
        }
        "Decrypt" => decrypt(state, caller, input),
        "CreateGrant" => create_grant(state, caller, input),
        // Only whether they are allowed.
        "ReEncryptFrom" | "ReplicateKey" | "ImportKeyMaterial" | "PutKeyPolicy" => {
            allowed(state, caller, action, input, None).map(|(arn, _)| json!({ "KeyId": arn }))
        }
        other => Err(("UnknownOperationException", other.to_owned())),
    }
}

fn create_key(state: &mut State, input: &Value) -> Answer {
    let id = hex::encode(random::<16>());
    let arn = format!("arn:aws:kms:{REGION}:111122223333:key/{id}");
    let policy = Policy::parse(input["Policy"].as_str().unwrap_or(r#"{"Statement": []}"#));
    state.keys.insert(
        arn.clone(),
        StoredKey {
            material: random(),
            policy,
            grants: vec![],
        },
    );
    Ok(json!({ "KeyMetadata": { "KeyId": id, "Arn": arn } }))
}

fn create_grant(state: &mut State, caller: &str, input: &Value) -> Answer {
    let arn = allowed(state, caller, "CreateGrant", input, None)?
        .0
        .to_owned();
    let operations = input["Operations"].as_array().unwrap().iter();
    let grants = operations.map(|operation| Grant {
        grantee: input["GranteePrincipal"].as_str().unwrap().to_owned(),
        operation: operation.as_str().unwrap().to_owned(),
    });
    let key = state.keys.get_mut(&arn).unwrap();
    key.grants.extend(grants);
    Ok(json!({ "GrantId": hex::encode(random::<32>()) }))
}

fn decrypt(state: &State, caller: &str, input: &Value) -> Answer {
    let document = match &input["Recipient"] {
        Value::Null => None,
        recipient => {
            let bytes = blob(&recipient["AttestationDocument"]).unwrap_or_default();
            let attested = Attested::read(&bytes, state.verifier.as_ref());
            let invalid = |e| format!("the attestation document: {e}");
            Some(attested.map_err(|e| ("ValidationException", invalid(e)))?)
        }
    };
    let (arn, key) = allowed(state, caller, "Decrypt", input, document.as_ref())?;
    let blob = blob(&input["CiphertextBlob"]).unwrap_or_default();
    let plaintext = open(key, arn, input, &blob)
        .ok_or_else(|| ("InvalidCiphertextException", String::new()))?;
    let answer = json!({ "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" });
    let with = |name: &str, bytes: &[u8]| {
        let mut answer = answer.clone();
        answer[name] = STANDARD.encode(bytes).into();
        Ok(answer)
    };
    match (&document, state.mischief) {
        (None, _) | (_, Mischief::AnswersPlaintext) => with("Plaintext", &plaintext),
        (Some(document), mischief) => {
            let form = if mischief == Mischief::AnswersLocalStack {
                Form::LocalStack
            } else {
                state.form
            };
            with(
                "CiphertextForRecipient",
                &cms::envelope(&document.public_key, &plaintext, form),
            )
        }
    }
}

/// The key of a request, if its policy or a grant lets it.
fn allowed<'s>(
    state: &'s State,
    caller: &str,
    action: &str,
    input: &'s Value,
    document: Option<&Attested>,
) -> Result<(&'s str, &'s StoredKey), (&'static str, String)> {
    let arn = input["KeyId"].as_str().unwrap_or_default();
    let key = state
        .keys
        .get(arn)
        .ok_or_else(|| ("NotFoundException", format!("Key '{arn}' does not exist")))?;
    let facts = Facts::new(caller, arn, input, document);
    let mut grants = key.grants.iter();
    let granted = grants.any(|grant| grant.grantee == caller && grant.operation == action);
    let because = match key.policy.judge(&format!("kms:{action}"), &facts) {
        Judgement::Allowed => return Ok((arn, key)),
        Judgement::Silent if granted => return Ok((arn, key)),
        Judgement::Silent => {
            format!("because no resource-based policy allows the kms:{action} action")
        }
        Judgement::Denied => "with an explicit deny in a resource-based policy".to_owned(),
    };
    let caller = caller
        .replace(":iam::", ":sts::")
        .replace(":role/", ":assumed-role/");
    Err((
        "AccessDeniedException",
        format!(
            "User: {caller}/i-0 is not authorized to perform: kms:{action} on resource: {arn} {because}"
        ),
    ))
}

fn blob(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}
