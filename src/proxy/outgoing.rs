//! One caller's request on its way up: sent once, and kept so that it can be sent once more where that is safe.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderName, Method, Request, Uri};

use super::exchange::Exchange;
use super::headers;
use super::incoming::Coming;
use super::request_body::{Kept, Manner, RequestBody};
use crate::config::{HttpVersion, Route};
use crate::credential::Lease;

/// A sanitized request without its credential.
pub(crate) struct Outgoing {
    method: Method,
    target: PathAndQuery,
    /// Gone when the request was sent and is not to be sent again.
    headers: Option<HeaderMap>,
    /// The case of the header's names, where it is kept.
    case: Extensions,
    body: Body,
    manner: Manner,
    exchange: Rc<Exchange>,
}

enum Body {
    None,
    /// To be streamed, and not to be sent again.
    Once(Coming),
    /// It has been given away.
    Gone,
    /// Kept while it passes.
    Kept(Rc<Kept>),
}

impl Outgoing {
    /// Takes the header's fields out of `head`.
    pub(crate) fn new(
        head: &mut Parts,
        target: PathAndQuery,
        incoming: Coming,
        route: &Route,
        reserved: Option<&Arc<[HeaderName]>>,
        exchange: &Rc<Exchange>,
    ) -> Self {
        let may_speak_http2 = match route.http {
            HttpVersion::Auto => route.upstream.tls,
            HttpVersion::Http1 => false,
            HttpVersion::Http2 => true,
        };
        let body = if incoming.is_end_stream() {
            Body::None
        } else {
            // Only a credential can be refused, and only HTTP/2 says that nothing was done. A body that is known to be
            // too large need not be begun.
            let may_come_back = route.credential.is_some() || may_speak_http2;
            let fits = incoming.size_hint().upper().is_none_or(|size| size <= route.replay_body as u64);
            if may_come_back && route.replay_body > 0 && fits {
                Body::Kept(Kept::new(incoming, route.replay_body))
            } else {
                Body::Once(incoming)
            }
        };
        let manner = Manner {
            waits: !matches!(body, Body::None) && headers::asks_first(&head.headers),
            may_outlive: may_speak_http2,
            reserved: reserved.filter(|_| !matches!(body, Body::None)).cloned(),
        };
        Self {
            method: head.method.clone(),
            target,
            headers: Some(std::mem::take(&mut head.headers)),
            case: match route.preserve_header_case {
                true => std::mem::take(&mut head.extensions),
                false => Extensions::new(),
            },
            body,
            manner,
            exchange: Rc::clone(exchange),
        }
    }

    /// The request as it is sent first.
    pub(crate) fn first(&mut self, lease: Option<&Lease>) -> Request<RequestBody> {
        let (body, keep) = match std::mem::replace(&mut self.body, Body::Gone) {
            Body::None => {
                self.body = Body::None;
                {
                    // HTTP/2 may say of any request that nothing was done for it.
                    let keep = lease.is_some() || self.manner.may_outlive || self.method.is_idempotent();
                    (RequestBody::Empty, keep)
                }
            }
            Body::Once(incoming) => (RequestBody::once(incoming, &self.exchange, &self.manner), false),
            Body::Gone => (RequestBody::Empty, false),
            Body::Kept(kept) => {
                let body = RequestBody::kept(&kept, &self.exchange, &self.manner);
                self.body = Body::Kept(kept);
                (body, true)
            }
        };
        // A copy of the header only where it may be needed again.
        let headers = if keep { self.headers.clone() } else { self.headers.take() };
        self.build(headers.unwrap_or_default(), lease, body)
    }

    /// Could the request be sent again as far as is known by now?
    pub(crate) fn can_repeat(&self) -> bool {
        self.headers.is_some()
            && match &self.body {
                Body::None => true,
                Body::Once(_) | Body::Gone => false,
                Body::Kept(kept) => !kept.is_lost(),
            }
    }

    /// The request once more, if all of it was kept that has passed.
    pub(crate) fn again(&self, lease: Option<&Lease>) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            Body::None => RequestBody::Empty,
            Body::Once(_) | Body::Gone => return None,
            Body::Kept(kept) => RequestBody::again(kept, &self.exchange, &self.manner)?,
        };
        Some(self.build(self.headers.clone()?, lease, body))
    }

    /// The request once more, if that is safe: nothing was done for it, or doing it twice is the same as doing it once
    /// (RFC 9110 §9.2.2).
    pub(crate) fn again_if_safe(
        &self,
        lease: Option<&Lease>,
        unprocessed: bool,
    ) -> Option<Request<RequestBody>> {
        (unprocessed || self.method.is_idempotent()).then(|| self.again(lease)).flatten()
    }

    fn build(&self, headers: HeaderMap, lease: Option<&Lease>, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.headers_mut() = headers;
        if !self.case.is_empty() {
            *request.extensions_mut() = self.case.clone();
        }
        if let Some(lease) = lease {
            lease.apply(request.headers_mut());
        }
        request
    }
}
