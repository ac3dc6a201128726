//! Authentication: reads `WWW-Authenticate` challenges and decides where credentials may go. Pure;
//! `registry` sends. Source: RFC 9110, 11.6.1 (challenges) and distribution,
//! docs/spec/auth/token.md (Bearer).

use crate::host::DOCKER_HUB;
use hyper::Uri;
use hyper::header::{HeaderMap, WWW_AUTHENTICATE};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// The challenge to answer: Bearer where it is offered, since it exposes the password to one host
/// less.
pub(crate) fn choose(headers: &HeaderMap) -> Option<Challenge> {
    let all: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect();
    let bearer = all
        .iter()
        .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(all.first()).cloned()
}

/// One header may hold several challenges; commas separate both challenges and parameters.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    for item in split_unquoted(header) {
        let item = item.trim();
        let (before_equals, value) = match item.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (item, None),
        };
        // `Bearer realm="x"`: a word before the parameter's name starts a new challenge.
        let (scheme, name) = match (before_equals.split_once(' '), value) {
            (Some((scheme, name)), Some(_)) => (Some(scheme), name.trim()),
            (None, Some(_)) => (None, before_equals),
            (_, None) => (Some(before_equals), ""),
        };
        if let Some(scheme) = scheme {
            found.push((scheme.to_ascii_lowercase(), BTreeMap::new()));
        }
        if let (Some((_, parameters)), Some(value)) = (found.last_mut(), value) {
            parameters
                .entry(name.to_ascii_lowercase())
                .or_insert_with(|| unquote(value));
        }
    }
    found
        .into_iter()
        .filter_map(|(scheme, mut parameters)| match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => {
                let realm = parameters.remove("realm")?;
                Some(Challenge::Bearer {
                    realm,
                    service: parameters.remove("service"),
                })
            }
            _ => None,
        })
        .collect()
}

fn split_unquoted(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    text
}

/// Whether credentials for `registry` (host and port) may be sent to `realm`; the error says why
/// not. A registry that could name any realm could have a password sent anywhere.
pub(crate) fn check_realm(realm: &str, registry: &str, plain_http: bool) -> Result<Uri, String> {
    let uri: Uri = realm
        .parse()
        .map_err(|_| format!("the realm '{}' is not a URL", cut(realm)))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("the realm '{}' is not an absolute URL", cut(realm)));
    };
    let registry_name = registry.split(':').next().unwrap_or(registry);
    let host = authority.host().to_ascii_lowercase();
    if authority.as_str().contains('@') {
        return Err("the realm holds a user name".to_owned());
    }
    match scheme {
        "https" => {}
        "http" if plain_http && authority.as_str() == registry => {}
        _ => return Err(format!("the realm {scheme}://{host} is not https")),
    }
    let docker_hub = registry == DOCKER_HUB && host == "auth.docker.io";
    if host == registry_name || docker_hub || shares_parent(&host, registry_name) {
        Ok(uri)
    } else {
        Err(format!(
            "the realm's host {host} does not belong to {registry_name}"
        ))
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// `gitlab.example.com` for `registry.gitlab.example.com` or its siblings. Never where the parent
/// is one that strangers share: a top-level domain, `co.uk` and the like, or a cloud's own suffix.
fn shares_parent(host: &str, registry: &str) -> bool {
    const SHARED: [&str; 7] = [
        "azurecr.io",
        "pkg.dev",
        "gcr.io",
        "amazonaws.com",
        "amazonaws.com.cn",
        "on.aws",
        "github.io",
    ];
    const SECOND_LEVEL: [&str; 9] = ["co", "com", "org", "net", "gov", "ac", "edu", "ne", "or"];
    let Some((_, parent)) = registry.split_once('.') else {
        return false;
    };
    let labels: Vec<&str> = parent.split('.').collect();
    let public = match labels.as_slice() {
        [_] => true,
        [second, top] => top.len() == 2 && SECOND_LEVEL.contains(second),
        _ => false,
    };
    let is_address = registry.parse::<std::net::IpAddr>().is_ok();
    let cloud = SHARED
        .iter()
        .any(|suffix| parent == *suffix || parent.ends_with(&format!(".{suffix}")));
    !public && !is_address && !cloud && (host == parent || host.ends_with(&format!(".{parent}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        choose(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
        })
    }

    #[test]
    fn prefers_bearer_wherever_it_stands() {
        let wanted = bearer("https://r.example/token?a=1,2", Some("r.example"));
        let text = r#"Bearer realm="https://r.example/token?a=1,2",service="r.example",scope="x""#;
        assert_eq!(chosen(&[text]), wanted);
        assert_eq!(chosen(&["Basic realm=\"r\"", text]), wanted);
        assert_eq!(chosen(&[&format!("Basic realm=\"r\", {text}")]), wanted);
        assert_eq!(
            chosen(&["bearer Realm=https://r.example"]),
            bearer("https://r.example", None)
        );
    }

    #[test]
    fn reads_basic_and_ignores_what_it_does_not_know() {
        assert_eq!(
            chosen(&["Basic realm=\"Registry, Realm\""]),
            Some(Challenge::Basic)
        );
        assert_eq!(chosen(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(chosen(&["Negotiate, Digest realm=\"x\""]), None);
        assert_eq!(chosen(&["Bearer service=\"no realm\""]), None);
        assert_eq!(
            chosen(&["", ",,,", "=", "\"", "Bearer realm=\"\\"]),
            bearer("", None)
        );
    }

    #[test]
    fn lets_credentials_go_to_the_registrys_own_realm_only() {
        for (realm, registry) in [
            ("https://ghcr.io/token", "ghcr.io"),
            ("https://auth.docker.io/token", DOCKER_HUB),
            (
                "https://gitlab.example.com/jwt/auth",
                "registry.gitlab.example.com:5050",
            ),
            (
                "https://gitlab.example.com/jwt/auth",
                "registry.example.com",
            ),
            ("https://r.example:8443/t", "r.example"),
        ] {
            assert!(
                check_realm(realm, registry, false).is_ok(),
                "{realm} for {registry}"
            );
        }
        assert!(check_realm("http://127.0.0.1:5000/t", "127.0.0.1:5000", true).is_ok());
        for (realm, registry) in [
            ("http://169.254.169.254/latest/meta-data", "r.example"),
            ("http://r.example/token", "r.example"),
            ("https://attacker.example/token", "r.example"),
            ("https://auth.docker.io/token", "r.example"),
            ("https://evil.io/token", "ghcr.io"),
            ("https://attacker.co.uk/t", "registry.co.uk"),
            ("https://evil.azurecr.io/t", "good.azurecr.io"),
            ("https://user@r.example/t", "r.example"),
            ("https://badr.example.com/t", "x.r.example.com"),
            ("https://127.0.0.2/t", "127.0.0.1"),
            ("/token", "r.example"),
            ("ftp://r.example", "r.example"),
        ] {
            assert!(
                check_realm(realm, registry, false).is_err(),
                "{realm} for {registry}"
            );
        }
        // Plain HTTP is for the named host and port only.
        assert!(check_realm("http://127.0.0.1:5001/t", "127.0.0.1:5000", true).is_err());
    }
}
