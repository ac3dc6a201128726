//! Documents in their forms, and documents that are only shown.

use super::{AT, Case, digits, register};
use pki::{Plan, Signature};
use std::io::Write as _;
use std::process::Stdio;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn documents_may_be_in_hexadecimal() {
    let minted = Plan::default().mint();
    let case = Case::new(&minted);
    case.write("document", hex::encode(&minted.document));
    assert_eq!(case.verify(&["--pcr", &register(0, 1)]).code, 0);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn documents_may_come_from_a_pipe() {
    let minted = Plan::default().mint();
    let case = Case::new(&minted);
    let pcr = register(0, 1);
    let mut child = case
        .command(&[
            "verify", "-", "--root", "root.pem", "--at", AT, "--pcr", &pcr,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&minted.document).unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn case_with_a_bad_signature() -> Case {
    Case::new(&Plan::with(|plan| {
        plan.signature = Signature::Bytes(vec![1; 96]);
    }))
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn show_prints_a_document_of_any_origin_and_warns_about_it() {
    let shown = case_with_a_bad_signature().run(&["show", "document"]);
    assert_eq!(shown.code, 0);
    shown.warns("nothing of this was verified");
    shown.prints("signature   not trusted: cabundle[0] is not the trusted root");
    shown.prints(&format!("PCR15       {}", digits(16)));
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn show_says_in_json_that_nothing_was_verified() {
    let json = case_with_a_bad_signature()
        .run(&["show", "--json", "document"])
        .json();
    assert_eq!(
        (
            json["verified"].as_bool(),
            json["certificates"].as_array().unwrap().len()
        ),
        (Some(false), 5)
    );
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn show_refuses_bytes_that_are_not_a_document() {
    let case = case_with_a_bad_signature();
    case.write("document", [0x84]);
    assert_eq!(case.run(&["show", "document"]).code, 2);
}
