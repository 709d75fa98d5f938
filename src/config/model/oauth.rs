//! What the OAuth grants need: clients, endpoints, redirect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Egress, Endpoint, TlsSettings};
use crate::secret::SecretSource;

/// The client credentials grant (RFC 6749 §4.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Where tokens are asked for; https, or http on loopback or where allowed.
    pub token_url: Endpoint,
    /// The API clients; at least one. More than one share the requests by [`Strategy`].
    pub clients: Vec<Arc<ApiClient>>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizationCode {
    /// Where the login happens and tokens are asked for.
    pub server: AuthorizationServer,
    /// The client, as registered there; its name is the credential's.
    pub client: Arc<ApiClient>,
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
    /// The way to discovered endpoints; to known ones it is in themselves.
    pub egress: Egress,
    /// May discovered endpoints be `http://` and not on this machine?
    pub allow_cleartext: bool,
    /// May they lead to link-local addresses, or to those of metadata services?
    pub allow_link_local: bool,
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
#[expect(clippy::large_enum_variant, reason = "a handful exist, made once at load")]
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

impl fmt::Debug for ClientCredentials {
    /// Without the values of `params`, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            token_url,
            clients,
            strategy,
            auth_method,
            basic_encoding,
            scope,
            audience,
            params,
            tls,
            fetch_timeout,
        } = self;
        f.debug_struct("ClientCredentials")
            .field("token_url", token_url)
            .field("clients", clients)
            .field("strategy", strategy)
            .field("auth_method", auth_method)
            .field("basic_encoding", basic_encoding)
            .field("scope", scope)
            .field("audience", audience)
            .field("params", &names(params))
            .field("tls", tls)
            .field("fetch_timeout", fetch_timeout)
            .finish()
    }
}

impl fmt::Debug for AuthorizationCode {
    /// Without the values of `params` and `auth_params`, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            client,
            auth_method,
            basic_encoding,
            redirect_uri,
            scope,
            params,
            auth_params,
            tls,
            egress,
            allow_cleartext,
            allow_link_local,
            fetch_timeout,
            login_timeout,
        } = self;
        f.debug_struct("AuthorizationCode")
            .field("server", server)
            .field("client", client)
            .field("auth_method", auth_method)
            .field("basic_encoding", basic_encoding)
            .field("redirect_uri", redirect_uri)
            .field("scope", scope)
            .field("params", &names(params))
            .field("auth_params", &names(auth_params))
            .field("tls", tls)
            .field("egress", egress)
            .field("allow_cleartext", allow_cleartext)
            .field("allow_link_local", allow_link_local)
            .field("fetch_timeout", fetch_timeout)
            .field("login_timeout", login_timeout)
            .finish()
    }
}

fn names(fields: &[(String, String)]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}
