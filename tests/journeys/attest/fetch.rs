//! A document from an enclave's endpoint.

use super::{AT, Case, Outcome, register};
use pki::{Plan, bytes};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

/// A fake enclave endpoint that responds to one request with what `respond` makes of the nonce.
fn fake_enclave(respond: impl FnOnce(Vec<u8>) -> (u16, Vec<u8>) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (status, body) = respond(read_nonce(&stream));
        let len = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-length: {len}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(&body).unwrap();
    });
    url
}

/// The nonce in the query of a request.
fn read_nonce(stream: &TcpStream) -> Vec<u8> {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let head: Vec<String> = lines
        .map(Result::unwrap)
        .take_while(|line| !line.is_empty())
        .collect();
    let (_, rest) = head[0].split_once("GET /attestation?nonce=").unwrap();
    hex::decode(rest.split(' ').next().unwrap()).unwrap()
}

/// A document with this nonce. All documents of this process chain to the same root.
fn with_nonce(nonce: &[u8]) -> Vec<u8> {
    Plan::with(|plan| plan.set("nonce", bytes(nonce))).document
}

fn fetch(case: &Case, url: &str) -> Outcome {
    let pcr = register(0, 1);
    case.run(&[
        "fetch", url, "--root", "root.pem", "--at", AT, "--pcr", &pcr, "--output", "kept",
    ])
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn fetch_sends_a_fresh_nonce_and_keeps_the_document() {
    let case = Case::good();
    let good = fetch(&case, &fake_enclave(|nonce| (200, with_nonce(&nonce))));
    assert_eq!(good.code, 0, "{}{}", good.stdout, good.stderr);
    assert!(case.directory.path().join("kept").is_file());
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn fetch_rejects_a_document_that_was_made_for_another_request() {
    let replay = fake_enclave(|_| (200, with_nonce(b"an older question")));
    let replayed = fetch(&Case::good(), &replay);
    assert_eq!(replayed.code, 1);
    replayed.prints("This document was made for another request");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn fetch_reports_the_status_of_an_endpoint_that_fails() {
    let busy = fake_enclave(|_| (503, b"busy".to_vec()));
    let busy = fetch(&Case::good(), &busy);
    assert_eq!(busy.code, 2);
    busy.warns("the endpoint returned 503");
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn fetch_does_not_read_a_response_of_a_mebibyte() {
    let endless = fake_enclave(|_| (200, vec![0x84; 1 << 20]));
    let endless = fetch(&Case::good(), &endless);
    assert_eq!(endless.code, 2, "{}", endless.stderr);
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn fetch_says_what_to_check_if_there_is_no_endpoint() {
    let url = format!("http://127.0.0.1:{}", tests::free_port());
    let unreachable = fetch(&Case::good(), &url);
    assert_eq!(unreachable.code, 2);
    unreachable.warns("check the URL");
}
