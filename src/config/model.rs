//! The validated configuration: what the rest of the program sees. Made only by the conversion from the
//! file as written; nothing here needs checking again.

mod caller;
mod cors;
mod credential;
mod egress;
mod oauth;
mod store;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::handed::HandedKind;
use super::pin::Pin;
use super::units::Rate;
use crate::rights::Rights;
use crate::secret::SecretSource;

pub use self::caller::*;
pub use self::cors::*;
pub use self::credential::*;
pub use self::egress::*;
pub use self::oauth::*;
pub use self::store::*;

/// Everything that a run needs to know, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What a person would call the source: the file's path, or "environment".
    pub origin: String,
    /// The listeners and what holds for all callers.
    pub server: Server,
    /// The routes, in the order of the file.
    pub routes: Vec<Route>,
    /// Every credential that a route uses, named and inline; [`CredentialId`] indexes it.
    pub credentials: Vec<Credential>,
    /// Who may use the proxy, and how far; empty: whoever connects. [`CallerId`] indexes it.
    pub callers: Vec<Caller>,
    /// Where grants and shared tokens are kept.
    pub store: Store,
    /// Environment variables that children never inherit: those that hold secrets, and those that tell of sockets handed
    /// over.
    pub secret_variables: Vec<String>,
    /// Files that texts came from which are no secrets.
    pub text_files: Vec<PathBuf>,
}

/// The listeners and what holds for all callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Every bound address, those of single routes included; [`ListenId`] indexes it.
    pub listeners: Vec<Listener>,
    /// Administration and probes.
    pub admin: Admin,
    /// Threads of the data plane, at least 1.
    pub workers: usize,
    /// Names other than loopback's and the routes' that a Host may have: lower case, without port.
    pub hosts: Vec<String>,
    /// Is the process confined to the files and TCP ports that the configuration needs?
    pub sandbox: bool,
    /// How long a caller may take for its request's header.
    pub header_timeout: Duration,
    /// How long a caller's connection may be silent, between requests and within a body.
    pub idle_timeout: Duration,
    /// How much callers may take at once.
    pub limits: Limits,
    /// How long new connections are still served after the signal to stop.
    pub drain_delay: Duration,
    /// How long running exchanges may take to finish after that.
    pub drain_timeout: Duration,
    /// Is there a line on standard output for each request?
    pub access_log: bool,
    /// Does each request get an `X-Request-Id`, upstream and in its answer?
    pub request_id: bool,
}

/// How much callers may take at once; each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all callers; none: as many as the files that the process may open allow.
    pub connections: Option<usize>,
    /// Requests of all callers.
    pub requests: usize,
    /// Bytes of a request's header.
    pub header_size: usize,
    /// Lines of a request's header.
    pub headers: usize,
    /// Bytes of a request's path and query.
    pub target: usize,
    /// HTTP/2: requests at once on one connection.
    pub streams: u32,
    /// HTTP/2: requests taken back before they are answered, beyond those that are answered.
    pub resets: usize,
}

/// The listeners that are not for requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The admin listener's loopback address; none: it is off.
    pub listen: Option<SocketAddr>,
    /// What its POSTs need; none: made at the start and written to a runtime file.
    pub token: Option<SecretSource>,
    /// May anybody who reaches it stop the instance?
    pub open_quit: bool,
    /// A listener for probes alone.
    pub health: Option<SocketAddr>,
}

/// Index into [`Server::listeners`].
pub type ListenId = usize;
/// Index into [`Config::credentials`].
pub type CredentialId = usize;

/// A bound address on which callers connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub bind: Bind,
    /// A listener opened by one route alone serves only that route.
    pub shared: bool,
    /// TLS towards its callers; none: clear text.
    pub tls: Option<ListenerTlsSettings>,
}

impl Listener {
    /// What its callers' URLs begin with: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Where a listener binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// The socket's file.
        path: PathBuf,
        /// Who may connect to it.
        access: Access,
    },
    /// A socket that a service manager hands over.
    Systemd {
        /// Its name.
        name: String,
        /// Its place among those of the same name, from 0.
        number: usize,
        /// What it is; none: that is seen where it is handed over, and this is somewhere else.
        kind: Option<HandedKind>,
    },
}

impl Bind {
    /// The TCP address, as far as there is one and it is known.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Systemd { kind: Some(HandedKind::Tcp(address)), .. } => Some(*address),
            _ => None,
        }
    }

    /// Is it known to be a Unix socket?
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix { .. } | Self::Systemd { kind: Some(HandedKind::Unix(_)), .. })
    }
}

impl fmt::Display for Bind {
    /// As the file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
            Self::Systemd { name, .. } => write!(f, "systemd:{name}"),
        }
    }
}

/// What a Unix socket's file lets others do; to connect takes the right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// The user that it is given to; none: whoever runs sidekey.
    pub owner: Option<u32>,
    /// The group that it is given to; none: the group of whoever runs sidekey.
    pub group: Option<u32>,
}

impl Default for Access {
    /// For whoever runs sidekey alone.
    fn default() -> Self {
        Self { mode: 0o600, owner: None, group: None }
    }
}

/// What kind of service a route talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The Neo4j Aura API.
    Aura,
    /// A Neo4j server's HTTP API and Query API.
    Neo4j,
    /// The Neon API.
    Neon,
    /// Any other HTTP API.
    Generic,
}

/// Which HTTP an upstream is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpVersion {
    /// What both speak, by ALPN; HTTP/1.1 in clear text.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, in clear text by prior knowledge (RFC 9113 §3.3).
    Http2,
}

/// A listener, host or path prefix → the upstream and the credential it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name in the file.
    pub name: Arc<str>,
    /// What kind of service it talks to.
    pub provider: Provider,
    /// What it matches; any one is enough.
    pub matches: Matches,
    /// Where its requests go, and nowhere else.
    pub upstream: Upstream,
    /// What its requests carry; none: they are forwarded without a credential.
    pub credential: Option<CredentialId>,
    /// Which account of the credential it carries; none: the credential's only one, or the one that callers name.
    pub account: Option<Arc<str>>,
    /// TLS towards the upstream; the roots always include the system's.
    pub tls: TlsSettings,
    /// How long connecting may take, TLS handshake included.
    pub connect_timeout: Duration,
    /// How long the upstream may take from the end of the request to the head of its answer; none: for ever.
    pub response_timeout: Option<Duration>,
    /// Body bytes kept for a replay with a new token; 0 turns replays of bodies off.
    pub replay_body: usize,
    /// Upstream statuses that may mean that the token was refused.
    pub refused_statuses: Vec<u16>,
    /// Which HTTP its upstream is spoken to in.
    pub http: HttpVersion,
    /// Connections to the upstream at once, of all workers; none: as many as there are requests.
    pub max_connections: Option<usize>,
    /// Requests of all workers that may wait for one of these.
    pub max_queue: usize,
    /// How long an unused connection to the upstream is kept.
    pub idle_timeout: Duration,
    /// HTTP/1.1: do header names keep the case that they came in?
    pub preserve_header_case: bool,
    /// How many requests may go in a time; all hold, one for each unit at most; empty: as many as come.
    pub pace: Vec<Rate>,
    /// How long a request may wait for its turn.
    pub pace_wait: Duration,
    /// The path, in its normal form and without what the route matched, at which sidekey itself answers clients that
    /// fetch a token; none: it answers nowhere.
    pub local_token_endpoint: Option<Box<str>>,
    /// The web pages that it is open to; none: it is open to no page.
    pub cors: Option<Cors>,
    /// Does a `%2F` in the path pass, as the content of its segment?
    pub passes_encoded_slash: bool,
    /// What may pass, by method and path behind the route's prefix.
    pub rights: Rights,
    /// Do only reading requests pass?
    pub read_only: bool,
}

/// What a route matches: the most specific of all routes wins, listener before host before longest path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// Listeners that are this route's alone.
    pub listeners: Vec<ListenId>,
    /// Host names, lower case, without port.
    pub hosts: Vec<String>,
    /// Path prefixes that begin with `/` and do not end with one; the empty prefix takes every path.
    pub paths: Vec<String>,
}

/// The origin that a route forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// https, or http where that is allowed.
    pub tls: bool,
    /// Host name or address, lower case, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What stands before every forwarded path: empty, or `/…` without a trailing slash.
    pub base_path: String,
    /// The Host header to send, port included unless it is the scheme's own.
    pub host_header: HeaderValue,
    /// The egress proxy that leads there; none: it is reached directly.
    pub via: Option<Arc<EgressProxy>>,
    /// May its name lead to a link-local address, or to that of a metadata service?
    pub allow_link_local: bool,
}

/// The `tls` table: `ca` or `pin` verifies the peer, `cert` and `key` are ours. The global table is already merged in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// PEM files with roots to trust besides the system's.
    pub ca: Vec<PathBuf>,
    /// The public keys, one of which the peer must have; then nothing else of its certificate counts, nor does `ca`.
    /// Empty: its certificate is verified.
    pub pins: Vec<Pin>,
    /// PEM files with our certificate chain and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsSettings {
    /// Every file that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let own = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        self.ca.iter().chain(own).map(PathBuf::as_path)
    }
}

/// The `tls` table of a listener: `cert` and `key` are ours, `ca` verifies callers. Nothing global is merged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTlsSettings {
    /// PEM file with our certificate chain, the listener's own first.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM files with roots, one of which must have issued a caller's certificate; none: callers need no certificate.
    pub client_ca: Vec<PathBuf>,
}

/// A URL that sidekey itself calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The origin; its `base_path` is unused.
    pub origin: Upstream,
    /// Path and query, beginning with `/`.
    pub path_and_query: String,
}

impl fmt::Display for Endpoint {
    /// As a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.origin.tls { "https" } else { "http" };
        let host = self.origin.host_header.to_str().unwrap_or_default();
        write!(f, "{scheme}://{host}{}", self.path_and_query)
    }
}
