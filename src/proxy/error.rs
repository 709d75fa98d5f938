//! What can go wrong with a request: for the log, and in the caller's words.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use crate::credential::{LeaseError, shell_word};
use crate::dial::DialError;
use crate::guard::Refused;

/// Why a request gets an answer of sidekey's own. `Display` and its sources are for the log; what the caller sees is
/// [`ProxyError::public_text`].
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The guard refused it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be forwarded as it is.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The caller may not do that.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// No route matches.
    #[error("no route matches")]
    NoRoute,
    /// There is no token for it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The upstream cannot be reached.
    #[error("the upstream cannot be reached")]
    Unreachable(#[from] DialError),
    /// The upstream closed the connection before it answered.
    #[error("the upstream closed the connection before it answered")]
    Closed(#[source] hyper::Error),
    /// What the upstream sent is not HTTP.
    #[error("the upstream's answer is not HTTP")]
    Protocol(#[source] hyper::Error),
    /// 101, and no request asks for it.
    #[error("the upstream switches protocols without being asked to")]
    Switched,
    /// HTTP/2 was asked for.
    #[error("the upstream does not speak HTTP/2, and its route has http = \"2\"")]
    NotHttp2,
    /// There is more to do at once than is allowed.
    #[error("{0}")]
    Overloaded(&'static str),
    /// The target is longer than is allowed.
    #[error("the target is longer than `max_target`")]
    TargetTooLong,
    /// The upstream took too long.
    #[error("the upstream did not answer within {0:?}")]
    Timeout(Duration),
    /// The upstream stopped taking the caller's body.
    #[error("the upstream took nothing of the body for {0:?}")]
    UpstreamStalled(Duration),
    /// The caller stopped sending its body.
    #[error("the caller sent nothing of its body for {0:?}")]
    CallerStalled(Duration),
    /// The caller's body broke off.
    #[error("the body of the request broke off")]
    CallerBroke,
}

/// The caller's half of an error: stable, and without anything of ours.
pub(super) struct Public {
    pub(super) status: StatusCode,
    /// `Sidekey-Error`.
    pub(super) code: &'static str,
    /// `error` of Proxy-Status (RFC 9209 §2.3).
    pub(super) proxy_error: &'static str,
    pub(super) text: Cow<'static, str>,
}

impl ProxyError {
    pub(super) fn public(&self) -> Public {
        let of = |status, code, proxy_error, text: &'static str| Public {
            status,
            code,
            proxy_error,
            text: Cow::Borrowed(text),
        };
        let unreachable =
            |proxy_error, text| of(StatusCode::BAD_GATEWAY, "upstream_unreachable", proxy_error, text);
        match self {
            Self::Refused(Refused::BadHost(text)) | Self::BadRequest(text) => {
                of(StatusCode::BAD_REQUEST, "bad_request", "http_request_error", text)
            }
            Self::Refused(Refused::ForbiddenHost) => of(
                StatusCode::FORBIDDEN,
                "forbidden_host",
                "http_request_denied",
                "The Host is not one that this sidekey answers for; if it should be, add it to server.hosts.",
            ),
            Self::Refused(Refused::CrossSite(_)) => of(
                StatusCode::FORBIDDEN,
                "cross_site",
                "http_request_denied",
                "Requests from web pages are refused.",
            ),
            Self::Refused(Refused::Method) => of(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_refused",
                "http_request_denied",
                "CONNECT and TRACE are not forwarded.",
            ),
            Self::NoRoute => of(
                StatusCode::NOT_FOUND,
                "no_route",
                "destination_not_found",
                "No route matches this host and path.",
            ),
            Self::Lease(LeaseError::Unavailable { .. }) => of(
                StatusCode::SERVICE_UNAVAILABLE,
                "credential_unavailable",
                "proxy_internal_error",
                "No valid token can be had at the moment; the log of sidekey says why.",
            ),
            Self::Lease(LeaseError::LoginRequired { credential, account, .. }) => Public {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "login_required",
                proxy_error: "proxy_internal_error",
                text: Cow::Owned(format!(
                    "Nobody has logged in to this account, or the login is over. Run: sidekey login {credential} \
                     --account {}",
                    shell_word(account)
                )),
            },
            Self::Lease(LeaseError::NoSuchAccount { .. }) => of(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "http_request_error",
                "The account that the request names is not in the configuration.",
            ),
            Self::NotAllowed(text) => of(StatusCode::FORBIDDEN, "not_allowed", "http_request_denied", text),
            Self::Lease(LeaseError::QueueFull { .. }) => of(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "connection_limit_reached",
                "Too many requests wait for a token already.",
            ),
            Self::Unreachable(DialError::Lookup { .. }) => {
                unreachable("dns_error", "The upstream's name cannot be looked up.")
            }
            Self::Unreachable(DialError::Connect { .. }) => {
                unreachable("destination_unavailable", "The upstream does not accept connections.")
            }
            Self::Unreachable(error @ DialError::Tls { .. }) if error.is_certificate() => {
                unreachable("tls_certificate_error", "The upstream's certificate does not verify.")
            }
            Self::Unreachable(DialError::Tls { .. }) => {
                unreachable("tls_protocol_error", "The TLS handshake with the upstream failed.")
            }
            Self::Unreachable(DialError::Timeout { .. }) => of(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "connection_timeout",
                "Connecting to the upstream took too long.",
            ),
            Self::Closed(_) => {
                unreachable("connection_terminated", "The upstream closed the connection before it answered.")
            }
            Self::Overloaded(_) => of(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "connection_limit_reached",
                "There is more to do at once than is allowed; try again.",
            ),
            Self::TargetTooLong => of(
                StatusCode::URI_TOO_LONG,
                "target_too_long",
                "http_request_error",
                "The path and query are too long.",
            ),
            Self::NotHttp2 => of(
                StatusCode::BAD_GATEWAY,
                "upstream_protocol",
                "http_protocol_error",
                "The upstream does not speak HTTP/2.",
            ),
            Self::Protocol(_) | Self::Switched => of(
                StatusCode::BAD_GATEWAY,
                "upstream_protocol",
                "http_protocol_error",
                "What the upstream answered is not HTTP.",
            ),
            Self::Timeout(_) => of(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "http_response_timeout",
                "The upstream did not answer in time.",
            ),
            Self::UpstreamStalled(_) => of(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "connection_write_timeout",
                "The upstream stopped taking the body of the request.",
            ),
            Self::CallerStalled(_) => of(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "http_request_error",
                "The body of the request stopped coming.",
            ),
            Self::CallerBroke => of(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "http_request_error",
                "The body of the request broke off.",
            ),
        }
    }

    /// What the caller is told.
    pub fn public_text(&self) -> Cow<'static, str> {
        self.public().text
    }

    /// The stable code, as in `Sidekey-Error`.
    pub fn code(&self) -> &'static str {
        self.public().code
    }

    /// The status that the caller gets.
    pub fn status(&self) -> StatusCode {
        self.public().status
    }

    /// Whole seconds, rounded up, at least 1.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Lease(LeaseError::Unavailable { retry_after, .. }) => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
                    .map(|seconds| seconds.max(1))
            }
            Self::Lease(LeaseError::QueueFull { .. }) | Self::Overloaded(_) => Some(1),
            // Somebody has to do something first.
            Self::Lease(LeaseError::LoginRequired { .. }) => Some(60),
            _ => None,
        }
    }
}
