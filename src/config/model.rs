//! The validated configuration: what the rest of the program sees. Made only by the conversion from the
//! file as written; nothing here needs checking again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::secret::{CommandLine, SecretSource};

/// Everything that a run needs to know, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What a person would call the source: the file's path, or "environment".
    pub origin: String,
    /// The listeners and what holds for all callers.
    pub server: Server,
    /// The routes, in the order of the file.
    pub routes: Vec<Route>,
    /// Every credential that a route uses, named and inline; [`CredentialId`] indexes it.
    pub credentials: Vec<Credential>,
    /// Where grants and shared tokens are kept.
    pub store: Store,
    /// Environment variables that hold secrets: children never inherit them.
    pub secret_variables: Vec<String>,
}

/// The listeners and what holds for all callers.
#[derive(Debug, Clone)]
pub struct Server {
    /// Every bound address, those of single routes included; [`ListenId`] indexes it.
    pub listeners: Vec<Listener>,
    /// Administration and probes.
    pub admin: Admin,
    /// Threads of the data plane, at least 1.
    pub workers: usize,
    /// Names other than loopback's and the routes' that a Host may have: lower case, without port.
    pub hosts: Vec<String>,
    /// How long a caller may take for its request's header.
    pub header_timeout: Duration,
    /// How long a caller's connection may be silent, between requests and within a body.
    pub idle_timeout: Duration,
    /// How long new connections are still served after the signal to stop.
    pub drain_delay: Duration,
    /// How long running exchanges may take to finish after that.
    pub drain_timeout: Duration,
}

/// The listeners that are not for requests.
#[derive(Debug, Clone)]
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
}

/// Where a listener binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket, with the permission bits of its file (0600 by default).
    Unix {
        /// The socket's file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
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

/// A listener, host or path prefix → the upstream and the credential it carries.
#[derive(Debug, Clone)]
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
}

/// The `tls` table: `ca` verifies the peer, `cert` and `key` are ours. The global `ca` is already merged in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// PEM files with roots to trust besides the system's.
    pub ca: Vec<PathBuf>,
    /// PEM files with our certificate chain and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A named recipe for the header that authenticates.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name in the file; an inline one is called `route.NAME`.
    pub name: Arc<str>,
    /// How the header is made.
    pub kind: CredentialKind,
    /// How the token stands in a bearer header; [`Encoding::Plain`] where none is yielded.
    pub encoding: Encoding,
    /// Does readiness wait for it?
    pub required: bool,
    /// How long a request may wait for a token.
    pub lease_timeout: Duration,
    /// How many requests may wait for a token at once.
    pub lease_queue: usize,
    /// How long before its expiry a token is refreshed at the latest; none: chosen by its lifetime.
    pub margin: Option<Duration>,
    /// How long an account may be unused before its token is let go; none: for ever.
    pub idle_account: Option<Duration>,
    /// The header in which callers name the account; removed before forwarding.
    pub account_header: Option<HeaderName>,
}

/// How a token stands in the bearer header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// base64 of it, as Neo4j's documents describe.
    Base64,
}

/// How a credential's header is made.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a handful exist, made once at load")]
pub enum CredentialKind {
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// Without a colon.
        username: String,
        /// Any text.
        password: SecretSource,
    },
    /// `Authorization: Bearer` with a token that does not change by itself.
    Bearer {
        /// The token.
        token: SecretSource,
    },
    /// RFC 6749 §4.4; the preset `aura` is one too.
    ClientCredentials(ClientCredentials),
    /// RFC 6749 §4.1 with PKCE (RFC 7636): a login in the browser; the preset `neon_oauth` is one too.
    AuthorizationCode(AuthorizationCode),
    /// A command that prints a token as JSON.
    Exec {
        /// Program and arguments, run without a shell.
        command: CommandLine,
        /// How long it may run.
        timeout: Duration,
    },
    /// A header of any name, for keys that do not travel in Authorization.
    Header {
        /// The header's name.
        name: HeaderName,
        /// Its whole value.
        value: SecretSource,
    },
}

/// The client credentials grant (RFC 6749 §4.4).
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// Where tokens are asked for; https, or http on loopback or where allowed.
    pub token_url: Endpoint,
    /// The API clients; at least one. More than one share the requests by [`Strategy`].
    pub clients: Vec<ApiClient>,
    /// How several clients are used.
    pub strategy: Strategy,
    /// How a client shows who it is (RFC 6749 §2.3).
    pub auth_method: AuthMethod,
    /// Are id and secret form-encoded before they go into Basic (RFC 6749 §2.3.1)?
    pub basic_encoding: BasicEncoding,
    /// Scopes to ask for, space-separated; none: not sent.
    pub scope: Option<String>,
    /// Audience to ask for; none: not sent.
    pub audience: Option<String>,
    /// More form fields for the token endpoint, in the order of the file.
    pub params: Vec<(String, String)>,
    /// TLS towards the token endpoint.
    pub tls: TlsSettings,
    /// How long one fetch may take.
    pub fetch_timeout: Duration,
}

/// One API client of a credential.
#[derive(Debug, Clone)]
pub struct ApiClient {
    /// Its name for logs: as given in `clients`, else the credential's.
    pub name: Arc<str>,
    /// The client id.
    pub client_id: String,
    /// Its secret; none with `auth_method = "none"` or `"private_key_jwt"`.
    pub client_secret: Option<SecretSource>,
    /// What it signs its assertions with; with `auth_method = "private_key_jwt"`.
    pub signing_key: Option<SigningKey>,
}

/// A private key that signs client assertions (RFC 7523 §2.2).
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// PEM (PKCS #8, SEC 1 or PKCS #1), several lines.
    pub key: SecretSource,
    /// `kid`; none: not sent.
    pub id: Option<String>,
    /// `alg`.
    pub algorithm: SigningAlgorithm,
}

/// How a client assertion is signed (RFC 7518 §3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// A login in the browser (RFC 6749 §4.1, RFC 7636, RFC 8252).
#[derive(Debug, Clone)]
pub struct AuthorizationCode {
    /// Where the login happens and tokens are asked for.
    pub server: AuthorizationServer,
    /// The client, as registered there; its name is the credential's.
    pub client: ApiClient,
    /// How the client shows who it is; as registered, without fallback.
    pub auth_method: AuthMethod,
    /// Are id and secret form-encoded before they go into Basic (RFC 6749 §2.3.1)?
    pub basic_encoding: BasicEncoding,
    /// Where the browser returns to.
    pub redirect_uri: RedirectUri,
    /// Scopes to ask for, space-separated; none: not sent.
    pub scope: Option<String>,
    /// More form fields for the token endpoint, in the order of the file.
    pub params: Vec<(String, String)>,
    /// More query fields for the page where the browser logs in, in the order of the file.
    pub auth_params: Vec<(String, String)>,
    /// TLS towards the authorization server.
    pub tls: TlsSettings,
    /// May discovered endpoints be `http://` and not on this machine?
    pub allow_cleartext: bool,
    /// How long one fetch may take.
    pub fetch_timeout: Duration,
    /// How long a person may take for a login.
    pub login_timeout: Duration,
}

impl AuthorizationCode {
    /// Whom its grants are of, for the store: the issuer, or the token endpoint where none is named.
    pub fn issuer(&self) -> String {
        match &self.server {
            AuthorizationServer::Discovered { issuer }
            | AuthorizationServer::Known { issuer: Some(issuer), .. } => issuer.clone(),
            AuthorizationServer::Known { token_url, .. } => token_url.to_string(),
        }
    }
}

/// Where an authorization server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizationServer {
    /// Its metadata says (RFC 8414, OpenID Connect Discovery 1.0).
    Discovered {
        /// Its issuer identifier, exactly as written; https, or http where that is allowed.
        issuer: String,
    },
    /// The configuration says.
    Known {
        /// Its issuer identifier, exactly; none: `iss` of a callback is not looked at (RFC 9207).
        issuer: Option<String>,
        /// Where the browser logs in; an absolute URL without a fragment.
        auth_url: String,
        /// Where tokens are asked for.
        token_url: Endpoint,
        /// Where grants are revoked (RFC 7009); none: they are only forgotten.
        revoke_url: Option<Endpoint>,
    },
}

/// Where the browser returns to: `http://` on loopback (RFC 8252 §7.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectUri {
    /// Exactly as registered and written.
    pub text: String,
    /// Its host as written, for the Host of the browser's requests: `localhost`, `127.0.0.1` or `[::1]`, lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its path, beginning with `/`.
    pub path: String,
}

/// Where grants and shared tokens are kept.
#[derive(Debug, Clone)]
pub struct Store {
    /// What kind of store.
    pub kind: StoreKind,
    /// What seals: the first seals, all open. Empty: nothing is sealed.
    pub encryption_keys: Vec<SecretSource>,
}

/// What kind of store.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// This process's memory: gone when it ends.
    Memory,
    /// A directory of its own.
    File {
        /// The directory.
        path: PathBuf,
    },
    /// Redis or Valkey.
    Redis(RedisStore),
}

/// A Redis or Valkey server.
#[derive(Debug, Clone)]
pub struct RedisStore {
    /// Where; `base_path` is unused. TLS for `rediss://`.
    pub server: Upstream,
    /// The number of the database.
    pub database: i64,
    /// Who asks; none: the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretSource>,
    /// Before every key.
    pub prefix: String,
    /// TLS towards it.
    pub tls: TlsSettings,
    /// How long one command may take.
    pub timeout: Duration,
}

/// How several API clients behind one credential are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The first that works.
    Failover,
    /// The least recently used.
    Spread,
}

/// Client authentication at the token endpoint (RFC 6749 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// HTTP Basic.
    Basic,
    /// `client_id` and `client_secret` in the body.
    Post,
    /// `client_id` in the body, no secret.
    None,
    /// A signed assertion in the body (RFC 7523 §2.2).
    PrivateKeyJwt,
}

/// How id and secret go into HTTP Basic at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasicEncoding {
    /// Form-urlencoded first, as RFC 6749 §2.3.1 says.
    Form,
    /// As they are, as curl's `--user` does and Aura expects.
    Raw,
}

/// A URL that sidekey itself calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The origin; its `base_path` is unused.
    pub origin: Upstream,
    /// Path and query, beginning with `/`.
    pub path_and_query: String,
}

impl std::fmt::Display for Endpoint {
    /// As a URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.origin.tls { "https" } else { "http" };
        let host = self.origin.host_header.to_str().unwrap_or_default();
        write!(f, "{scheme}://{host}{}", self.path_and_query)
    }
}
