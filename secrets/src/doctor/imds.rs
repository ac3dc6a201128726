//! The instance metadata service, version 2 (EC2 user guide, "Use the Instance Metadata Service"):
//! whether it gives a token, and which role the instance has.

use super::LIMIT;
use api::Finding;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

const WHAT: &str = "instance metadata";
const ADDRESS: &str = "169.254.169.254:80";
/// The SDK's own names for another place, and for none.
const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
/// The longest answer, in bytes: a token has 56, a role's name at most 64.
const MAX_ANSWER: usize = 4096;
/// It is on the same machine.
const STEP: Duration = Duration::from_millis(1500);

/// How far the conversation went.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Metadata {
    Unreachable,
    /// It takes connections, and its answer to the PUT does not arrive.
    Unanswered,
    /// It answers the PUT with this status.
    NoToken(u16),
    Role(String),
    NoRole,
    /// There is a token, and then this.
    Odd(String),
}

/// Looks at the metadata service of this instance. `is_needed` says whether the configuration needs
/// a role. Takes 5 seconds at most.
pub async fn examine_metadata_service(is_needed: bool) -> Finding {
    if std::env::var(DISABLED).is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
        return Finding::not_checked(WHAT, format!("{DISABLED} is set"));
    }
    let endpoint = std::env::var(ENDPOINT).unwrap_or_default();
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let address = if address.is_empty() { ADDRESS } else { address };
    match timeout(LIMIT, ask(address, STEP)).await {
        Ok(metadata) => judge(&metadata, is_needed),
        Err(_) => Finding::not_checked(WHAT, "no answer within 5 seconds"),
    }
}

async fn ask(address: &str, step: Duration) -> Metadata {
    if !matches!(timeout(step, TcpStream::connect(address)).await, Ok(Ok(_))) {
        return Metadata::Unreachable;
    }
    let token = request(Method::PUT, "/latest/api/token")
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = match timeout(step, send(address, token)).await {
        Err(_) => return Metadata::Unanswered,
        Ok(None) => return Metadata::Odd("its answer cannot be read".to_owned()),
        Ok(Some((StatusCode::OK, token))) => token,
        Ok(Some((status, _))) => return Metadata::NoToken(status.as_u16()),
    };
    let role = request(Method::GET, ROLE).header("x-aws-ec2-metadata-token", token);
    match timeout(step, send(address, role)).await {
        Ok(Some((StatusCode::OK, role))) => Metadata::Role(role),
        Ok(Some((StatusCode::NOT_FOUND, _))) => Metadata::NoRole,
        Ok(Some((status, _))) => Metadata::Odd(format!("it answers {status} for the role")),
        Ok(None) | Err(_) => Metadata::Odd("no answer for the role".to_owned()),
    }
}

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "169.254.169.254")
}

/// Status and body of the answer; `None` for anything that is not HTTP.
async fn send(
    address: &str,
    request: hyper::http::request::Builder,
) -> Option<(StatusCode, String)> {
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .ok()?;
        let text = String::from_utf8(body.to_bytes().to_vec()).ok()?;
        Some((status, text.trim().to_owned()))
    };
    tokio::select! {
        answer = exchange => answer,
        // It ends with the exchange, unless the connection breaks: then there is no answer.
        Err(_) = connection => None,
    }
}

fn judge(metadata: &Metadata, is_needed: bool) -> Finding {
    const OPTIONS: &str = "aws ec2 modify-instance-metadata-options --instance-id \
        \"$(cat /sys/devices/virtual/dmi/id/board_asset_tag)\" --http-endpoint enabled --http-tokens required \
        --http-put-response-hop-limit";
    let options = |hops: u8| {
        [
            "# With an AWS administrator's credentials:".to_owned(),
            format!("{OPTIONS} {hops}"),
        ]
    };
    match metadata {
        Metadata::Unreachable if !is_needed => Finding::not_checked(
            WHAT,
            "it cannot be reached; with this configuration only sealed configs need it",
        ),
        Metadata::Unreachable => Finding::wrong(
            WHAT,
            "it cannot be reached",
            "Enable the instance metadata service, and let the daemon's user reach 169.254.169.254.",
        )
        .with_fix(options(1)),
        Metadata::Unanswered => Finding::wrong(
            WHAT,
            "it accepts connections, but its token does not arrive: the hop limit is too low",
            "Raise the hop limit of the instance's metadata to 2: a container or a bridge adds one.",
        )
        .with_fix(options(2)),
        Metadata::NoToken(status) => Finding::wrong(
            WHAT,
            format!("it gives no IMDSv2 token (HTTP status {status})"),
            "Enable the instance metadata service with IMDSv2.",
        )
        .with_fix(options(1)),
        Metadata::Role(role) => Finding::passed(WHAT, format!("IMDSv2 answers; the instance has the role {role}")),
        Metadata::NoRole if !is_needed => {
            Finding::passed(WHAT, "IMDSv2 answers; the instance has no role")
        }
        Metadata::NoRole => Finding::wrong(
            WHAT,
            "IMDSv2 answers, but the instance has no role",
            "Attach an instance profile with a role to the instance.",
        ),
        Metadata::Odd(problem) => Finding::not_checked(WHAT, problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::serve;
    use std::net::TcpListener;

    /// What the service says that answers a PUT and a GET so.
    async fn found(put: &'static str, get: &'static str) -> Metadata {
        let address = serve(move |head| {
            let is_put = head.starts_with("PUT /latest/api/token ");
            let has_token = head.contains("x-aws-ec2-metadata-token: secret");
            let answer = match (is_put, has_token) {
                (true, _) => put,
                (false, true) => get,
                (false, false) => "401 Unauthorized\n",
            };
            answer.to_owned()
        });
        ask(&address, Duration::from_secs(60)).await
    }

    #[tokio::test]
    async fn a_token_and_a_role_will_do() {
        let metadata = found("200 OK\nsecret", "200 OK\nparent\n").await;
        assert_eq!(metadata, Metadata::Role("parent".to_owned()));
        let text = "✓ instance metadata: IMDSv2 answers; the instance has the role parent";
        assert_eq!(judge(&metadata, true).to_string(), text);
    }

    #[tokio::test]
    async fn a_missing_role_matters_where_one_is_needed() {
        let metadata = found("200 OK\nsecret", "404 Not Found\n").await;
        assert_eq!(metadata, Metadata::NoRole);
        assert!(judge(&metadata, true).is_failed());
        assert!(!judge(&metadata, false).is_failed());
    }

    #[tokio::test]
    async fn a_service_that_is_turned_off_is_turned_on() {
        let metadata = found("403 Forbidden\n", "").await;
        assert_eq!(metadata, Metadata::NoToken(403));
        let fix = judge(&metadata, false).fix;
        assert!(
            fix[1].ends_with("--http-put-response-hop-limit 1"),
            "{fix:?}"
        );
        assert_eq!(found("200 OK\nsecret", "500 x\n").await, {
            Metadata::Odd("it answers 500 Internal Server Error for the role".to_owned())
        });
    }

    #[tokio::test]
    async fn a_token_that_does_not_arrive_is_the_hop_limits() {
        // It takes connections, and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let metadata = ask(&address, Duration::from_millis(200)).await;
        assert_eq!(metadata, Metadata::Unanswered);
        let fix = judge(&metadata, false).fix;
        assert!(
            fix[1].ends_with("--http-put-response-hop-limit 2"),
            "{fix:?}"
        );
        drop(silent);
        let metadata = ask(&address, Duration::from_secs(60)).await;
        assert_eq!(metadata, Metadata::Unreachable);
        assert!(judge(&metadata, true).is_failed());
        let finding = judge(&metadata, false).to_string();
        assert!(finding.contains("not checked"), "{finding}");
    }
}
