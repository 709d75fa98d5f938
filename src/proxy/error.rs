//! What can go wrong with a request: for the log, and in the caller's words.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use super::denial::{Rule, Whose};
use super::token_request::TokenRefusal;
use super::transactions::Foreign;
use crate::credential::{LeaseError, shell_word};
use crate::dial::{DialError, ProxyFault};
use crate::guard::Refused;
use crate::rights::Denied;

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
    /// A rule refuses it.
    #[error("{whose}: {rule}")]
    Denied {
        /// Whose rules.
        whose: Whose,
        /// Which.
        rule: Rule,
    },
    /// Its body is larger than what may be read of it, in bytes.
    #[error("the body is larger than {0} bytes, and must be read whole")]
    TooLarge(usize),
    /// A client gets no local token.
    #[error(transparent)]
    TokenRequest(#[from] TokenRefusal),
    /// No route matches.
    #[error("no route matches")]
    NoRoute,
    /// There is no token for it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Too many requests wait for their turn already.
    #[error("its turn would come only in {:?}", *.longest_wait + *.retry_after)]
    RateLimited {
        /// How long the route lets requests wait.
        longest_wait: Duration,
        /// How much longer it would have to be, from now on.
        retry_after: Duration,
    },
    /// The upstream cannot be reached.
    #[error("the upstream cannot be reached")]
    Unreachable(#[from] DialError),
    /// The upstream closed the connection before it answered.
    #[error("the upstream closed the connection before it answered")]
    Closed(#[source] hyper::Error),
    /// What the upstream sent is not HTTP.
    #[error("the upstream's answer is not HTTP")]
    Protocol(#[source] hyper::Error),
    /// What the upstream sent cannot be passed on.
    #[error("the upstream's answer is ambiguous: {0}")]
    Framing(&'static str),
    /// The caller's body cannot be read.
    #[error("the body of the request is malformed or broke off")]
    CallerBroke,
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
    /// The header has more lines than are allowed.
    #[error("the header has more lines than `max_headers`")]
    HeadersTooLarge,
    /// The upstream took too long.
    #[error("the upstream did not answer within {0:?}")]
    Timeout(Duration),
    /// The upstream stopped taking the caller's body.
    #[error("the upstream took nothing of the body for {0:?}")]
    UpstreamStalled(Duration),
    /// The caller stopped sending its body.
    #[error("the caller sent nothing of its body for {0:?}")]
    CallerStalled(Duration),
}

impl ProxyError {
    /// A refusal by `allow` or `deny`.
    pub fn denied(whose: Whose, by: Denied<'_>) -> Self {
        Self::Denied { whose, rule: Rule::Written(by.to_string()) }
    }
}

impl From<Foreign> for ProxyError {
    fn from(Foreign: Foreign) -> Self {
        Self::NotAllowed("This transaction was not begun by this caller, as far as this sidekey has seen.")
    }
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
                "Requests from web pages are refused, but for those of origins in the route's `cors`.",
            ),
            Self::Refused(Refused::Method) => of(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_refused",
                "http_request_denied",
                "CONNECT and TRACE are not forwarded.",
            ),
            Self::TokenRequest(refusal) => {
                let words = refusal.words();
                let proxy_error = match refusal {
                    TokenRefusal::Client | TokenRefusal::NotAllowed => "http_request_denied",
                    _ => "http_request_error",
                };
                of(words.status, words.code, proxy_error, words.text)
            }
            Self::Refused(Refused::CallerUnknown(_)) => of(
                StatusCode::UNAUTHORIZED,
                "caller_unknown",
                "http_request_denied",
                "This sidekey serves callers that it knows. Show the token in Sidekey-Token, as a Bearer, or as the \
                 password of a Basic; on a Unix socket, run as the right user.",
            ),
            Self::Refused(Refused::LocalToken(_)) => of(
                StatusCode::UNAUTHORIZED,
                "caller_unknown",
                "http_request_denied",
                "The local token has expired, or it is for another caller or route; fetch another one.",
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
            Self::Denied { whose, rule } => Public {
                status: StatusCode::FORBIDDEN,
                code: "not_allowed",
                proxy_error: "http_request_denied",
                text: rule.public_text(whose),
            },
            Self::TooLarge(_) => of(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "http_request_error",
                "The body is larger than what is read of it on a read-only route; send less, or raise the route's \
                 replay_body.",
            ),
            Self::NotAllowed(text) => of(StatusCode::FORBIDDEN, "not_allowed", "http_request_denied", text),
            Self::Lease(LeaseError::QueueFull { .. }) => of(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "connection_limit_reached",
                "Too many requests wait for a token already.",
            ),
            Self::RateLimited { .. } => of(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "http_request_denied",
                "Requests are paced here, and as many wait as may; come back after the time that Retry-After says.",
            ),
            Self::Unreachable(DialError::Lookup { .. }) => {
                unreachable("dns_error", "The upstream's name cannot be looked up.")
            }
            Self::Unreachable(DialError::Reserved { .. }) => unreachable(
                "destination_ip_prohibited",
                "The upstream's name leads to an address that requests must not go to; the log of sidekey says more.",
            ),
            Self::Unreachable(DialError::Connect { .. }) => {
                unreachable("destination_unavailable", "The upstream does not accept connections.")
            }
            Self::Unreachable(DialError::Proxy { source, .. }) => match &**source {
                ProxyFault::Timeout(_) => of(
                    StatusCode::GATEWAY_TIMEOUT,
                    "upstream_timeout",
                    "connection_timeout",
                    "The egress proxy took too long to open a way to the upstream.",
                ),
                _ => unreachable(
                    proxy_error_of(source),
                    "The egress proxy does not lead to the upstream; the log of sidekey says why.",
                ),
            },
            Self::Unreachable(DialError::OtherKey { .. }) => unreachable(
                "tls_certificate_error",
                "The upstream's public key is not the one that is pinned.",
            ),
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
            Self::HeadersTooLarge => of(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "http_request_error",
                "The header has more lines than this sidekey takes.",
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
            Self::CallerBroke => of(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "http_request_error",
                "The body of the request is malformed or broke off.",
            ),
            Self::Protocol(_) | Self::Framing(_) | Self::Switched => of(
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
        }
    }

    /// Is nothing of what the caller sends next to be believed?
    pub(super) fn ends_connection(&self) -> bool {
        matches!(
            self,
            // After a CONNECT may already come what it would tunnel.
            Self::Refused(Refused::BadHost(_) | Refused::Method)
                | Self::BadRequest(_)
                | Self::CallerBroke
                | Self::CallerStalled(_)
        )
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
            Self::Lease(LeaseError::Unavailable { retry_after, .. })
            | Self::RateLimited { retry_after, .. } => {
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

/// `error` of Proxy-Status for an egress proxy that opened no tunnel: it is the next hop.
fn proxy_error_of(fault: &ProxyFault) -> &'static str {
    match fault {
        ProxyFault::Lookup(_) => "dns_error",
        ProxyFault::Password(_) | ProxyFault::Login(_) | ProxyFault::Unauthenticated => {
            "proxy_configuration_error"
        }
        ProxyFault::Reserved { .. } => "destination_ip_prohibited",
        ProxyFault::Garbage | ProxyFault::TooLong(_) => "http_protocol_error",
        ProxyFault::Closed(_) => "connection_terminated",
        ProxyFault::Timeout(_) => "connection_timeout",
        ProxyFault::Connect(_) | ProxyFault::Refused(_) => "destination_unavailable",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config::Reserved;
    use crate::secret::SecretError;

    #[test]
    fn an_address_that_nothing_may_go_to_is_told_as_such_and_not_shown() {
        let (host, address) = ("canary.example".to_owned(), [169, 254, 169, 254].into());
        let public =
            ProxyError::from(DialError::Reserved { host, address, why: Reserved::Metadata }).public();
        let got = (public.status.as_u16(), public.code, public.proxy_error);
        assert_eq!(got, (502, "upstream_unreachable", "destination_ip_prohibited"));
        assert!(!public.text.contains("canary") && !public.text.contains("169.254"), "{}", public.text);
    }

    #[test]
    fn what_an_egress_proxy_does_is_told_from_what_the_upstream_does() {
        let io = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let cases = [
            (ProxyFault::Lookup(io()), 502, "dns_error"),
            (ProxyFault::Connect(io()), 502, "destination_unavailable"),
            (
                ProxyFault::Reserved { address: [169, 254, 1, 1].into(), why: Reserved::LinkLocal },
                502,
                "destination_ip_prohibited",
            ),
            (ProxyFault::Password(SecretError::Unset("P".into())), 502, "proxy_configuration_error"),
            (ProxyFault::Unauthenticated, 502, "proxy_configuration_error"),
            (ProxyFault::Refused(403), 502, "destination_unavailable"),
            (ProxyFault::Garbage, 502, "http_protocol_error"),
            (ProxyFault::TooLong(8192), 502, "http_protocol_error"),
            (ProxyFault::Closed(io()), 502, "connection_terminated"),
            (ProxyFault::Timeout(Duration::from_secs(5)), 504, "connection_timeout"),
        ];
        for (source, status, proxy_error) in cases {
            let name = format!("{source:?}");
            let (proxy, origin) = ("canary:1".into(), "canary:2".into());
            let source = Box::new(source);
            let public = ProxyError::from(DialError::Proxy { proxy, origin, source }).public();
            assert_eq!((public.status.as_u16(), public.proxy_error), (status, proxy_error), "{name}");
            assert!(public.text.contains("egress proxy") && !public.text.contains("canary"), "{name}");
        }
    }
}
