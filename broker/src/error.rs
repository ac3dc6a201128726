//! Why the broker cannot start.

use crate::keys::KeyError;
use crate::provider::ProviderError;
use crate::tls::TlsError;
use explain::{Code, Explain};
use std::borrow::Cow;
use std::net::SocketAddr;

/// The broker cannot start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Nothing could be issued.
    #[error("broker.listen is set, but there is no [registry]")]
    NoRegistry,
    /// The registry's provider cannot be used.
    #[error("[registry]: {0}")]
    Registry(#[source] ProviderError),
    /// The keys of tokens, or the rules, cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Credentials would leave the machine unencrypted.
    #[error("broker.listen: {0} is not a loopback address, and TLS is not configured")]
    Plain(SocketAddr),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address is in use, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// `broker.listen`.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// Nothing would be allowed.
    #[error("broker.rate_per_minute is 0: every request would be refused")]
    Rate,
}

impl Explain for BrokerError {
    fn code(&self) -> Code {
        Code::ConfigurationInvalid
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            BrokerError::NoRegistry => {
                "Add [registry] to the configuration, or remove broker.listen."
            }
            BrokerError::Registry(_) => {
                "Correct [registry] in the configuration, or the file that it names."
            }
            BrokerError::Keys(error) => return error.next_step(),
            BrokerError::Plain(_) => {
                "Set broker.tls_cert and broker.tls_key, or listen on 127.0.0.1."
            }
            BrokerError::Tls(error) => return error.next_step(),
            BrokerError::Listen { .. } => {
                "Check that broker.listen is an address of this machine, and that its port is free."
            }
            BrokerError::Rate => "Set broker.rate_per_minute to 1 or more, or remove it.",
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use explain::Class;

    #[test]
    fn every_error_is_one_of_configuration_and_has_a_next_step() {
        let address = SocketAddr::from(([0, 0, 0, 0], 9443));
        for error in [
            BrokerError::NoRegistry,
            BrokerError::Registry(ProviderError::denied("no")),
            BrokerError::Keys(KeyError::NoKeys),
            BrokerError::Keys(KeyError::NoAudience),
            BrokerError::Plain(address),
            BrokerError::Tls(TlsError::Half),
            BrokerError::Listen {
                address,
                source: std::io::ErrorKind::AddrInUse.into(),
            },
            BrokerError::Rate,
        ] {
            assert_eq!(error.class(), Class::Config, "{error}");
            let next_step = error.next_step();
            assert!(next_step.ends_with('.'), "{error}: {next_step}");
        }
    }
}
