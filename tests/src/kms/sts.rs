//! A fake of AWS STS beside the fake KMS: it gives sessions of any role to the holder of the
//! parent's credentials, and KMS knows them with their session policies.

use super::cipher::random;
use super::policy::Policy;
use super::sigv4::{self, Refusal, Session};
use super::{Kms, Request, State, read_request};
use crate::tcp;
use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;

impl Kms {
    /// Serves until the process ends; its URL.
    #[must_use]
    pub fn sts(&self) -> String {
        let state = self.state.clone();
        format!(
            "http://127.0.0.1:{}",
            tcp::serve(move |stream| respond(stream, &state))
        )
    }

    /// The session policies that were asked for.
    #[must_use]
    pub fn session_policies(&self) -> Vec<String> {
        self.state.lock().unwrap().session_policies.clone()
    }
}

fn respond(stream: TcpStream, state: &Mutex<State>) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read_request(&mut stream) else {
        return;
    };
    let (status, body) = match assume(&request, &mut state.lock().unwrap()) {
        Ok(body) => (200, body),
        Err((code, message)) => {
            let error =
                format!("<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>");
            (
                403,
                format!("<ErrorResponse><Error>{error}</Error></ErrorResponse>"),
            )
        }
    };
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: text/xml\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n"
    );
    // A client may hang up at any time.
    stream
        .get_mut()
        .write_all(format!("{head}{body}").as_bytes())
        .ok();
}

fn assume(request: &Request, state: &mut State) -> Result<String, Refusal> {
    sigv4::check(request, "sts", &BTreeMap::new())?;
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let form: BTreeMap<String, String> = body
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect();
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    if field("Action") != "AssumeRole" || field("DurationSeconds") != "900" {
        return Err(("ValidationError", body));
    }
    let role = field("RoleArn");
    if role.ends_with("/forbidden") {
        let message = format!("not authorized to perform: sts:AssumeRole on resource: {role}");
        return Err(("AccessDenied", message));
    }
    let access_key = format!("ASIA{}", hex::encode(random::<8>()).to_uppercase());
    let session = Session {
        secret: hex::encode(random::<20>()),
        token: hex::encode(random::<64>()),
        role,
        policy: Policy::of_session(&field("Policy")),
    };
    let answer = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleResult></AssumeRoleResponse>",
        session.secret, session.token
    );
    state.session_policies.push(field("Policy"));
    state.sessions.insert(access_key, session);
    Ok(answer)
}

/// Of a form (URL Standard, "application/x-www-form-urlencoded").
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}
