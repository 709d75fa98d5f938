//! What can go wrong with a request, and the one place where that becomes an answer.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::ResponseBody;
use super::exchange::Exchange;
use crate::config::Provider;
use crate::credential::LeaseError;
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
    /// The upstream took too long.
    #[error("the upstream did not answer within {0:?}")]
    Timeout(Duration),
    /// The caller stopped sending its body.
    #[error("the caller sent nothing of its body for {0:?}")]
    CallerStalled(Duration),
}

/// The caller's half of an error: stable, and without anything of ours.
struct Public {
    status: StatusCode,
    /// `Sidekey-Error`.
    code: &'static str,
    /// `error` of Proxy-Status (RFC 9209 §2.3).
    proxy_error: &'static str,
    text: &'static str,
}

impl ProxyError {
    fn public(&self) -> Public {
        let of = |status, code, proxy_error, text| Public { status, code, proxy_error, text };
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
            Self::Protocol(_) => of(
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
            Self::CallerStalled(_) => of(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "http_request_error",
                "The body of the request stopped coming.",
            ),
        }
    }

    /// What the caller is told.
    pub fn public_text(&self) -> &'static str {
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

    /// Is it worth a line in the log at warning level, because an operator must act?
    pub fn is_ours_or_upstreams(&self) -> bool {
        self.status().is_server_error()
    }

    /// The answer, its body in the provider's own error shape so that client libraries can read it.
    pub(crate) fn into_response(self, provider: Provider, exchange: &Rc<Exchange>) -> Response<ResponseBody> {
        let public = self.public();
        let body = body(provider, &public);
        let mut response = Response::new(ResponseBody::own(Bytes::from(body), exchange));
        *response.status_mut() = public.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(HeaderName::from_static("sidekey-error"), HeaderValue::from_static(public.code));
        if let Ok(value) = HeaderValue::try_from(format!("sidekey; error={}", public.proxy_error)) {
            headers.insert(HeaderName::from_static("proxy-status"), value);
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::Refused(Refused::Method)) {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        response
    }

    /// Whole seconds, rounded up, at least 1.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Lease(LeaseError::Unavailable { retry_after, .. }) => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
                    .map(|seconds| seconds.max(1))
            }
            Self::Lease(LeaseError::QueueFull { .. }) => Some(1),
            _ => None,
        }
    }
}

fn body(provider: Provider, public: &Public) -> String {
    let Public { code, text, .. } = public;
    let value = match provider {
        Provider::Aura => json!({ "errors": [{ "message": text, "reason": code }] }),
        Provider::Neo4j => json!({ "errors": [{ "code": neo4j_code(public), "message": text }] }),
        Provider::Neon => json!({ "request_id": request_id(), "code": code, "message": text }),
        Provider::Generic => json!({ "error": code, "message": text }),
    };
    value.to_string()
}

/// Neo4j's clients decide by the code's second part whether to try again.
fn neo4j_code(public: &Public) -> String {
    let class = match public.code {
        "credential_unavailable" | "overloaded" | "upstream_unreachable" | "upstream_timeout" => {
            "TransientError.General"
        }
        "forbidden_host" | "cross_site" => "ClientError.Security",
        "upstream_protocol" => "DatabaseError.General",
        _ => "ClientError.Request",
    };
    let title: String = public
        .code
        .split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect::<Vec<_>>()
        })
        .collect();
    format!("Neo.{class}.Sidekey{title}")
}

/// A name for one answer that a person can search the caller's log for.
fn request_id() -> String {
    format!("sidekey-{:016x}", fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::clock::ticker::Ticker;
    use crate::proxy::exchange::CallerLimits;

    async fn told(
        error: ProxyError,
        provider: Provider,
    ) -> (StatusCode, Vec<(String, String)>, serde_json::Value) {
        let limits = CallerLimits { header: Duration::from_secs(1), idle: Duration::from_secs(1) };
        let exchange = Exchange::new(&Ticker::new(), limits);
        let (head, body) = error.into_response(provider, &exchange).into_parts();
        let headers =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, headers.collect(), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn each_provider_gets_its_own_error_shape() {
        let (_, _, aura) = told(ProxyError::NoRoute, Provider::Aura).await;
        assert_eq!(aura["errors"][0]["reason"], "no_route");
        let (_, _, neo4j) = told(ProxyError::NoRoute, Provider::Neo4j).await;
        assert_eq!(neo4j["errors"][0]["code"], "Neo.ClientError.Request.SidekeyNoRoute");
        let (_, _, neon) = told(ProxyError::NoRoute, Provider::Neon).await;
        assert_eq!(neon["code"], "no_route");
        assert!(neon["request_id"].as_str().unwrap().starts_with("sidekey-"));
        let (_, _, generic) = told(ProxyError::NoRoute, Provider::Generic).await;
        assert_eq!(generic["error"], "no_route");
    }

    #[tokio::test]
    async fn a_missing_token_says_when_to_come_back_and_nothing_of_the_cause() {
        let error = LeaseError::Unavailable {
            credential: "aura".into(),
            cause: "canary".into(),
            retry_after: Duration::from_millis(2100),
        };
        let (status, headers, body) = told(error.into(), Provider::Aura).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(header("retry-after"), Some("3"));
        assert_eq!(header("sidekey-error"), Some("credential_unavailable"));
        assert_eq!(header("proxy-status"), Some("sidekey; error=proxy_internal_error"));
        assert!(!body.to_string().contains("canary"));
    }
}
