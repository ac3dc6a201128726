//! Credentials are shared.

use tests::broker::{Broker, SECRET, token};
use tests::services::Harbor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn a_thousand_jobs_at_once_are_one_question() {
    let secret = "Robot-secret-of-test-1";
    let harbor = Harbor::start(("robot$my-app+redoubt-1", secret)).await;
    let rate = [("HOST_PROXY_BROKER__RATE_PER_MINUTE", "2000")];
    let broker = Broker::start(&[&harbor.settings()[..], &rate].concat());
    let (port, mine) = (broker.port, token("ci", &["my-app"], SECRET));
    let mut jobs = JoinSet::new();
    for _ in 0..1000 {
        let request = format!(
            "GET /registry/credentials?project=my-app HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mine}\r\n\r\n"
        );
        jobs.spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    for answer in jobs.join_all().await {
        let is_granted = answer.starts_with("HTTP/1.1 200") && answer.contains(secret);
        assert!(is_granted, "{answer}");
    }
    assert_eq!(harbor.made.lock().unwrap().len(), 1);
    let asked = harbor.asked();
    let orders = asked.iter().filter(|asked| asked.method == "POST");
    assert_eq!(orders.count(), 1);
}
