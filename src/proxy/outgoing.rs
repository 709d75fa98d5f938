//! One caller's request on its way up: sent once, and kept so that it can be sent once more where that is safe.

use std::rc::Rc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri};
use http_body::Body as _;
use hyper::body::Incoming;

use super::body::{Kept, RequestBody};
use super::exchange::Exchange;
use crate::config::Route;
use crate::credential::Lease;

/// A sanitized request without its credential.
pub(crate) struct Outgoing {
    method: Method,
    target: PathAndQuery,
    /// Gone when the request was sent and is not to be sent again.
    headers: Option<HeaderMap>,
    body: Body,
}

enum Body {
    None,
    /// To be streamed; kept while it passes where `kept` is there.
    First(RequestBody, Option<Rc<Kept>>),
    /// It has been sent; what was kept of it.
    Sent(Option<Rc<Kept>>),
}

impl Outgoing {
    pub(crate) fn new(
        head: Parts,
        target: PathAndQuery,
        incoming: Incoming,
        route: &Route,
        exchange: &Rc<Exchange>,
    ) -> Self {
        let body = if incoming.is_end_stream() {
            Body::None
        } else {
            // Without a credential nothing is refused, and a body that is known to be too large need not be begun.
            let fits = incoming.size_hint().upper().is_none_or(|size| size <= route.replay_body as u64);
            let kept = (route.credential.is_some() && route.replay_body > 0 && fits)
                .then(|| Kept::new(route.replay_body));
            Body::First(RequestBody::streaming(incoming, kept.clone(), Rc::clone(exchange)), kept)
        };
        Self { method: head.method, target, headers: Some(head.headers), body }
    }

    /// The request as it is sent first.
    pub(crate) fn first(&mut self, lease: Option<&Lease>) -> Request<RequestBody> {
        let (body, keep) = match std::mem::replace(&mut self.body, Body::None) {
            Body::First(body, kept) => {
                let keep = kept.is_some();
                self.body = Body::Sent(kept);
                (body, keep)
            }
            Body::None | Body::Sent(_) => {
                (RequestBody::Empty, lease.is_some() || self.method.is_idempotent())
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
                Body::Sent(kept) => kept.as_ref().is_some_and(|kept| kept.is_whole()),
                Body::First(..) => false,
            }
    }

    /// The request once more, if all of it was kept.
    pub(crate) fn again(&self, lease: Option<&Lease>) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            Body::None => RequestBody::Empty,
            Body::Sent(kept) => kept.as_ref()?.again()?,
            Body::First(..) => return None,
        };
        Some(self.build(self.headers.clone()?, lease, body))
    }

    /// The request once more, if doing it twice is the same as doing it once (RFC 9110 §9.2.2).
    pub(crate) fn again_if_safe(&self, lease: Option<&Lease>) -> Option<Request<RequestBody>> {
        self.method.is_idempotent().then(|| self.again(lease)).flatten()
    }

    fn build(&self, headers: HeaderMap, lease: Option<&Lease>, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.headers_mut() = headers;
        if let Some(lease) = lease {
            lease.apply(request.headers_mut());
        }
        request
    }
}
