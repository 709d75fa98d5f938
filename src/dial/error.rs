//! Why an origin cannot be reached.

use std::io;
use std::time::Duration;

/// Why an origin could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot look up {host}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nobody accepts the connection.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the system said of the address that tells most.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed: most often a certificate that does not verify.
    #[error("TLS with {host} failed")]
    Tls {
        /// The host.
        host: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("connecting to {host}:{port} took longer than {limit:?}")]
    Timeout {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The limit that passed.
        limit: Duration,
    },
}

impl DialError {
    /// Is a certificate the reason, rather than the network?
    pub fn is_certificate(&self) -> bool {
        let Self::Tls { source, .. } = self else { return false };
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
    }
}
