//! The credential broker, as a CI job meets it.

mod audit;
mod issuer;
mod keys;
mod startup;
mod tls;
mod watched;

/// `[registry] type = "docker"`: the broker says where to push, and issues nothing.
pub(crate) const DOCKER: [(&str, &str); 2] = [
    ("HOST_PROXY_REGISTRY__TYPE", "docker"),
    ("HOST_PROXY_REGISTRY__REGISTRY_URL", "localhost:5000"),
];
