//! How bytes reach a registry: TLS with the system's roots, names resolved by the system, and for redirects no address of this machine.

use super::PullError;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How registries may be reached: whom to trust, and which hosts are spoken to without TLS.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    /// `host` or `host:port`, exactly as in the reference.
    pub plain_http: BTreeSet<String>,
    /// PEM of a certificate authority beside the system's.
    pub ca_cert: Option<Vec<u8>>,
}

/// A client for HTTP and HTTPS that keeps connections and follows no redirects.
pub type Http = Client<HttpsConnector<HttpConnector<GuardedResolver>>, Full<Bytes>>;

impl Endpoint {
    /// A client that trusts whom this endpoint trusts, for services beside registries.
    pub fn client(&self) -> Result<Http, PullError> {
        connect_with(self, false)
    }
}

/// Addresses that a registry has no business sending us to: this machine, its link, its cloud's metadata service.
pub(super) fn is_inward(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_inward(IpAddr::V4(v4)),
            // fd00:ec2::254 is the metadata service (EC2 user guide, "Instance metadata").
            None => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_unicast_link_local()
                    || v6.segments().starts_with(&[0xfd00, 0xec2])
            }
        },
    }
}

pub(super) fn connect_with(endpoint: &Endpoint, outward_only: bool) -> Result<Http, PullError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // A certificate that the system trusts and rustls cannot read is the system's problem, not this pull's.
        let _ = roots.add(certificate);
    }
    if let Some(pem) = &endpoint.ca_cert {
        use rustls_pki_types::pem::PemObject as _;
        for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| PullError::Authority(e.to_string()))?;
            roots
                .add(certificate)
                .map_err(|e| PullError::Authority(e.to_string()))?;
        }
    }
    let tls = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .map_err(|e| PullError::Authority(e.to_string()))?
    .with_root_certificates(roots)
    .with_no_client_auth();
    let mut tcp = HttpConnector::new_with_resolver(GuardedResolver {
        inner: GaiResolver::new(),
        outward_only,
    });
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(https))
}

/// Resolves names with the system's resolver and, for redirects, drops addresses that lead inwards.
#[derive(Debug, Clone)]
pub struct GuardedResolver {
    inner: GaiResolver,
    outward_only: bool,
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (lookup, outward_only) = (self.inner.call(name), self.outward_only);
        Box::pin(async move {
            let all: Vec<SocketAddr> = lookup
                .await?
                .filter(|address| !(outward_only && is_inward(address.ip())))
                .collect();
            match all.is_empty() {
                true => Err(std::io::Error::other(
                    "the name leads to no address that may be used",
                )),
                false => Ok(all.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_addresses_that_lead_inwards() {
        for inward in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_inward(inward.parse().unwrap()), "{inward}");
        }
        for outward in ["10.0.0.1", "192.0.2.1", "2001:db8::1"] {
            assert!(!is_inward(outward.parse().unwrap()), "{outward}");
        }
    }
}
