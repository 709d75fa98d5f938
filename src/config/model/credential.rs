//! Credentials: named recipes for the header that authenticates.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{AuthorizationCode, ClientCredentials};
use crate::secret::{CommandLine, SecretSource};

/// A named recipe for the header that authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
