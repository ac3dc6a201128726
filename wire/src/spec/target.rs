//! The URL of a health check: plain HTTP, to the workload itself.

use super::error::{InvalidValue, SpecError};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `http://127.0.0.1:8080/healthz`. The host is `localhost`, which is 127.0.0.1, or a loopback
/// address; the port is 80 if left out. HTTPS is not for this: the check looks at a process, not at
/// a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpTarget {
    /// Where to connect.
    pub address: SocketAddr,
    /// From the first slash on, at most 1024 printable ASCII characters.
    pub path: String,
}

const MAX_PATH: usize = 1024;

impl TryFrom<String> for HttpTarget {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        parse(&text).ok_or_else(|| InvalidValue::HealthUrl(text).of("health.http"))
    }
}

fn parse(text: &str) -> Option<HttpTarget> {
    let rest = text.strip_prefix("http://")?;
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at_checked(slash)?,
        None => (rest, "/"),
    };
    let is_plain = path.len() <= MAX_PATH && path.bytes().all(|byte| byte.is_ascii_graphic());
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (host, 80),
    };
    let ip: IpAddr = match name {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => match name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
        {
            Some(address) => address.parse::<Ipv6Addr>().ok()?.into(),
            None => name.parse::<Ipv4Addr>().ok()?.into(),
        },
    };
    (is_plain && port != 0 && ip.is_loopback() && !path.contains('#')).then(|| HttpTarget {
        address: SocketAddr::new(ip, port),
        path: path.to_owned(),
    })
}

impl From<HttpTarget> for String {
    fn from(target: HttpTarget) -> String {
        format!("http://{}{}", target.address, target.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_the_workload_itself_over_plain_http() {
        for (text, written) in [
            ("http://localhost", "http://127.0.0.1:80/"),
            ("http://127.0.0.1:8080/a?b=c", "http://127.0.0.1:8080/a?b=c"),
            ("http://[::1]/", "http://[::1]:80/"),
            ("http://[::1]:81/x", "http://[::1]:81/x"),
        ] {
            let target = HttpTarget::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(target), written);
        }
        let long = format!("http://localhost/{}", "a".repeat(MAX_PATH));
        for text in [
            "https://localhost/",
            "http://example.com/",
            "http://10.0.0.1/",
            "http://localhost:0/",
            "http://localhost:x/",
            "http://localhost/a b",
            "http://localhost/\r\nX: y",
            "http://localhost/#a",
            "http://user@localhost/",
            "localhost:80",
            &long,
        ] {
            let refused = InvalidValue::HealthUrl(text.to_owned()).of("health.http");
            assert_eq!(
                HttpTarget::try_from(text.to_owned()),
                Err(refused),
                "{text}"
            );
        }
    }
}
