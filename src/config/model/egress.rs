//! The way out of the network: egress proxies, and the origins that are reached without one.

use std::fmt;
use std::sync::Arc;

use super::Upstream;
use crate::config::is_this_machine;
use crate::config::no_proxy::NoProxy;
use crate::secret::{Secret, SecretSource};

/// An HTTP proxy that opens tunnels with CONNECT (RFC 9110 §9.3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressProxy {
    /// Host name or address, lower case, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What it is shown (RFC 7617); none: nothing.
    pub login: Option<ProxyLogin>,
    /// May its name lead to a link-local address, or to that of a metadata service?
    pub allow_link_local: bool,
}

/// A user name and password for an egress proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    /// Some proxies take a key in the place of a user name.
    pub username: Secret,
    /// Never a command.
    pub password: SecretSource,
}

impl EgressProxy {
    /// Host and port, as a URL has them.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// Host and port as a URL has them (RFC 3986 §3.2): IPv6 in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for EgressProxy {
    /// As a URL, without the login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// Which proxy leads to which origin. The default: none to any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// To `https://` origins.
    pub https: Option<Arc<EgressProxy>>,
    /// To `http://` origins.
    pub http: Option<Arc<EgressProxy>>,
    /// What is reached without either.
    pub except: NoProxy,
}

impl Egress {
    /// The proxy that leads to an origin; none: it is reached directly.
    pub fn way_to(&self, origin: &Upstream) -> Option<Arc<EgressProxy>> {
        let proxy = if origin.tls { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| self.leads_to(origin)).map(Arc::clone)
    }

    /// Is it an origin that a proxy, if there is one, leads to? This machine never is.
    pub fn leads_to(&self, origin: &Upstream) -> bool {
        !is_this_machine(&origin.host) && !self.except.takes(&origin.host, origin.port)
    }
}
