//! What a client asks of the local token endpoint, and why it gets nothing (RFC 6749 §2.3.1, §4.4, §5.2). Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A client's request for a token.
#[derive(Debug)]
pub(super) struct TokenRequest {
    /// Id and secret as the client may have meant them: form-urlencoded in Basic, as RFC 6749 §2.3.1 has it, or as they
    /// are, as most clients do. Empty: it shows none.
    shown: Vec<(String, Secret)>,
    grant_type: Option<String>,
}

/// Why a client gets no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It is no POST.
    #[error("a token is asked for with another method than POST")]
    Method,
    /// Its body is longer than any token request.
    #[error("the token request is too large")]
    TooLarge,
    /// It is malformed, and how.
    #[error("the token request is malformed: {0}")]
    Malformed(&'static str),
    /// It does not show who it is, or shows it wrong.
    #[error("the client of the token request is no caller, or shows another secret than the caller's token")]
    Client,
    /// The caller may not use the route.
    #[error("the caller that asks for a token may not use the route")]
    NotAllowed,
    /// It wants another grant than the client credentials'.
    #[error("the token request is for another grant type than client_credentials")]
    GrantType,
}

/// A refusal in the words of each side.
pub(super) struct Words {
    pub(super) status: StatusCode,
    /// `error` of RFC 6749 §5.2.
    pub(super) error: &'static str,
    /// `Sidekey-Error`.
    pub(super) code: &'static str,
    /// `error_description`: ASCII without quotes and backslashes.
    pub(super) text: &'static str,
}

impl TokenRefusal {
    pub(super) fn words(self) -> Words {
        let of = |status, error, code, text| Words { status, error, code, text };
        let bad = StatusCode::BAD_REQUEST;
        match self {
            Self::Method => of(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request",
                "method_refused",
                "Tokens are asked for with POST; sidekey answers here itself.",
            ),
            Self::TooLarge => of(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request",
                "too_large",
                "The body is longer than 16 KiB, and so no token request.",
            ),
            Self::Malformed(text) => of(bad, "invalid_request", "bad_request", text),
            Self::Client => of(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "caller_unknown",
                "Show an id and a secret. Where sidekey has callers, client_id is the name of one, and client_secret \
                 the token of that one; else any will do.",
            ),
            Self::NotAllowed => {
                of(bad, "unauthorized_client", "not_allowed", "This caller may not use this route.")
            }
            Self::GrantType => of(
                bad,
                "unsupported_grant_type",
                "bad_request",
                "Only grant_type=client_credentials has a local token.",
            ),
        }
    }
}

impl TokenRequest {
    /// Reads a request's header and its whole body.
    ///
    /// # Errors
    /// Why there is no telling who asks. That nobody does is for [`Self::caller`] to say.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, TokenRefusal> {
        if !is_form(headers) {
            let text = "Send the parameters as application/x-www-form-urlencoded.";
            return Err(TokenRefusal::Malformed(text));
        }
        let mut form = Form::default();
        for (name, value) in form_urlencoded::parse(body) {
            let place = match &*name {
                "client_id" => &mut form.id,
                "client_secret" => &mut form.secret,
                "grant_type" => &mut form.grant_type,
                "scope" => &mut form.scope,
                // What sidekey does not know means nothing to it (§3.2).
                _ => continue,
            };
            if place.replace(Secret::new(value)).is_some() {
                return Err(TokenRefusal::Malformed("A parameter stands in the body more than once."));
            }
        }
        let basic = basic(headers)?;
        let shown = match (basic, form.id, form.secret) {
            (Some(basic), id, None) => {
                let of_another = |id: Secret| basic.iter().all(|(shown, _)| shown != id.expose());
                if id.is_some_and(of_another) {
                    let text = "The client_id in the body is not that of the Authorization.";
                    return Err(TokenRefusal::Malformed(text));
                }
                basic
            }
            (Some(_), _, Some(_)) => {
                let text = "The client shows its secret twice: in the Authorization and in the body.";
                return Err(TokenRefusal::Malformed(text));
            }
            // A secret that is empty may be left out (§2.3.1).
            (None, Some(id), secret) => {
                vec![(id.expose().to_owned(), secret.unwrap_or_else(|| Secret::new("")))]
            }
            (None, None, _) => Vec::new(),
        };
        // A parameter without a value is as good as none (§3.2).
        let grant_type = form.grant_type.map(|text| text.expose().to_owned()).filter(|text| !text.is_empty());
        Ok(Self { shown, grant_type })
    }

    /// Does the client show an id and a secret, whatever they are?
    pub(super) fn shows_any(&self) -> bool {
        !self.shown.is_empty()
    }

    /// The caller that the client shows itself to be, and the token that it showed. `known`: whose token that is, if it
    /// is the one's of that name.
    pub(super) fn caller<C>(&self, known: impl Fn(&str, &[u8]) -> Option<C>) -> Option<(C, &Secret)> {
        self.shown.iter().find_map(|(id, secret)| Some((known(id, secret.expose().as_bytes())?, secret)))
    }

    /// Is it for the only grant that there is here?
    ///
    /// # Errors
    /// That it is for another one, or says none.
    pub(super) fn judge_grant_type(&self) -> Result<(), TokenRefusal> {
        match self.grant_type.as_deref() {
            Some("client_credentials") => Ok(()),
            Some(_) => Err(TokenRefusal::GrantType),
            None => Err(TokenRefusal::Malformed("The parameter grant_type is missing.")),
        }
    }
}

/// The parameters that mean something.
#[derive(Default)]
struct Form {
    id: Option<Secret>,
    secret: Option<Secret>,
    grant_type: Option<Secret>,
    scope: Option<Secret>,
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// What an Authorization of Basic shows, in each way to read it. One of another scheme shows nothing here: a client may
/// send its last token along.
fn basic(headers: &HeaderMap) -> Result<Option<Vec<(String, Secret)>>, TokenRefusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(TokenRefusal::Malformed("There is more than one Authorization."));
    }
    let value = value.as_bytes().trim_ascii();
    let (scheme, encoded) =
        value.split_at(value.iter().position(|byte| *byte == b' ').unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Ok(None);
    }
    let malformed = TokenRefusal::Malformed("The Authorization is not Basic with base64 of id:secret.");
    let plain = Zeroizing::new(STANDARD.decode(encoded.trim_ascii()).map_err(|_| malformed)?);
    let plain = std::str::from_utf8(&plain).map_err(|_| malformed)?;
    let (id, secret) = plain.split_once(':').ok_or(malformed)?;
    let (decoded_id, decoded_secret) = (form_decoded(id), Zeroizing::new(form_decoded(secret).into_owned()));
    let mut shown = vec![(id.to_owned(), Secret::new(secret))];
    if decoded_id != id || *decoded_secret != secret {
        shown.push((decoded_id.into_owned(), Secret::new(decoded_secret.as_str())));
    }
    Ok(Some(shown))
}

/// A half of Basic as a form would hold it.
fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    // With an `=` in front the whole text is one value, whatever `=` it holds itself; `&` would end it.
    let pair = Zeroizing::new(format!("={}", text.replace('&', "%26")));
    let value = form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).next();
    Cow::Owned(value.unwrap_or_default())
}

#[cfg(test)]
mod tests;
