//! What sidekey says to browsers of a page that a route is open to (CORS, Fetch §3.2). All of it is made at load.

use std::rc::Rc;
use std::time::SystemTime;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{Method, Response};

use super::answer::{self, METHODS};
use super::exchange::Exchange;
use super::headers;
use super::response_body::ResponseBody;
use crate::config;
use crate::guard::{OriginId, Origins};

static ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
static REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
static RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// In which callers may show who they are.
static SIDEKEY_TOKEN: HeaderName = HeaderName::from_static("sidekey-token");

/// What pages may read of any answer, besides what Fetch lets every page read.
const EXPOSED: &str = "etag, link, location, neo4j-cluster-affinity, proxy-status, retry-after, sidekey-error, \
                       www-authenticate, x-request-id";
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The pages that a route is open to, and the headers for them.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Origins,
    /// By origin: `Access-Control-Allow-Origin`.
    allow_origin: Vec<HeaderValue>,
    credentials: bool,
    expose: HeaderValue,
    max_age: HeaderValue,
    /// Headers of the credential's own, which no caller may send.
    reserved: Vec<HeaderName>,
    /// The header in which callers name the account.
    account: Option<HeaderName>,
}

impl Cors {
    /// Those of a route. `reserved`: headers of its credential's own; `account`: in which callers name the account.
    pub(super) fn new(config: &config::Cors, reserved: Vec<HeaderName>, account: Option<HeaderName>) -> Self {
        let mut expose = EXPOSED.to_owned();
        for name in &config.expose {
            expose.push_str(", ");
            expose.push_str(name.as_str());
        }
        // An origin is ASCII, and names of headers are.
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("null"));
        Self {
            allow_origin: config.origins.iter().map(|origin| value(origin)).collect(),
            origins: Origins::new(config.origins.iter().cloned()),
            credentials: config.credentials,
            expose: value(&expose),
            max_age: HeaderValue::from(config.max_age.as_secs()),
            reserved,
            account,
        }
    }

    /// The origins of those pages.
    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }
}

/// A page that may read what it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    pub(super) cors: &'a Cors,
    pub(super) origin: OriginId,
}

impl Page<'_> {
    /// The page's origin.
    pub fn origin(&self) -> &HeaderValue {
        &self.cors.allow_origin[self.origin]
    }

    /// Lets the page read an answer, of the upstream's or of sidekey's own.
    pub(super) fn show(&self, headers: &mut HeaderMap) {
        self.allow(headers);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.cors.expose.clone());
        // For an image or a script: the upstream speaks of its own site.
        headers.insert(RESOURCE_POLICY.clone(), HeaderValue::from_static("cross-origin"));
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }

    fn allow(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin().clone());
        if self.cors.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }

    /// The answer to a preflight: what the request that it asks about may be like. Whether the caller may make it is
    /// decided when it comes, for a preflight shows no token.
    pub(super) fn answer_preflight(
        &self,
        head: &Parts,
        exchange: &Rc<Exchange>,
        now: SystemTime,
    ) -> Response<ResponseBody> {
        let mut response = answer::empty(exchange, now);
        let headers = response.headers_mut();
        self.allow(headers);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods(head));
        if let Some(names) = self.headers(head) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.cors.max_age.clone());
        if head.headers.get(&REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
            headers.insert(ALLOW_PRIVATE_NETWORK.clone(), TRUE);
        }
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(VARY, HeaderValue::from_static(vary));
        response
    }

    /// Of the headers that are asked for, those that a caller may send.
    fn headers(&self, head: &Parts) -> Option<HeaderValue> {
        let asked = head.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let names = asked.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
        let may_send = |name: &HeaderName| {
            // Both may be a caller's way of showing who it is.
            *name == AUTHORIZATION
                || *name == SIDEKEY_TOKEN
                || !headers::is_for_no_caller(name, &self.cors.reserved)
                || self.cors.account.as_ref() == Some(name)
        };
        let names: Vec<_> = names.filter(may_send).collect();
        let list = names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        if list.is_empty() { None } else { HeaderValue::try_from(list).ok() }
    }
}

/// Does a browser ask whether a page may send another request (Fetch §4.8)?
pub fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn methods(head: &Parts) -> HeaderValue {
    let asked = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).map(HeaderValue::as_bytes);
    let rare = asked.and_then(|asked| Method::from_bytes(asked).ok()).filter(|method| {
        !METHODS.split(", ").any(|known| known == method.as_str())
            && !matches!(*method, Method::CONNECT | Method::TRACE)
    });
    rare.and_then(|method| HeaderValue::try_from(format!("{METHODS}, {method}")).ok())
        .unwrap_or(HeaderValue::from_static(METHODS))
}
