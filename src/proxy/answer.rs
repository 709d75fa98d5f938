//! Sidekey's own answers: the one place where an error becomes one.

use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, DATE, HeaderName, HeaderValue, PRAGMA, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response, StatusCode};
use serde_json::json;

use super::error::{ProxyError, Public};
use super::exchange::Exchange;
use super::marks::REQUEST_ID;
use super::response_body::ResponseBody;
use super::token_request::TokenRefusal;
use crate::config::Provider;
use crate::guard::Refused;

/// How a client shows who it is at the token endpoint.
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"sidekey\"");

/// What is forwarded.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The answer to an error, its body in the provider's own error shape so that client libraries can read it.
pub(crate) fn of(
    error: ProxyError,
    provider: Provider,
    exchange: &Rc<Exchange>,
    now: SystemTime,
) -> Response<ResponseBody> {
    let public = error.public();
    let body = match error {
        ProxyError::TokenRequest(refusal) => oauth_body(refusal),
        _ => body(provider, &public, exchange),
    };
    exchange.note(|recording| recording.code = Some(public.code));
    let mut response = own(Bytes::from(body), exchange, now);
    *response.status_mut() = public.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("sidekey-error"), HeaderValue::from_static(public.code));
    if let Ok(value) = HeaderValue::try_from(format!("sidekey; error={}", public.proxy_error)) {
        headers.insert(HeaderName::from_static("proxy-status"), value);
    }
    // What a person reports; the log says the same.
    headers.insert(REQUEST_ID.clone(), exchange.request_id());
    if error.ends_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match error {
        ProxyError::Refused(Refused::Method) => {
            drop(headers.insert(ALLOW, HeaderValue::from_static(METHODS)))
        }
        ProxyError::Refused(Refused::CallerUnknown(_)) => {
            // Either will do, and some tools send nothing before they are asked (RFC 9110 §11.6.1).
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sidekey\""));
            let basic = "Basic realm=\"sidekey\", charset=\"UTF-8\"";
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(basic));
        }
        ProxyError::Refused(Refused::LocalToken(_)) => {
            // Tells the client to fetch another (RFC 6750 §3.1).
            let stale = "Bearer realm=\"sidekey\", error=\"invalid_token\"";
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(stale));
        }
        ProxyError::TokenRequest(refusal) => {
            not_to_be_kept(headers);
            match refusal {
                TokenRefusal::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
                TokenRefusal::Client => drop(headers.insert(WWW_AUTHENTICATE, BASIC)),
                _ => {}
            }
        }
        _ => {}
    }
    response
}

/// An answer with this body, and 200 until something else is said.
pub(crate) fn own(body: Bytes, exchange: &Rc<Exchange>, now: SystemTime) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(body, exchange));
    response.headers_mut().insert(DATE, date(now));
    response
}

/// The answer to an OPTIONS that may not go further than this (RFC 9110 §7.6.2, §9.3.7).
pub(crate) fn to_last_hop(exchange: &Rc<Exchange>, now: SystemTime) -> Response<ResponseBody> {
    let mut response = empty(exchange, now);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// An answer of sidekey's own that is no error and says everything in its header.
pub(super) fn empty(exchange: &Rc<Exchange>, now: SystemTime) -> Response<ResponseBody> {
    let mut response = own(Bytes::new(), exchange, now);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("proxy-status"), HeaderValue::from_static("sidekey"));
    response
}

/// What stands in each answer of a token endpoint, so that no cache keeps it.
pub(super) fn not_to_be_kept(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
}

/// hyper's own would stand in the upstream's answers as well, which may have none.
fn date(now: SystemTime) -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(now)).unwrap_or(HeaderValue::from_static(""))
}

/// An error of a token endpoint, whatever the provider: clients read it before they know any (RFC 6749 §5.2).
fn oauth_body(refusal: TokenRefusal) -> String {
    let words = refusal.words();
    json!({ "error": words.error, "error_description": words.text }).to_string()
}

fn body(provider: Provider, public: &Public, exchange: &Exchange) -> String {
    let Public { code, text, .. } = public;
    let value = match provider {
        Provider::Aura => json!({ "errors": [{ "message": text, "reason": code }] }),
        Provider::Neo4j => json!({ "errors": [{ "code": neo4j_code(public), "message": text }] }),
        Provider::Neon => {
            let id = exchange.request_id();
            json!({ "request_id": id.to_str().unwrap_or_default(), "code": code, "message": text })
        }
        Provider::Generic => json!({ "error": code, "message": text }),
    };
    value.to_string()
}

/// Neo4j's clients decide by the code's second part whether to try again.
fn neo4j_code(public: &Public) -> String {
    let class = match public.code {
        "credential_unavailable"
        | "overloaded"
        | "rate_limited"
        | "upstream_unreachable"
        | "upstream_timeout" => "TransientError.General",
        "forbidden_host" | "cross_site" | "not_allowed" | "caller_unknown" | "login_required" => {
            "ClientError.Security"
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::clock::ticker::Ticker;
    use crate::credential::LeaseError;
    use crate::proxy::exchange::CallerLimits;

    async fn told(
        error: ProxyError,
        provider: Provider,
    ) -> (StatusCode, Vec<(String, String)>, serde_json::Value) {
        let limits = CallerLimits { header: Duration::from_secs(1), idle: Duration::from_secs(1) };
        let exchange = Exchange::new(&Ticker::new(), limits);
        let (head, body) = of(error, provider, &exchange, SystemTime::UNIX_EPOCH).into_parts();
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
