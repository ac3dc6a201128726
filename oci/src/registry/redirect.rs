//! Follows redirects. Blobs are often elsewhere, at a URL that carries its own signature:
//! credentials must not follow there, and a registry must not make this machine talk to itself.

use super::error_body::read_reason;
use super::exchange::{Clients, Get, exchange};
use super::target::Target;
use crate::address::AddressClass;
use crate::error::PullError;
use hyper::body::Incoming;
use hyper::{Response, Uri, header};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Redirects that one request may go through.
const MAX_REDIRECTS: usize = 5;

/// Where a redirect leads, once it is found safe.
#[derive(Debug, PartialEq, Eq)]
struct Hop {
    to: Uri,
    /// Host and port of `to`.
    authority: String,
    /// Whether the operator named this host: it may then be without TLS, and on this machine.
    is_named: bool,
}

/// Follows `response`, a redirect from `from`, to a success.
pub(super) async fn follow(
    clients: &Clients,
    target: &Target,
    mut from: Uri,
    get: &Get<'_>,
    mut response: Response<Incoming>,
) -> Result<Response<Incoming>, PullError> {
    let refuse = |reason: &str| PullError::Redirect {
        host: target.host.clone(),
        reason: reason.to_owned(),
    };
    if !get.is_blob() {
        return Err(refuse("only blobs may be elsewhere, not manifests"));
    }
    for _ in 0..MAX_REDIRECTS {
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let hop = next_hop(&from, location, &clients.plain_http).map_err(refuse)?;
        let http = if hop.is_named {
            &clients.any
        } else {
            &clients.outward
        };
        response = exchange(http, get.request(&hop.to, None)?).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if !status.is_redirection() {
            let reason = read_reason(&hop.authority, response, target.credentials.as_ref()).await;
            return Err(PullError::Status {
                host: hop.authority,
                status: status.as_u16(),
                reason,
            });
        }
        from = hop.to;
    }
    Err(refuse("it goes on for more than 5 hops"))
}

/// Checks where a redirect leads; the error says what is wrong with it. A host name may still lead
/// to a local address: [`Clients::outward`] drops those once the name is resolved.
fn next_hop(
    from: &Uri,
    location: Option<&str>,
    plain_http: &BTreeSet<String>,
) -> Result<Hop, &'static str> {
    let to = resolve_location(from, location.ok_or("it names no location")?)?;
    let authority = to.authority().map(ToString::to_string).unwrap_or_default();
    let is_named = plain_http.contains(&authority);
    if to.scheme_str() != Some("https") && !is_named {
        return Err("it leads from https to http");
    }
    let literal = to
        .host()
        .and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if literal.is_some_and(|address| AddressClass::of(address).is_local()) && !is_named {
        return Err("it leads to an address of this machine or its link");
    }
    Ok(Hop {
        to,
        authority,
        is_named,
    })
}

fn resolve_location(from: &Uri, location: &str) -> Result<Uri, &'static str> {
    let to: Uri = location.parse().map_err(|_| "the location is not a URL")?;
    if to
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("the location holds a user name");
    }
    if to.scheme().is_some() {
        return Ok(to);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = to.into_parts().path_and_query;
    Uri::from_parts(parts).map_err(|_| "the location is not a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> Uri {
        "https://r.example/v2/a/blobs/x".parse().unwrap()
    }

    #[test]
    fn a_location_may_be_relative_and_never_holds_a_user() {
        let from = from();
        assert_eq!(
            resolve_location(&from, "/y?z=1").unwrap(),
            "https://r.example/y?z=1"
        );
        assert_eq!(
            resolve_location(&from, "https://s.example/y").unwrap(),
            "https://s.example/y"
        );
        assert!(resolve_location(&from, "https://u:p@s.example/y").is_err());
    }

    #[test]
    fn a_redirect_leads_to_no_local_address_in_any_notation() {
        let inward = "it leads to an address of this machine or its link";
        for (host, expected) in [
            ("127.0.0.1", Err(inward)),
            ("169.254.169.254", Err(inward)),
            ("[::1]", Err(inward)),
            ("[::ffff:127.0.0.1]:8443", Err(inward)),
            ("[64:ff9b::169.254.169.254]", Err(inward)),
            ("[2002:7f00:1::1]", Err(inward)),
            ("[2001:0:7f00:1::1]", Err(inward)),
            ("[fd00:ec2::254]", Err(inward)),
            ("10.0.0.1", Ok(())),
            ("[2001:db8::1]", Ok(())),
            ("s3.example", Ok(())),
        ] {
            let hop = next_hop(
                &from(),
                Some(&format!("https://{host}/y")),
                &BTreeSet::new(),
            );
            assert_eq!(hop.map(drop), expected, "{host}");
        }
    }

    #[test]
    fn only_a_host_that_the_operator_named_may_be_without_tls_or_local() {
        let plain = BTreeSet::from(["127.0.0.1:5001".to_owned()]);
        let hop = |location: &str| next_hop(&from(), Some(location), &plain);
        let named = hop("http://127.0.0.1:5001/y").unwrap();
        assert_eq!(
            (named.authority.as_str(), named.is_named),
            ("127.0.0.1:5001", true)
        );
        assert_eq!(
            hop("http://127.0.0.1:5002/y"),
            Err("it leads from https to http")
        );
        assert_eq!(
            hop("http://s.example/y"),
            Err("it leads from https to http")
        );
        assert_eq!(next_hop(&from(), None, &plain), Err("it names no location"));
    }
}
