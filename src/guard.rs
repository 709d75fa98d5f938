//! The guard: decides whether a caller's request may go on at all, before anything else is looked at.
//!
//! A port on loopback can be reached by any web page through its visitor's browser, so a request must name a host
//! that is ours (DNS rebinding does not) and must not come from a page of another site, unless its route is open to
//! that page's origin.

pub mod callers;
mod host;
pub mod local_token;
mod origin;

use std::borrow::Cow;
use std::collections::HashSet;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderName, Method};

use self::origin::{SEC_FETCH_SITE, is_of_this_site};
pub use crate::rights as pattern;

pub use self::host::is_loopback;
pub use self::origin::{OriginId, Origins, page_of};

/// Which hosts are ours.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    hosts: HashSet<Box<str>>,
}

/// Why a request may not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The Host is missing, double, malformed, or not the target's.
    #[error("{0}")]
    BadHost(&'static str),
    /// The Host is not one of ours.
    #[error("the Host is not one that this sidekey answers for")]
    ForbiddenHost,
    /// It comes from a web page.
    #[error("the request comes from a web page of another site ({0})")]
    CrossSite(&'static str),
    /// CONNECT or TRACE.
    #[error("the method is not forwarded")]
    Method,
    /// It shows nothing that tells who it is from.
    #[error("the caller is unknown: {0}")]
    CallerUnknown(&'static str),
    /// It shows a local token that is not good, or not for this route.
    #[error(transparent)]
    LocalToken(#[from] local_token::Invalid),
}

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

impl Guard {
    /// `hosts`: lower case, without port; loopback's names need not be among them.
    pub fn new(hosts: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        Self { hosts: hosts.into_iter().map(Into::into).collect() }
    }

    /// Lets a request in, or says why not. Gives the name that the caller used, lower case and without port.
    ///
    /// `by_name`: was it reached by a name? A Unix socket is reached by its path, so any Host will do there.
    pub fn admit<'a>(&self, request: &'a Parts, by_name: bool) -> Result<Cow<'a, str>, Refused> {
        let host = self.host(request, by_name)?;
        admit_page(request, None)?;
        Ok(host)
    }

    /// The half of it that needs no route: the name that the caller used, if it is one of ours.
    pub fn host<'a>(&self, request: &'a Parts, by_name: bool) -> Result<Cow<'a, str>, Refused> {
        let host = host::of(request)?;
        if by_name && !self.is_ours(&host) { Err(Refused::ForbiddenHost) } else { Ok(host) }
    }

    /// The same for the two places of a login that a browser comes to from elsewhere: a whole window that goes there,
    /// by GET, may come from any site. No frame, image or script may.
    pub fn admit_navigation<'a>(&self, request: &'a Parts) -> Result<Cow<'a, str>, Refused> {
        let only = |name: &HeaderName, value: &[u8]| {
            let mut values = request.headers.get_all(name).iter();
            values.next().is_some_and(|given| given.as_bytes() == value) && values.next().is_none()
        };
        let from_elsewhere =
            [b"cross-site".as_slice(), b"same-site"].iter().any(|site| only(&SEC_FETCH_SITE, site));
        let is_window = request.method == Method::GET
            && !request.headers.contains_key(&ORIGIN)
            && only(&SEC_FETCH_MODE, b"navigate")
            && only(&SEC_FETCH_DEST, b"document");
        if !(from_elsewhere && is_window) {
            return self.admit(request, true);
        }
        self.host(request, true)
    }

    /// The same for the one form that sidekey serves itself: a POST with exactly this listener's own Origin.
    pub fn admit_own_form<'a>(&self, request: &'a Parts) -> Result<Cow<'a, str>, Refused> {
        let host = self.host(request, true)?;
        if request.method != Method::POST {
            return Err(Refused::Method);
        }
        let mut origins = request.headers.get_all(&ORIGIN).iter();
        let (origin, second) = (origins.next(), origins.next());
        let served = request.headers.get(&HOST);
        let own = |origin: &[u8]| {
            let authority = origin.strip_prefix(b"http://");
            authority.zip(served).is_some_and(|(origin, host)| origin == host.as_bytes())
        };
        if second.is_some() || !origin.is_some_and(|origin| own(origin.as_bytes())) {
            return Err(Refused::CrossSite("its Origin is not this listener's"));
        }
        if !is_of_this_site(request) {
            return Err(Refused::CrossSite("its Sec-Fetch-Site says so"));
        }
        Ok(host)
    }

    fn is_ours(&self, host: &str) -> bool {
        is_loopback(host) || self.hosts.contains(host)
    }
}

/// The other half of [`Guard::admit`]: it comes from no page but those that its route is open to, whose origin this
/// gives; and it is no CONNECT or TRACE.
pub fn admit_page(request: &Parts, open_to: Option<&Origins>) -> Result<Option<OriginId>, Refused> {
    let page = page_of(request, open_to)?;
    if matches!(request.method, Method::CONNECT | Method::TRACE) { Err(Refused::Method) } else { Ok(page) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    pub(super) fn request(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn guard() -> Guard {
        Guard::new(["neon.localhost", "sidekey"])
    }

    #[test]
    fn a_unix_socket_needs_no_host_of_ours_but_one_host() {
        assert!(guard().admit(&request(&[("host", "anything")]), false).is_ok());
        assert!(guard().admit(&request(&[]), false).is_err());
        assert!(guard().admit(&request(&[("host", "a"), ("host", "a")]), false).is_err());
    }

    #[test]
    fn a_login_may_be_come_to_by_a_window_from_another_site_and_by_nothing_else() {
        type Headers = &'static [(&'static str, &'static str)];
        const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");
        const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
        const DOCUMENT: (&str, &str) = ("sec-fetch-dest", "document");
        let cases: [(&str, Headers, bool); 12] = [
            ("GET", &[], true),
            ("GET", &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")], true),
            ("GET", &[CROSS, NAVIGATE, DOCUMENT], true),
            ("GET", &[("sec-fetch-site", "same-site"), NAVIGATE, DOCUMENT], true),
            ("GET", &[CROSS], false),
            ("GET", &[CROSS, NAVIGATE], false),
            ("GET", &[CROSS, NAVIGATE, ("sec-fetch-dest", "iframe")], false),
            ("GET", &[CROSS, ("sec-fetch-mode", "no-cors"), DOCUMENT], false),
            ("GET", &[CROSS, NAVIGATE, DOCUMENT, ("origin", "null")], false),
            ("GET", &[CROSS, NAVIGATE, DOCUMENT, ("host", "evil.com")], false),
            ("POST", &[CROSS, NAVIGATE, DOCUMENT], false),
            ("HEAD", &[CROSS, NAVIGATE, DOCUMENT], false),
        ];
        for (method, headers, want) in cases {
            let mut request = request(headers);
            request.method = method.parse().unwrap();
            if !request.headers.contains_key("host") {
                request.headers.insert("host", "127.0.0.1:7601".parse().unwrap());
            }
            let admitted = guard().admit_navigation(&request);
            assert_eq!(admitted.is_ok(), want, "{method} {headers:?}: {admitted:?}");
        }
    }

    #[test]
    fn a_form_of_our_own_has_exactly_our_origin() {
        let cases: [(&[(&str, &str)], bool); 10] = [
            (&[("origin", "http://127.0.0.1:7601")], true),
            (&[("origin", "http://127.0.0.1:7601"), ("sec-fetch-site", "same-origin")], true),
            (&[("origin", "http://127.0.0.1:7601"), ("sec-fetch-site", "same-site")], false),
            (&[("origin", "http://127.0.0.1:7601"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "http://127.0.0.1:7601"), ("origin", "http://127.0.0.1:7601")], false),
            (&[("origin", "http://127.0.0.1")], false),
            (&[("origin", "http://localhost:7601")], false),
            (&[("origin", "https://127.0.0.1:7601")], false),
            (&[("origin", "null")], false),
            (&[], false),
        ];
        for (headers, want) in cases {
            let mut parts = request(&[("host", "127.0.0.1:7601")]);
            parts.method = Method::POST;
            for (name, value) in headers {
                parts.headers.append(*name, value.parse().unwrap());
            }
            let admitted = guard().admit_own_form(&parts);
            assert_eq!(admitted.is_ok(), want, "{headers:?}: {admitted:?}");
            parts.method = Method::GET;
            assert!(guard().admit_own_form(&parts).is_err(), "only a POST: {headers:?}");
        }
        let mut foreign = request(&[("host", "evil.com"), ("origin", "http://evil.com")]);
        foreign.method = Method::POST;
        assert_eq!(guard().admit_own_form(&foreign), Err(Refused::ForbiddenHost));
    }

    #[test]
    fn a_target_that_names_another_host_is_refused() {
        let absolute = |uri: &str| {
            let request = Request::get(uri).header("host", "localhost:7600").body(()).unwrap();
            guard().admit(&request.into_parts().0, true).map(Cow::into_owned)
        };
        assert_eq!(absolute("http://localhost:7600/x"), Ok("localhost".to_owned()));
        assert!(matches!(absolute("http://evil.com/x"), Err(Refused::BadHost(_))));
        assert!(matches!(absolute("http://user@localhost:7600/x"), Err(Refused::BadHost(_))));
        assert!(matches!(absolute("ftp://localhost:7600/x"), Err(Refused::BadHost(_))));
        // The target of a CONNECT, without one.
        assert!(matches!(absolute("localhost:7600"), Err(Refused::BadHost(_))));
    }
}
