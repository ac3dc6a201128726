//! What an enclave that is taken over can make its host sign: the request that opens its own config,
//! a few times, and nothing else. Here it is the test that speaks the agent's part.

use super::parent::credentials;
use launch::{Listener, Logs};
use relay::control::{Control, Report};
use secrets::Signer;
use serde_json::{Value, json};
use tests::files::holds;
use tests::kms::{ACCESS_KEY_ID, Kms, SECRET_ACCESS_KEY, attested_policy};
use tests::registry::base64;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use wire::control::{FromAgent, FromHost};
use wire::frame::{self, Reader};
use wire::kms::{SignRefusal, SignedHeaders};
use wire::sealed::Header;
use wire::spec::{ImageDefaults, MeasuredConfig, Spec};

/// A KMS in which everyone may do everything, and an enclave that is to open one config of its key.
struct Target {
    kms: Kms,
    config: MeasuredConfig,
    header: Header,
}

impl Target {
    fn new() -> Target {
        let kms = Kms::start();
        let key = kms.key(&json!({ "Statement": [
            { "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" } ] }));
        let text = format!(
            "name = 'orders'\n[network]\negress = ['localhost:{0}']\n[config]\nkms_key = '{key}'\n\
             endpoint = 'localhost:{0}'\ncontext = {{ app = 'orders' }}\nvariables = ['TOKEN']",
            kms.port
        );
        let spec = Spec::parse(&text).unwrap().resolve(ImageDefaults::any());
        let header = Header {
            name: "orders".to_owned(),
            version: 7,
            kms_key: key,
            context: [("app".to_owned(), "orders".to_owned())].into(),
            encrypted_key: vec![9; 60],
            nonce: [0; 12],
            commitment: [0; 32],
            sealer: None,
        };
        Target {
            kms,
            config: spec.unwrap().config.unwrap(),
            header,
        }
    }

    /// The body that a faithful agent would send.
    fn body(&self) -> Value {
        json!({
            "KeyId": self.header.kms_key,
            "EncryptionContext": { "name": "orders", "version": "7", "app": "orders" },
            "CiphertextBlob": base64(&self.header.encrypted_key),
            "Recipient": {
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": base64(b"no document"),
            },
        })
    }

    fn without(&self, name: &str) -> Value {
        let mut body = self.body();
        body.as_object_mut().unwrap().remove(name);
        body
    }

    fn with(&self, pointer: &str, value: Value) -> Value {
        let mut body = self.body();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    }
}

/// The enclave's end of the control connection, and every byte that the host sent over it.
struct Agent {
    stream: UnixStream,
    reader: Reader,
    heard: Vec<u8>,
    control: Control,
    _directory: tempfile::TempDir,
}

impl Agent {
    async fn boot(target: &Target) -> Agent {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener: Listener = UnixListener::bind(&path).unwrap().into();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let hello = FromAgent::Hello {
            protocol: wire::PROTOCOL_VERSION,
            agent_version: "hostile".to_owned(),
        };
        stream
            .write_all(&frame::encode(&hello).unwrap())
            .await
            .unwrap();
        let signer = Signer::with_provider(credentials(), &target.config, &target.header);
        let config = Some(vec![1; 100]);
        let boot = FromHost::Boot { config };
        let control = Control::accept(&listener, boot, Some(signer), Logs::default());
        let mut agent = Agent {
            stream,
            reader: Reader::default(),
            heard: Vec::new(),
            control: control.await.unwrap(),
            _directory: directory,
        };
        assert!(matches!(agent.hear().await, FromHost::Boot { .. }));
        agent
    }

    async fn say(&mut self, message: &FromAgent) {
        let bytes = frame::encode(message).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn hear(&mut self) -> FromHost {
        loop {
            if let Some(message) = self.reader.message().unwrap() {
                return message;
            }
            let mut bytes = [0; 4096];
            let len = self.stream.read(&mut bytes).await.unwrap();
            assert_ne!(len, 0, "the host hung up");
            self.reader.push(&bytes[..len]);
            self.heard.extend_from_slice(&bytes[..len]);
        }
    }

    async fn sign(&mut self, body: &Value) -> Result<SignedHeaders, SignRefusal> {
        let body = body.to_string().into_bytes();
        self.say(&FromAgent::Sign { body }).await;
        match self.hear().await {
            FromHost::Signed { answer } => answer,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_enclave_gets_no_signature_for_another_key_context_or_action() {
    use SignRefusal::{Ciphertext, Context, Key, Malformed, Recipient};
    let target = Target::new();
    let other = target.kms.key(&attested_policy("none"));
    let data_key = json!({ "KeyId": target.header.kms_key, "KeySpec": "AES_256" });
    let mut granted = target.body();
    granted["GrantTokens"] = json!(["token"]);
    for (body, expected) in [
        (target.with("/KeyId", json!(other)), Key),
        (
            target.with("/EncryptionContext/name", json!("billing")),
            Context,
        ),
        (
            target.with("/EncryptionContext/version", json!("6")),
            Context,
        ),
        (
            target.with("/CiphertextBlob", json!(base64(b"another"))),
            Ciphertext,
        ),
        (
            target.with("/Recipient/AttestationDocument", json!("")),
            Recipient,
        ),
        (target.without("Recipient"), Malformed),
        (granted, Malformed),
        (data_key, Malformed),
        (json!({}), Malformed),
    ] {
        let mut agent = Agent::boot(&target).await;
        assert_eq!(agent.sign(&body).await, Err(expected), "{body}");
    }
    assert_eq!(target.kms.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn a_signature_is_good_for_one_request_and_carries_no_key() {
    let target = Target::new();
    let mut agent = Agent::boot(&target).await;
    let signed = agent.sign(&target.body()).await.unwrap();
    let host = format!("localhost:{}", target.kms.port);
    let ask = |host: &str, action: &str, body: &Value| {
        let headers = [
            ("host", host),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", action),
            ("x-amz-date", signed.date.as_str()),
            ("authorization", signed.authorization.as_str()),
        ];
        let answer = target.kms.answer(&headers, body.to_string().as_bytes());
        answer.unwrap_err().0
    };
    let decrypt = "TrentService.Decrypt";
    // KMS believes who asks, and looks at the document.
    assert_eq!(ask(&host, decrypt, &target.body()), "ValidationException");
    let spoilt = "InvalidSignatureException";
    assert_eq!(
        ask(&host, "TrentService.CreateGrant", &target.body()),
        spoilt
    );
    assert_eq!(ask("kms.example.com", decrypt, &target.body()), spoilt);
    assert_eq!(ask(&host, decrypt, &target.without("Recipient")), spoilt);

    assert!(
        holds(&agent.heard, ACCESS_KEY_ID.as_bytes()),
        "it is in the header"
    );
    let encoded = base64(SECRET_ACCESS_KEY.as_bytes());
    for secret in [SECRET_ACCESS_KEY, &encoded] {
        assert!(!holds(&agent.heard, secret.as_bytes()), "{secret}");
    }
}

#[tokio::test]
async fn signatures_are_few_and_end_with_the_workloads_start() {
    let target = Target::new();
    let mut agent = Agent::boot(&target).await;
    for _ in 0..2 {
        assert!(agent.sign(&target.body()).await.is_ok());
    }
    assert_eq!(agent.sign(&json!({})).await, Err(SignRefusal::Malformed));
    let too_many = Err(SignRefusal::TooMany);
    assert_eq!(
        agent.sign(&target.body()).await,
        too_many,
        "a refusal counts"
    );

    let mut agent = Agent::boot(&target).await;
    agent.say(&FromAgent::Started { pid: 7 }).await;
    assert_eq!(agent.control.report().await, Report::Started);
    let late = Err(SignRefusal::NotAsked);
    assert_eq!(agent.sign(&target.body()).await, late);
}
