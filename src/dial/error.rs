//! Why an origin cannot be reached.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Reserved;
use crate::header::IllegalCharacter;
use crate::secret::SecretError;
use crate::tls::OtherKey;

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
    /// The name leads to nothing but addresses that credentials must not go to.
    #[error(
        "{host} leads to {address}, {why}, where nothing is sent; is the name right, and the resolver?{}",
        leave(*.why, "beside it")
    )]
    Reserved {
        /// The name.
        host: String,
        /// The first of its addresses.
        address: IpAddr,
        /// Why nothing goes there.
        why: Reserved,
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
    /// The egress proxy does not lead there.
    #[error("the egress proxy {proxy} does not lead to {origin}")]
    Proxy {
        /// The proxy's host and port.
        proxy: Box<str>,
        /// The origin's host and port.
        origin: Box<str>,
        /// Why not.
        #[source]
        source: Box<ProxyFault>,
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
    /// It has another public key than those that are pinned.
    #[error("TLS with {host} failed")]
    OtherKey {
        /// The host.
        host: String,
        /// Which one it has.
        #[source]
        source: OtherKey,
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
        let source = match self {
            Self::OtherKey { .. } => return true,
            Self::Tls { source, .. } => source,
            _ => return false,
        };
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
    }

    /// Does the peer speak none of the protocols that it was offered (RFC 7301 §3.2)?
    pub fn is_other_protocol(&self) -> bool {
        let Self::Tls { source, .. } = self else { return false };
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let alert = rustls::AlertDescription::NoApplicationProtocol;
        matches!(inner, Some(rustls::Error::AlertReceived(received)) if *received == alert)
    }
}

/// What to write where that is meant.
fn leave(why: Reserved, place: &str) -> String {
    match why {
        Reserved::LinkLocal | Reserved::Metadata => {
            format!(" (or, knowingly, write allow_link_local = true {place})")
        }
        Reserved::NoMachine => String::new(),
    }
}

/// Why an egress proxy opens no tunnel. Holds nothing that the proxy sent but its status.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// Its name has no address.
    #[error("its name cannot be looked up")]
    Lookup(#[source] io::Error),
    /// Its name leads to nothing but addresses that nothing may go to.
    #[error(
        "its name leads to {address}, {why}, where nothing is sent; is the name right, and the resolver?{}",
        leave(*.why, "in the table `egress_proxy`")
    )]
    Reserved {
        /// The first of its addresses.
        address: IpAddr,
        /// Why nothing goes there.
        why: Reserved,
    },
    /// It does not accept connections.
    #[error("it does not accept connections")]
    Connect(#[source] io::Error),
    /// The password for it cannot be read.
    #[error("the password for it cannot be read")]
    Password(#[source] SecretError),
    /// The user name or password for it cannot be sent.
    #[error("the user name or password for it cannot be sent")]
    Login(#[source] IllegalCharacter),
    /// 407 (RFC 9110 §15.5.8).
    #[error("it wants another user name and password (407)")]
    Unauthenticated,
    /// Another status than success.
    #[error("it refuses with status {0}")]
    Refused(u16),
    /// Its answer is not HTTP.
    #[error("what it answers is not HTTP; is it an HTTP proxy?")]
    Garbage,
    /// The header of its answer has no end.
    #[error("the header of its answer is longer than {0} bytes")]
    TooLong(usize),
    /// The connection to it ended before it answered.
    #[error("the connection to it ended before it answered")]
    Closed(#[source] io::Error),
    /// It took too long.
    #[error("it opened no way within {0:?}")]
    Timeout(Duration),
}
