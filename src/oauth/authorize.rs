//! The browser's half of a login: what is sent to the authorization server, and what comes back. Pure, but for the
//! random bits.

use super::client::Endpoints;
use crate::config::AuthorizationCode;
use crate::secret::Secret;

/// One login that was begun: made anew for each, used once.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// `state`: 256 random bits (RFC 6749 §10.12).
    pub state: Secret,
    /// The code verifier (RFC 7636 §4.1).
    pub verifier: Secret,
}

impl Attempt {
    /// A new one; none if the system gives no random bytes.
    pub fn new() -> Option<Self> {
        todo!()
    }

    /// The URL of the page where the browser logs in (RFC 6749 §4.1.1, RFC 7636 §4.3).
    pub fn url(&self, _endpoints: &Endpoints, _config: &AuthorizationCode) -> String {
        todo!()
    }
}

/// What a browser brought back to the redirect URI, as it stands in the query.
#[derive(Debug, Clone, Default)]
pub struct Callback {
    /// `state`.
    pub state: Option<Secret>,
    /// `code`.
    pub code: Option<Secret>,
    /// `iss` (RFC 9207).
    pub iss: Option<String>,
    /// `error`, cut and cleaned.
    pub error: Option<String>,
    /// `error_description`, cut and cleaned.
    pub error_description: Option<String>,
}

/// Why a redirect back yields no code. For the log and for the person at the browser; holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// TODO
    #[error("todo")]
    Todo,
}

impl Callback {
    /// Reads the query of a redirect back. A parameter that is there twice is an error (RFC 6749 §3.1).
    pub fn parse(_query: &str) -> Result<Self, CallbackError> {
        todo!()
    }

    /// The code, if the redirect is one from the right server; `state` is not looked at here.
    pub fn into_code(self, _endpoints: &Endpoints) -> Result<Secret, CallbackError> {
        todo!()
    }
}
