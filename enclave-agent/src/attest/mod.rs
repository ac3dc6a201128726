//! HTTP for those who want attestation documents: relying parties on port 9004 ([`endpoint`]), and
//! the workload on a socket of its own ([`socket`]). One request a connection, and what each side
//! may ask for is bounded by its lane of the NSM's queue.

mod endpoint;
mod http;
mod query;
mod socket;

pub(crate) use endpoint::serve;
pub(crate) use socket::serve as serve_workload;
