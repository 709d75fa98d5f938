//! The guard: decides whether a caller's request may go on at all, before anything else is looked at.
//!
//! A port on loopback can be reached by any web page through its visitor's browser, so a request must name a host
//! that is ours (DNS rebinding does not) and must not come from a page of another site.

pub mod callers;
pub mod local_token;

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderName, Method};

pub use crate::rights as pattern;

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

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
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
        let host = host(request)?;
        if by_name && !self.is_ours(&host) {
            return Err(Refused::ForbiddenHost);
        }
        if request.headers.contains_key(&ORIGIN) {
            return Err(Refused::CrossSite("it has an Origin"));
        }
        if !is_of_this_site(request) {
            return Err(Refused::CrossSite("its Sec-Fetch-Site says so"));
        }
        if matches!(request.method, Method::CONNECT | Method::TRACE) {
            return Err(Refused::Method);
        }
        Ok(host)
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
        let host = host(request)?;
        if self.is_ours(&host) { Ok(host) } else { Err(Refused::ForbiddenHost) }
    }

    /// The same for the one form that sidekey serves itself: a POST with exactly this listener's own Origin.
    pub fn admit_own_form<'a>(&self, request: &'a Parts) -> Result<Cow<'a, str>, Refused> {
        let host = host(request)?;
        if !self.is_ours(&host) {
            return Err(Refused::ForbiddenHost);
        }
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

/// Does its Sec-Fetch-Site, if it has one, name no other site?
fn is_of_this_site(request: &Parts) -> bool {
    let mut sites = request.headers.get_all(&SEC_FETCH_SITE).iter();
    sites.all(|site| matches!(site.as_bytes(), b"none" | b"same-origin"))
}

/// Is it `localhost` or an address of the loopback range, spelled as the standards spell it?
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

/// The one host that a request names (RFC 9112 §3.2): lower case, without port and trailing dot.
fn host(request: &Parts) -> Result<Cow<'_, str>, Refused> {
    let mut values = request.headers.get_all(&HOST).iter();
    let Some(value) = values.next() else { return Err(Refused::BadHost("The request has no Host.")) };
    if values.next().is_some() {
        return Err(Refused::BadHost("The request has more than one Host."));
    }
    let text = value.to_str().map_err(|_| Refused::BadHost("The Host is malformed."))?;
    // The target of a CONNECT, which is refused by its method.
    let is_bare = request.uri.scheme().is_none() && request.uri.authority().is_some();
    if is_bare && request.method != Method::CONNECT {
        return Err(Refused::BadHost("The target is a host and not a path."));
    }
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Refused::BadHost("The target is not an http URL."));
    }
    if let Some(authority) = request.uri.authority()
        && !authority.as_str().eq_ignore_ascii_case(text)
    {
        return Err(Refused::BadHost("The target names another host than Host does."));
    }
    name_of(text).ok_or(Refused::BadHost("The Host is malformed."))
}

/// `name[:port]` → name, lower case, without trailing dot, an IPv6 address without brackets; none where it is
/// malformed.
fn name_of(text: &str) -> Option<Cow<'_, str>> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, port)
        }
        None => {
            let (name, port) = text.find(':').map_or((text, ""), |at| text.split_at(at));
            (name.strip_suffix('.').unwrap_or(name), port)
        }
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(':')?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.parse::<u16>().is_err() {
            return None;
        }
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if name.is_empty() || !name.bytes().all(legal) {
        return None;
    }
    Some(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Parts {
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
    fn only_hosts_that_are_ours_are_admitted() {
        let ours = [
            "localhost",
            "localhost:7600",
            "LOCALHOST:80",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.8.9.10",
            "[::1]",
            "[::1]:7600",
            "neon.localhost",
            "Neon.Localhost:7600",
            "sidekey:65535",
        ];
        for host in ours {
            assert!(guard().admit(&request(&[("host", host)]), true).is_ok(), "{host}");
        }
        let others = [
            "localhost.evil.com",
            "evil.com",
            "evil.localhost",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "[::]",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "localhost..",
            "notlocalhost",
            "sidekey.evil",
        ];
        for host in others {
            assert_eq!(
                guard().admit(&request(&[("host", host)]), true),
                Err(Refused::ForbiddenHost),
                "{host}"
            );
        }
        let malformed = [
            "",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "localhost:80:80",
            "user@localhost",
            "localhost/x",
            "localhost evil",
            "[::1",
            "[::1]x",
            ".",
            "localhost,evil.com",
        ];
        for host in malformed {
            let request = request(&[("host", host)]);
            let guard = guard();
            let refused = guard.admit(&request, true);
            assert!(matches!(refused, Err(Refused::BadHost(_))), "{host}: {refused:?}");
        }
    }

    #[test]
    fn a_unix_socket_needs_no_host_of_ours_but_one_host() {
        assert!(guard().admit(&request(&[("host", "anything")]), false).is_ok());
        assert!(guard().admit(&request(&[]), false).is_err());
        assert!(guard().admit(&request(&[("host", "a"), ("host", "a")]), false).is_err());
    }

    #[test]
    fn what_comes_from_a_web_page_is_refused() {
        let with = |name, value| {
            let request = request(&[("host", "localhost"), (name, value)]);
            guard().admit(&request, true).map(Cow::into_owned)
        };
        for origin in ["https://evil.com", "null", "http://localhost:7600", ""] {
            assert!(matches!(with("origin", origin), Err(Refused::CrossSite(_))), "{origin}");
        }
        for site in ["cross-site", "same-site", "", "None", "none, same-origin"] {
            assert!(matches!(with("sec-fetch-site", site), Err(Refused::CrossSite(_))), "{site}");
        }
        for site in ["none", "same-origin"] {
            assert!(with("sec-fetch-site", site).is_ok(), "{site}");
        }
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
