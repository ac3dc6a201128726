//! A fake of the instance metadata service, version 2 (EC2 user guide, "Use IMDSv2"): a session
//! token first, then the credentials of the instance's role, which are those that the fake KMS
//! knows.

use crate::kms::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use crate::tcp;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const SESSION: &str = "a-session-token";
const ROLE: &str = "/latest/meta-data/iam/security-credentials/";

/// Its URL.
#[must_use]
pub fn fake_metadata_service() -> String {
    format!("http://127.0.0.1:{}", tcp::serve(respond))
}

fn respond(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let (status, body) = answer(&String::from_utf8(head).unwrap().to_ascii_lowercase());
    let len = body.len();
    let answer = format!(
        "HTTP/1.1 {status} x\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\
         content-length: {len}\r\nconnection: close\r\n\r\n{body}"
    );
    // A client may hang up at any time.
    stream.write_all(answer.as_bytes()).ok();
}

fn answer(head: &str) -> (u16, String) {
    if head.starts_with("put /latest/api/token ") {
        return (200, SESSION.to_owned());
    }
    if !head.contains(&format!("x-aws-ec2-metadata-token: {SESSION}")) {
        return (401, String::new());
    }
    if head.starts_with(&format!("get {ROLE} ")) {
        return (200, "parent".to_owned());
    }
    if !head.starts_with(&format!("get {ROLE}parent ")) {
        return (404, String::new());
    }
    let credentials = json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
        "AccessKeyId": ACCESS_KEY_ID, "SecretAccessKey": SECRET_ACCESS_KEY, "Token": "t",
        "Expiration": "2099-01-01T00:00:00Z",
    });
    (200, credentials.to_string())
}
