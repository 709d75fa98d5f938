//! The one place where a header that authenticates is made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::config::Encoding;
use crate::secret::Secret;

/// A header that authenticates: its value is marked sensitive and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthHeader {
    /// Its name: Authorization for all but the credential type `header`.
    pub name: HeaderName,
    value: HeaderValue,
}

/// The secret has a character that no header may carry. Does not say which secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("it holds a character that a header must not carry (a space or line break?)")]
pub struct IllegalCharacter;

impl AuthHeader {
    /// `Basic` of UTF-8 `username:password` (RFC 7617 §2).
    pub fn basic(username: &str, password: &Secret) -> Result<Self, IllegalCharacter> {
        let plain = Zeroizing::new(format!("{username}:{}", password.expose()));
        Self::authorization("Basic ", &Zeroizing::new(STANDARD.encode(plain.as_bytes())))
    }

    /// `Bearer` with the token as it is or in base64 (RFC 6750 §2.1).
    pub fn bearer(token: &Secret, encoding: Encoding) -> Result<Self, IllegalCharacter> {
        match encoding {
            Encoding::Base64 => {
                Self::authorization("Bearer ", &Zeroizing::new(STANDARD.encode(token.expose())))
            }
            Encoding::Plain if is_one_word(token.expose()) => Self::authorization("Bearer ", token.expose()),
            Encoding::Plain => Err(IllegalCharacter),
        }
    }

    /// A header of any name with the secret as its whole value.
    pub fn named(name: HeaderName, value: &Secret) -> Result<Self, IllegalCharacter> {
        Self::new(name, value.clone())
    }

    fn authorization(scheme: &str, rest: &str) -> Result<Self, IllegalCharacter> {
        let mut text = String::with_capacity(scheme.len() + rest.len());
        text.push_str(scheme);
        text.push_str(rest);
        Self::new(http::header::AUTHORIZATION, Secret::new(text))
    }

    /// The value's clones, one for each request, share its bytes, which are wiped when the last of them is dropped.
    fn new(name: HeaderName, value: Secret) -> Result<Self, IllegalCharacter> {
        let mut value = HeaderValue::from_maybe_shared(value.into_bytes()).map_err(|_| IllegalCharacter)?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }

    /// The value, marked sensitive; cloning it shares its bytes.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl std::fmt::Debug for AuthHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthHeader({}: …)", self.name)
    }
}

/// A bearer token is one word of visible ASCII; anything else would end the header or begin a second value.
fn is_one_word(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(header: Result<AuthHeader, IllegalCharacter>) -> String {
        header.unwrap().value().to_str().unwrap().to_owned()
    }

    #[test]
    fn basic_is_the_documents_own_example() {
        let header = AuthHeader::basic("neo4j", &Secret::new("verysecret"));
        assert_eq!(text(header), "Basic bmVvNGo6dmVyeXNlY3JldA==");
    }

    #[test]
    fn a_base64_bearer_is_the_documents_example_without_its_newline() {
        let header = AuthHeader::bearer(&Secret::new("xbhkjnlvianztghqwawxqfe"), Encoding::Base64);
        assert_eq!(text(header), "Bearer eGJoa2pubHZpYW56dGdocXdhd3hxZmU=");
    }

    #[test]
    fn a_password_with_letters_beyond_ascii_is_utf8() {
        // RFC 7617 §2.1 has this example, of user-id `test` and password `123£`.
        assert_eq!(text(AuthHeader::basic("test", &Secret::new("123£"))), "Basic dGVzdDoxMjPCow==");
    }

    #[test]
    fn a_token_that_is_not_one_word_is_refused() {
        for token in ["", "two words", "line\nbreak", "carriage\rreturn", "tab\t", "nul\0", "ü"] {
            let header = AuthHeader::bearer(&Secret::new(token), Encoding::Plain);
            assert_eq!(header.err(), Some(IllegalCharacter), "{token:?}");
        }
    }

    #[test]
    fn debug_shows_no_value_and_the_value_is_sensitive() {
        let header = AuthHeader::bearer(&Secret::new("canary"), Encoding::Plain).unwrap();
        assert_eq!(format!("{header:?}"), "AuthHeader(authorization: …)");
        assert_eq!(format!("{:?}", header.value()), "Sensitive");
    }
}
