//! The browser's half of a login: what is sent to the authorization server, and what comes back. Pure, but for the
//! random bits.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::answer::clean;
use super::client::Endpoints;
use crate::config::AuthorizationCode;
use crate::secret::Secret;

/// The longest query that a redirect back may have, in bytes.
const MAX_QUERY_BYTES: usize = 16 * 1024;

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
        Some(Self { state: random()?, verifier: random()? })
    }

    /// The URL of the page where the browser logs in (RFC 6749 §4.1.1, RFC 7636 §4.3).
    pub fn url(&self, endpoints: &Endpoints, config: &AuthorizationCode) -> String {
        let challenge = challenge(&self.verifier);
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &config.client.client_id)
            .append_pair("redirect_uri", &config.redirect_uri.text);
        if let Some(scope) = &config.scope {
            query.append_pair("scope", scope);
        }
        query
            .append_pair("state", self.state.expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(&config.auth_params);
        let base = &endpoints.auth_url;
        let joint = match base.split_once('?') {
            None => "?",
            Some((_, own)) if own.is_empty() || own.ends_with('&') => "",
            Some(_) => "&",
        };
        format!("{base}{joint}{}", query.finish())
    }
}

fn random() -> Option<Secret> {
    let mut bytes = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).ok()?;
    Some(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

/// S256 (RFC 7636 §4.2).
fn challenge(verifier: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.expose().as_bytes()))
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

/// Why a redirect back yields no code. For the log and for the person at the browser; holds no secret. The server's
/// words in it are cut and cleaned, but not escaped for HTML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A query beyond any bound.
    #[error(
        "the address that the browser came back with is far too long for an answer to a login, so it was not read; start the login again"
    )]
    TooLong,
    /// A parameter that is there twice (RFC 6749 §3.1).
    #[error(
        "the address that the browser came back with has `{0}` twice, so it cannot be believed; start the login again"
    )]
    Twice(&'static str),
    /// A `state` or `code` with characters that it cannot have (RFC 6749 §A.5, §A.11).
    #[error(
        "the address that the browser came back with has a damaged `{0}`; start the login again, and let the browser come back by itself"
    )]
    Damaged(&'static str),
    /// `iss` names another server (RFC 9207 §2.4).
    #[error(
        "the login began at {expected}, but {found:?} answered it, so nothing was accepted; start the login again, and if this comes again, do not log in and correct `issuer` in the configuration"
    )]
    WrongServer {
        /// The issuer that the login is with.
        expected: String,
        /// `iss`, cut and cleaned.
        found: String,
    },
    /// `iss` is not there, though the server promises it (RFC 9207 §2.4).
    #[error(
        "the answer to the login does not say which server it is from (`iss`), though {expected} promises to say so; nothing was accepted; start the login again"
    )]
    NoServer {
        /// The issuer that the login is with.
        expected: String,
    },
    /// `access_denied`: the person or the server said no.
    #[error(
        "access was not granted{}; if that was not meant, start the login again and allow the access",
        told(description)
    )]
    Denied {
        /// `error_description`, cut and cleaned.
        description: Option<String>,
    },
    /// Another error (RFC 6749 §4.1.2.1).
    #[error("the authorization server refused the login: {error}{}; {}", told(description), advice(error))]
    Refused {
        /// `error`, cut and cleaned.
        error: String,
        /// `error_description`, cut and cleaned.
        description: Option<String>,
    },
    /// Neither a code nor an error.
    #[error("the authorization server sent the browser back without a code; start the login again")]
    NoCode,
}

fn told(description: &Option<String>) -> String {
    description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

/// What to do about an error of RFC 6749 §4.1.2.1 or OpenID Connect Core §3.1.2.6.
fn advice(error: &str) -> &'static str {
    match error {
        "invalid_scope" => "correct `scope` in the configuration: the client may not ask for all of it",
        "unauthorized_client" | "unsupported_response_type" => {
            "the client must be registered for logins with an authorization code"
        }
        "invalid_request" => {
            "check that client_id, redirect_uri and scope are written as they are registered at the server"
        }
        "server_error" | "temporarily_unavailable" => "start the login again in a few minutes",
        "login_required" | "consent_required" | "interaction_required" | "account_selection_required" => {
            "start the login again, and if auth_params has `prompt`, remove it"
        }
        _ => {
            "start the login again, and if this comes again, check how the client is registered at the server"
        }
    }
}

impl Callback {
    /// Reads the query of a redirect back, without its `?`. One of its parameters that is there twice is an error
    /// (RFC 6749 §3.1), one without a value is not there, an unknown one is ignored.
    ///
    /// # Errors
    /// [`CallbackError`] where the query is too long, has a parameter twice or a damaged one.
    pub fn parse(query: &str) -> Result<Self, CallbackError> {
        const NAMES: [&str; 5] = ["state", "code", "iss", "error", "error_description"];
        if query.len() > MAX_QUERY_BYTES {
            return Err(CallbackError::TooLong);
        }
        let mut found: [Option<Zeroizing<String>>; 5] = Default::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(at) = NAMES.iter().position(|known| *known == name) else { continue };
            let value = Zeroizing::new(match value {
                Cow::Owned(text) => text,
                Cow::Borrowed(text) => text.to_owned(),
            });
            if found[at].replace(value).is_some() {
                return Err(CallbackError::Twice(NAMES[at]));
            }
        }
        let [state, code, iss, error, description] = found.map(|value| value.filter(|text| !text.is_empty()));
        let secret = |value: Option<Zeroizing<String>>, name| match value {
            Some(text) if !text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) => {
                Err(CallbackError::Damaged(name))
            }
            value => Ok(value.map(|text| Secret::new(text.as_str()))),
        };
        let (state, code) = (secret(state, "state")?, secret(code, "code")?);
        let hidden: Vec<Secret> = [&state, &code].into_iter().flatten().cloned().collect();
        let shown = |value: Option<Zeroizing<String>>| value.map(|text| clean(&text, &hidden));
        Ok(Self {
            iss: iss.map(|text| text.to_string()),
            error: shown(error),
            error_description: shown(description),
            state,
            code,
        })
    }

    /// The code, if the redirect is one from the right server; `state` is not looked at here.
    ///
    /// # Errors
    /// [`CallbackError`]: another server, an error of the right one, or no code.
    pub fn into_code(self, endpoints: &Endpoints) -> Result<Secret, CallbackError> {
        // First of all: what another server says is not worth reading (RFC 9207 §2.4).
        if let Some(expected) = &endpoints.issuer {
            match &self.iss {
                Some(iss) if iss != expected => {
                    let hidden: Vec<Secret> = [self.state, self.code].into_iter().flatten().collect();
                    let found = clean(iss, &hidden);
                    return Err(CallbackError::WrongServer { expected: expected.clone(), found });
                }
                None if endpoints.iss_required => {
                    return Err(CallbackError::NoServer { expected: expected.clone() });
                }
                _ => {}
            }
        }
        match (self.error, self.code) {
            (Some(error), _) if error == "access_denied" => {
                Err(CallbackError::Denied { description: self.error_description })
            }
            (Some(error), _) => Err(CallbackError::Refused { error, description: self.error_description }),
            (None, Some(code)) => Ok(code),
            (None, None) => Err(CallbackError::NoCode),
        }
    }
}

#[cfg(test)]
mod tests;
