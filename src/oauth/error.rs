//! Why an authorization server gave nothing, and what that means for the refresh token that was presented.

use std::time::Duration;

use http::StatusCode;

use super::answer::AnswerError;
use super::discovery::DiscoveryError;
use crate::fetch::CallError;
use crate::header::IllegalCharacter;
use crate::secret::SecretError;

/// Why an authorization server gave nothing. For the log; holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum OAuthError {
    /// The client's secret or key cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The client's secret is no header value.
    #[error("the secret cannot be sent")]
    Header(#[from] IllegalCharacter),
    /// The client's assertion cannot be signed.
    #[error("the client assertion cannot be signed")]
    Key(#[from] KeyError),
    /// The configuration lacks what this call needs; checked when it is loaded.
    #[error("{0}")]
    Setup(&'static str),
    /// The server's metadata is not to be had.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The token endpoint gave no answer.
    #[error("the token endpoint gave no answer")]
    Call(#[source] CallError),
    /// The token endpoint answered with something else than a token.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The revocation endpoint gave no answer.
    #[error("the revocation endpoint gave no answer")]
    RevocationCall(#[source] CallError),
    /// The revocation endpoint did not revoke (RFC 7009 §2.2.1).
    #[error("the revocation endpoint answered {status}{}", error.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Revocation {
        /// Its status.
        status: StatusCode,
        /// `error` and `error_description`, cut and cleaned.
        error: Option<String>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// Why a client assertion cannot be signed. Never holds any of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM section with a private key.
    #[error(
        "private_key is no private key in PEM; it must be text of several lines that begins with -----BEGIN PRIVATE KEY----- (or RSA PRIVATE KEY, EC PRIVATE KEY); {wanted}"
    )]
    NotPem {
        /// What the algorithm needs.
        wanted: &'static str,
    },
    /// Protected by a password.
    #[error(
        "private_key is encrypted; decrypt it (openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW) and protect the file instead"
    )]
    Encrypted,
    /// A key of another kind or size.
    #[error("private_key is not a key for its algorithm; {wanted}")]
    Unusable {
        /// What the algorithm needs.
        wanted: &'static str,
    },
    /// No random bytes for `jti`.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// What a failed token request means for the refresh token that it presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It surely was not presented.
    Not,
    /// It was presented and surely not used up; the server wants something else, or another time.
    Refused,
    /// It cannot be used any more: `invalid_grant`, `token_inactive`.
    Dead,
    /// Somebody else presented it at the same time ("multiple concurrent requests").
    Concurrent,
    /// It may have been used up or not: a time-out, a broken connection, a 5xx, an answer that cannot be read.
    Unknown,
}

impl OAuthError {
    /// What it means for the refresh token that was presented.
    pub fn sent(&self) -> Sent {
        match self {
            Self::Secret(_) | Self::Header(_) | Self::Key(_) | Self::Setup(_) | Self::Discovery(_) => {
                Sent::Not
            }
            Self::Call(CallError::Dial(_) | CallError::Withheld)
            | Self::RevocationCall(CallError::Dial(_) | CallError::Withheld) => Sent::Not,
            Self::Call(_) | Self::RevocationCall(_) => Sent::Unknown,
            Self::Answer(error) => sent_by_answer(error),
            Self::Revocation { status, .. } => sent_by_status(*status),
        }
    }

    /// Will asking again soon not help?
    pub fn is_permanent(&self) -> bool {
        match self {
            // Files are watched: a mended one is noticed at once, whatever the pause.
            Self::Secret(error) => !matches!(error, SecretError::Command { .. }),
            Self::Header(_) | Self::Setup(_) => true,
            Self::Key(error) => *error != KeyError::NoRandom,
            Self::Discovery(error) => error.is_permanent(),
            Self::Call(error) | Self::RevocationCall(error) => is_lasting(error),
            Self::Answer(error) => error.is_permanent(),
            Self::Revocation { status, .. } => {
                sent_by_status(*status) == Sent::Refused && !is_passing(*status)
            }
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer(error) => error.retry_after(),
            Self::Discovery(error) => error.retry_after(),
            Self::Revocation { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Is it a certificate, rather than the network?
pub(super) fn is_lasting(error: &CallError) -> bool {
    matches!(error, CallError::Dial(dial) if dial.is_certificate())
}

/// Does a refusal with this status pass by itself?
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn sent_by_answer(error: &AnswerError) -> Sent {
    match error {
        AnswerError::Concurrent { .. } => Sent::Concurrent,
        AnswerError::OAuth { status, error, .. } => {
            let is_dead = matches!(error.as_str(), "invalid_grant" | "token_inactive");
            if is_dead && matches!(*status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
                Sent::Dead
            } else {
                sent_by_status(*status)
            }
        }
        AnswerError::Status { status, .. } | AnswerError::Redirect(status) => sent_by_status(*status),
        // A success that does not say what the new refresh token is.
        AnswerError::Empty(_)
        | AnswerError::NotJson { .. }
        | AnswerError::NoToken
        | AnswerError::IllegalToken
        | AnswerError::WrongType(_)
        | AnswerError::BadLifetime(_)
        | AnswerError::ExpiredOnArrival => Sent::Unknown,
    }
}

fn sent_by_status(status: StatusCode) -> Sent {
    // A proxy says 408 of a request that it may have passed on.
    let refused =
        status.is_redirection() || status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT;
    if refused { Sent::Refused } else { Sent::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::DialError;

    fn oauth(status: u16, error: &str) -> OAuthError {
        let status = StatusCode::from_u16(status).unwrap();
        AnswerError::OAuth { status, error: error.to_owned(), description: None, retry_after: None }.into()
    }

    fn status(status: u16) -> OAuthError {
        let status = StatusCode::from_u16(status).unwrap();
        AnswerError::Status { status, json: false, retry_after: None }.into()
    }

    fn concurrent() -> OAuthError {
        let status = StatusCode::BAD_REQUEST;
        AnswerError::Concurrent { status, error: "invalid_request".to_owned(), retry_after: None }.into()
    }

    fn revocation(status: u16) -> OAuthError {
        let status = StatusCode::from_u16(status).unwrap();
        OAuthError::Revocation { status, error: None, retry_after: None }
    }

    fn dial() -> CallError {
        let (host, limit) = ("h".to_owned(), Duration::from_secs(1));
        DialError::Timeout { host, port: 1, limit }.into()
    }

    #[test]
    fn what_a_failure_means_for_the_refresh_token_and_for_the_next_try() {
        let second = Duration::from_secs(1);
        let command = SecretError::Command { command: "c".into(), reason: "r".into() };
        let wanted = "x";
        let cases: [(OAuthError, Sent, bool); 43] = [
            (SecretError::Unset("X".into()).into(), Sent::Not, true),
            (command.into(), Sent::Not, false),
            (IllegalCharacter.into(), Sent::Not, true),
            (KeyError::NotPem { wanted }.into(), Sent::Not, true),
            (KeyError::NoRandom.into(), Sent::Not, false),
            (OAuthError::Setup("x"), Sent::Not, true),
            (DiscoveryError::Malformed { url: "u".into(), problem: "p" }.into(), Sent::Not, true),
            (
                DiscoveryError::Call { url: "u".into(), source: CallError::Timeout(second) }.into(),
                Sent::Not,
                false,
            ),
            (OAuthError::Call(dial()), Sent::Not, false),
            (OAuthError::Call(CallError::Timeout(second)), Sent::Unknown, false),
            (OAuthError::Call(CallError::Withheld), Sent::Not, false),
            (OAuthError::Call(CallError::TooLarge(65_536)), Sent::Unknown, false),
            (OAuthError::Call(CallError::Body("x".into())), Sent::Unknown, false),
            (AnswerError::Empty(StatusCode::OK).into(), Sent::Unknown, false),
            (AnswerError::NotJson { html: true }.into(), Sent::Unknown, false),
            (AnswerError::NoToken.into(), Sent::Unknown, false),
            (AnswerError::Redirect(StatusCode::FOUND).into(), Sent::Refused, true),
            (oauth(400, "invalid_grant"), Sent::Dead, true),
            (oauth(401, "invalid_grant"), Sent::Dead, true),
            (oauth(400, "token_inactive"), Sent::Dead, true),
            (oauth(401, "token_inactive"), Sent::Dead, true),
            (oauth(403, "invalid_grant"), Sent::Refused, true),
            (oauth(429, "invalid_grant"), Sent::Refused, false),
            (oauth(500, "invalid_grant"), Sent::Unknown, false),
            (oauth(401, "invalid_client"), Sent::Refused, true),
            (oauth(400, "invalid_request"), Sent::Refused, true),
            (oauth(400, "invalid_scope"), Sent::Refused, true),
            (oauth(400, "temporarily_unavailable"), Sent::Refused, false),
            (oauth(400, "slow_down"), Sent::Refused, false),
            (oauth(429, "rate_limited"), Sent::Refused, false),
            (oauth(408, "x"), Sent::Unknown, false),
            (oauth(503, "temporarily_unavailable"), Sent::Unknown, false),
            (concurrent(), Sent::Concurrent, false),
            (status(400), Sent::Refused, false),
            (status(404), Sent::Refused, false),
            (status(408), Sent::Unknown, false),
            (status(429), Sent::Refused, false),
            (status(500), Sent::Unknown, false),
            (status(504), Sent::Unknown, false),
            (OAuthError::RevocationCall(dial()), Sent::Not, false),
            (OAuthError::RevocationCall(CallError::TooLarge(65_536)), Sent::Unknown, false),
            (revocation(400), Sent::Refused, true),
            (revocation(503), Sent::Unknown, false),
        ];
        for (error, sent, permanent) in cases {
            assert_eq!((error.sent(), error.is_permanent()), (sent, permanent), "{error:?}");
        }
    }

    #[test]
    fn what_the_server_asks_for_is_passed_on() {
        let wait = Some(Duration::from_secs(7));
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        let cases = [
            OAuthError::from(AnswerError::Status { status: too_many, json: false, retry_after: wait }),
            DiscoveryError::Status { url: "u".into(), status: too_many, retry_after: wait }.into(),
            OAuthError::Revocation { status: too_many, error: None, retry_after: wait },
        ];
        for error in cases {
            assert_eq!(error.retry_after(), wait, "{error:?}");
        }
        assert_eq!(OAuthError::Call(dial()).retry_after(), None);
    }
}
