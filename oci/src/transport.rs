//! How bytes reach a registry: TLS with the system's CAs, names resolved by the system, and for
//! redirects no local address.

use crate::address::AddressClass;
use crate::error::PullError;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How registries may be reached: which CAs to trust, and which hosts to reach without TLS.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    /// Hosts to speak HTTP to without TLS: `host` or `host:port`, exactly as in the reference.
    pub plain_http: BTreeSet<String>,
    /// CA certificates (PEM) to trust beside the system's.
    pub ca_cert: Option<Vec<u8>>,
}

/// A client for HTTP and HTTPS that keeps connections and follows no redirects.
pub(crate) type Http = Client<HttpsConnector<HttpConnector<GuardedResolver>>, Full<Bytes>>;

/// Which addresses a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Wherever the names lead.
    Everywhere,
    /// Not to [local](AddressClass::is_local) addresses.
    Outward,
}

/// A client that trusts the CAs of `endpoint` and the system's. Reads the system's from the disk:
/// blocks for some milliseconds.
pub(crate) fn connect(endpoint: &Endpoint, reach: Reach) -> Result<Http, PullError> {
    let mut tcp = HttpConnector::new_with_resolver(GuardedResolver {
        inner: GaiResolver::new(),
        reach,
    });
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(endpoint.ca_cert.as_deref())?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(https))
}

fn tls_config(ca_cert: Option<&[u8]>) -> Result<ClientConfig, PullError> {
    let mut roots = RootCertStore::empty();
    // A certificate that the system trusts and rustls cannot read is the system's problem, not this
    // pull's.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in ca_cert.into_iter().flat_map(CertificateDer::pem_slice_iter) {
        let certificate = certificate.map_err(|e| PullError::Ca(e.to_string()))?;
        roots
            .add(certificate)
            .map_err(|e| PullError::Ca(e.to_string()))?;
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|e| PullError::Ca(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Resolves names with the system's resolver and, for redirects, drops local addresses.
#[derive(Debug, Clone)]
pub(crate) struct GuardedResolver {
    inner: GaiResolver,
    reach: Reach,
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (lookup, reach) = (self.inner.call(name), self.reach);
        Box::pin(async move {
            let all: Vec<SocketAddr> = lookup
                .await?
                .filter(|address| reach.allows(AddressClass::of(address.ip())))
                .collect();
            if all.is_empty() {
                return Err(std::io::Error::other(
                    "the name has no address that may be used",
                ));
            }
            Ok(all.into_iter())
        })
    }
}

impl Reach {
    fn allows(self, class: AddressClass) -> bool {
        match self {
            Reach::Everywhere => true,
            Reach::Outward => !class.is_local(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(name: &str, reach: Reach) -> Result<usize, String> {
        let mut resolver = GuardedResolver {
            inner: GaiResolver::new(),
            reach,
        };
        let found = resolver.call(name.parse().unwrap()).await;
        found.map(Iterator::count).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_redirect_reaches_no_local_address_by_name() {
        // The last is 127.0.0.1 to the system's resolver and no address to a parser.
        for local in ["localhost", "127.1", "2130706433"] {
            assert!(resolve(local, Reach::Everywhere).await.is_ok(), "{local}");
            let refused = resolve(local, Reach::Outward).await;
            assert_eq!(
                refused,
                Err("the name has no address that may be used".to_owned()),
                "{local}"
            );
        }
    }
}
