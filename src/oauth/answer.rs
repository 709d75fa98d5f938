//! What a token endpoint or a token command said: from text to a token or a named error. Pure.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::client::Granted;
use crate::fetch::Answer;
use crate::secret::Secret;

/// A token whose answer names no lifetime is taken to live this long (RFC 6749 §5.1 leaves it to documentation).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// Longer lifetimes are cut to this: ten years.
pub const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A token as it was given, before it has a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The token.
    pub token: Secret,
    /// How long it lives, from the moment that it was asked for.
    pub lifetime: Duration,
}

/// What is wrong with an answer. No variant holds a token; what the server says of an error is cut and cleaned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnswerError {
    /// RFC 6749 §5.2.
    #[error("the token endpoint answered {status}: {}{}", error, description.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    OAuth {
        /// Its status.
        status: StatusCode,
        /// `error`.
        error: String,
        /// `error_description`, cut and cleaned.
        description: Option<String>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Somebody else presents the same refresh token at this moment, as Ory Hydra words it within an `invalid_request`.
    #[error("the token endpoint answered {status}: {error} (multiple concurrent requests)")]
    Concurrent {
        /// Its status.
        status: StatusCode,
        /// `error`.
        error: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A status that is no success and no error of RFC 6749 §5.2.
    #[error("the token endpoint answered {status}{}", if *json { "" } else { ", not as JSON" })]
    Status {
        /// Its status.
        status: StatusCode,
        /// Was the body JSON?
        json: bool,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A redirect: never followed with credentials.
    #[error(
        "the token endpoint redirects ({0}), which is never followed with credentials; correct token_url"
    )]
    Redirect(StatusCode),
    /// A success without a body.
    #[error("the token endpoint answered {0} with an empty body")]
    Empty(StatusCode),
    /// A success that is not a JSON object.
    #[error("the answer is not a JSON object{}", if *html { " but a web page; is token_url right?" } else { "" })]
    NotJson {
        /// Does it look like HTML?
        html: bool,
    },
    /// A JSON object without `access_token`.
    #[error("the answer has no access_token")]
    NoToken,
    /// A token that no header may carry.
    #[error("the access_token holds a space, a line break or another character that a header must not carry")]
    IllegalToken,
    /// A token of another type (RFC 6749 §7.1).
    #[error("the token is of type {0:?}, not bearer")]
    WrongType(String),
    /// `expires_in` or `expires_at` is not a number of seconds.
    #[error("{0} is not a number of seconds")]
    BadLifetime(&'static str),
    /// The token was dead on arrival.
    #[error("the token had expired before it arrived")]
    ExpiredOnArrival,
}

impl AnswerError {
    /// Will asking again soon not help, because it is the request or the registration that is wrong?
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::OAuth { status, error, .. } => {
                status.is_client_error()
                    && *status != StatusCode::TOO_MANY_REQUESTS
                    && *status != StatusCode::REQUEST_TIMEOUT
                    && !matches!(error.as_str(), "temporarily_unavailable" | "slow_down" | "server_error")
            }
            Self::Redirect(_) | Self::WrongType(_) => true,
            _ => false,
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OAuth { retry_after, .. }
            | Self::Concurrent { retry_after, .. }
            | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Reads a token endpoint's answer (RFC 6749 §5.1, §5.2). `now` is the wall clock's, for a JWT's `exp`. `sent`: what
/// was secret in the request, in every form that was sent; some servers repeat it in their errors.
///
/// # Errors
/// Where the answer is no token answer. One whose access token alone is of no use is a success: its refresh token
/// must not be lost.
pub fn read(answer: &Answer, now: SystemTime, sent: &[Secret]) -> Result<Granted, AnswerError> {
    let status = answer.status;
    if status.is_redirection() {
        return Err(AnswerError::Redirect(status));
    }
    let object = serde_json::from_slice::<Members>(&answer.body).ok();
    let retry_after = retry_after(&answer.headers, now);
    if let Some((members, error)) =
        object.as_ref().and_then(|members| Some((members, members.error.as_ref()?)))
    {
        // Some servers answer 200 with an error; the error counts.
        let status = if status.is_success() { StatusCode::BAD_REQUEST } else { status };
        let description = members.error_description.as_ref();
        let hidden = members.with_received(sent);
        // What decides about the refresh token is no secret, whatever the secrets are.
        let decides = error.as_str().filter(|code| matches!(*code, "invalid_grant" | "token_inactive"));
        let shown = decides.map_or_else(|| plain(error, &hidden), str::to_owned);
        // Before anything is cut: Hydra says it at the end of a long text.
        return Err(if is_concurrent(error) || description.is_some_and(is_concurrent) {
            AnswerError::Concurrent { status, error: shown, retry_after }
        } else {
            let description = description.map(|text| plain(text, &hidden));
            AnswerError::OAuth { status, error: shown, description, retry_after }
        });
    }
    if !status.is_success() {
        return Err(AnswerError::Status { status, json: object.is_some(), retry_after });
    }
    if answer.body.iter().all(u8::is_ascii_whitespace) {
        return Err(AnswerError::Empty(status));
    }
    let html = answer.body.trim_ascii_start().starts_with(b"<");
    let mut members = object.ok_or(AnswerError::NotJson { html })?;
    let hidden = members.with_received(sent);
    let refresh_token = members.refresh_token.take().and_then(usable);
    let scope = members.scope.take().and_then(|scope| readable(&scope, &hidden));
    match members.into_given(now, &hidden, true) {
        // Not a token answer at all.
        Err(AnswerError::NoToken) if refresh_token.is_none() => Err(AnswerError::NoToken),
        access => Ok(Granted { access, refresh_token, scope }),
    }
}

/// What a revocation endpoint said where it is not done (RFC 7009 §2.2.1): `error`, and its description.
pub(super) fn read_refusal(answer: &Answer, sent: &[Secret]) -> Option<String> {
    let members = serde_json::from_slice::<Members>(&answer.body).ok()?;
    let error = plain(members.error.as_ref()?, sent);
    Some(match &members.error_description {
        Some(text) => format!("{error} ({})", plain(text, sent)),
        None => error,
    })
}

/// Does the server say that several requests came with the same token at once? Of those that lose such a race, Ory Hydra
/// asks some to retry without giving that reason.
fn is_concurrent(said: &Value) -> bool {
    let text = said.as_str().unwrap_or_default().to_ascii_lowercase();
    text.contains("concurrent") && text.contains("request")
        || text.contains("failed to refresh token. please retry the request")
}

/// A refresh token that can be presented again (RFC 6749 §A.17, without the space).
fn usable(token: Token) -> Option<Secret> {
    token.0.filter(|token| {
        !token.expose().is_empty() && token.expose().bytes().all(|byte| byte.is_ascii_graphic())
    })
}

/// `scope`, where it can be shown as it is; some servers send a list.
fn readable(scope: &Value, hidden: &[Secret]) -> Option<String> {
    let text = match scope {
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => return None,
    };
    let fits = text.len() <= MAX_SCOPE_BYTES && !text.chars().any(char::is_control);
    (fits && !repeats(&text, hidden)).then_some(text).filter(|text| !text.is_empty())
}

/// A longer `scope` is not kept.
const MAX_SCOPE_BYTES: usize = 4096;

/// Reads what a token command printed: `access_token`, and `expires_in` or `expires_at`.
pub fn read_command(output: &[u8], now: SystemTime) -> Result<Given, AnswerError> {
    let members =
        serde_json::from_slice::<Members>(output).map_err(|_| AnswerError::NotJson { html: false })?;
    let hidden = members.with_received(&[]);
    // What a command prints may have been in its cache for long.
    members.into_given(now, &hidden, false)
}

/// The members that matter; unknown ones are ignored (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Members {
    access_token: Option<Token>,
    token_type: Option<Value>,
    expires_in: Option<Value>,
    expires_at: Option<Value>,
    refresh_token: Option<Token>,
    scope: Option<Value>,
    error: Option<Value>,
    error_description: Option<Value>,
}

/// A token of any JSON type, so that a wrong type is a named error; the text goes straight into a [`Secret`].
struct Token(Option<Secret>);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::String(text) => Self(Some(Secret::new(text))),
            _ => Self(None),
        })
    }
}

impl Members {
    /// What must not be shown: what was sent, and what came.
    fn with_received(&self, sent: &[Secret]) -> Vec<Secret> {
        let received = [&self.access_token, &self.refresh_token].into_iter().flatten();
        sent.iter().cloned().chain(received.filter_map(|token| token.0.clone())).collect()
    }

    fn into_given(self, now: SystemTime, hidden: &[Secret], just_issued: bool) -> Result<Given, AnswerError> {
        let token = self.access_token.and_then(|token| token.0).ok_or(AnswerError::NoToken)?;
        if token.expose().is_empty() {
            return Err(AnswerError::NoToken);
        }
        if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AnswerError::IllegalToken);
        }
        if let Some(kind) = self.token_type.filter(|kind| !kind.is_null()) {
            let bearer = kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
            if !bearer {
                return Err(AnswerError::WrongType(plain(&kind, hidden)));
            }
        }
        let said = match (&self.expires_in, &self.expires_at) {
            (Some(value), _) if !value.is_null() => Some(seconds(value, "expires_in")?),
            (_, Some(value)) if !value.is_null() => {
                let at = moment(value)?;
                Some(at - unix_seconds(now))
            }
            _ => None,
        };
        let claimed = jwt_lifetime(token.expose(), now, just_issued);
        let lifetime = match (said, claimed) {
            (Some(said), Some(claimed)) => said.min(claimed),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => DEFAULT_LIFETIME.as_secs_f64(),
        };
        if lifetime <= 0.0 {
            return Err(AnswerError::ExpiredOnArrival);
        }
        let lifetime = Duration::from_secs_f64(lifetime.min(MAX_LIFETIME.as_secs_f64()));
        // What lives for less than a millisecond cannot be used once.
        if lifetime < Duration::from_millis(1) {
            return Err(AnswerError::ExpiredOnArrival);
        }
        Ok(Given { token, lifetime })
    }
}

/// A number of seconds; servers in the wild also send it as a string or a float.
fn seconds(value: &Value, name: &'static str) -> Result<f64, AnswerError> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite()).ok_or(AnswerError::BadLifetime(name))
}

/// `expires_at`: Unix seconds, or a moment as RFC 3339 writes it.
fn moment(value: &Value) -> Result<f64, AnswerError> {
    if let Some(text) = value.as_str()
        && let Ok(at) = text.parse::<jiff::Timestamp>()
    {
        return Ok(at.as_duration().as_secs_f64());
    }
    seconds(value, "expires_at")
}

/// How long a JWT says that it lives from `now`; none where it is no JWT or has no `exp`.
///
/// Where our clock lies outside of what the `iat` and `exp` of a token allow that was just issued, the clock is what is
/// wrong, and the token's own span counts.
fn jwt_lifetime(token: &str, now: SystemTime, just_issued: bool) -> Option<f64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        iat: Option<f64>,
    }
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let now = unix_seconds(now);
    const SKEW: f64 = 300.0;
    match claims.iat {
        Some(iat) if just_issued && claims.exp > iat && (now < iat - SKEW || now > claims.exp) => {
            Some(claims.exp - iat)
        }
        _ => Some(claims.exp - now),
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// A member for a log line: one line, at most 200 characters, nothing of it where it repeats a secret.
fn plain(value: &Value, hidden: &[Secret]) -> String {
    value.as_str().map_or_else(|| clean(&value.to_string(), hidden), |text| clean(text, hidden))
}

/// A server's words for a log line: one line, at most 200 characters, nothing of them where they repeat a secret.
pub(super) fn clean(text: &str, hidden: &[Secret]) -> String {
    // Before it is cut: half a secret is too much as well.
    if repeats(text, hidden) {
        return "not shown, as it repeats the secret".to_owned();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

fn repeats(text: &str, hidden: &[Secret]) -> bool {
    hidden.iter().any(|secret| !secret.expose().is_empty() && text.contains(secret.expose()))
}

#[cfg(test)]
mod tests;
