//! Which web page a request comes from, if any, and whether that one is let in. Pure.

use http::header::{ORIGIN, REFERER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};

use super::Refused;

pub(super) static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origins whose pages are let in, each as browsers write it: `scheme://host[:port]`.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    all: Vec<Box<str>>,
}

/// Index of an origin.
pub type OriginId = usize;

impl Origins {
    /// These, each as browsers write it.
    pub fn new(all: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        Self { all: all.into_iter().map(Into::into).collect() }
    }

    /// The origin that a value of `Origin` is, byte for byte: browsers write each in one way (RFC 6454 §6.2).
    fn find(&self, origin: &[u8]) -> Option<OriginId> {
        self.all.iter().position(|known| known.as_bytes() == origin)
    }

    /// The origin of a value of `Referer`.
    fn find_referer(&self, referer: &[u8]) -> Option<OriginId> {
        self.all.iter().position(|known| {
            referer.strip_prefix(known.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
        })
    }
}

/// The let-in origin whose page a request comes from; none if it comes from no page, or from one of this very origin.
///
/// `Origin` says where a page is from, and `Sec-Fetch-Site` that there is one; pages can change neither. What has no
/// `Origin` (an image, a script, a link that is followed) tells its page's origin in `Referer` alone, which a page can
/// leave out and not forge; without `Sec-Fetch-Site`, anyone may have written it.
///
/// # Errors
/// [`Refused::CrossSite`] where it comes from any other page, or where that cannot be told.
pub fn page_of(request: &Parts, open_to: Option<&Origins>) -> Result<Option<OriginId>, Refused> {
    let headers = &request.headers;
    let mut origins = headers.get_all(ORIGIN).iter();
    if let Some(origin) = origins.next() {
        let Some(open_to) = open_to else { return Err(Refused::CrossSite("it has an Origin")) };
        if origins.next().is_some() {
            return Err(Refused::CrossSite("it has more than one Origin"));
        }
        let found = open_to.find(origin.as_bytes());
        return match (found, site(request)) {
            (Some(_), Site::Unclear) => Err(Refused::CrossSite("its Sec-Fetch-Site is unclear")),
            (Some(found), _) => Ok(Some(found)),
            (None, _) => Err(Refused::CrossSite("its Origin is not one of the route's")),
        };
    }
    match (site(request), open_to) {
        (Site::Own, _) => Ok(None),
        (Site::Other, Some(open_to)) if matches!(request.method, Method::GET | Method::HEAD) => {
            let mut referers = headers.get_all(REFERER).iter();
            let (first, second) = (referers.next().map(HeaderValue::as_bytes), referers.next());
            let found = first.filter(|_| second.is_none()).and_then(|referer| open_to.find_referer(referer));
            found
                .map(Some)
                .ok_or(Refused::CrossSite("it has no Origin, and its Referer is none of the route's"))
        }
        _ => Err(Refused::CrossSite("its Sec-Fetch-Site says so")),
    }
}

/// Does its Sec-Fetch-Site, if it has one, name no other site?
pub(super) fn is_of_this_site(request: &Parts) -> bool {
    site(request) == Site::Own
}

/// What `Sec-Fetch-Site` says (Fetch Metadata §2.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// It is not there, nobody's page began it, or a page of the very same origin did.
    Own,
    /// Another origin's page began it.
    Other,
    /// Nothing that a browser says.
    Unclear,
}

fn site(request: &Parts) -> Site {
    let mut sites = request.headers.get_all(&SEC_FETCH_SITE).iter();
    let Some(first) = sites.next() else { return Site::Own };
    match first.as_bytes() {
        _ if sites.next().is_some() => Site::Unclear,
        b"none" | b"same-origin" => Site::Own,
        b"cross-site" | b"same-site" => Site::Other,
        _ => Site::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::tests::request;

    const APP: &str = "https://app.example.com";
    const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");

    fn open() -> Origins {
        Origins::new([APP, "http://localhost:3000"])
    }

    #[test]
    fn what_comes_from_a_web_page_is_refused() {
        for open_to in [None, Some(&open())] {
            let with = |headers: &[(&str, &str)]| page_of(&request(headers), open_to);
            for origin in ["https://evil.com", "null", "http://localhost:7600", ""] {
                assert!(with(&[("origin", origin)]).is_err(), "{origin}");
            }
            for site in ["cross-site", "same-site", "", "None", "none, same-origin"] {
                assert!(with(&[("sec-fetch-site", site)]).is_err(), "{site}");
            }
            for site in ["none", "same-origin"] {
                assert_eq!(with(&[("sec-fetch-site", site)]), Ok(None), "{site}");
                assert!(with(&[("sec-fetch-site", site), CROSS]).is_err(), "{site}");
                assert!(with(&[CROSS, ("sec-fetch-site", site)]).is_err(), "{site}");
            }
            assert_eq!(with(&[]), Ok(None));
        }
        assert!(page_of(&request(&[("origin", APP)]), None).is_err(), "unless the route is open to it");
    }

    #[test]
    fn an_origin_that_a_route_is_open_to_is_let_in_as_browsers_spell_it_and_in_no_other_way() {
        let open = open();
        let with = |headers: &[(&str, &str)]| page_of(&request(headers), Some(&open));
        for site in ["cross-site", "same-site", "same-origin", "none"] {
            assert_eq!(with(&[("origin", APP), ("sec-fetch-site", site)]), Ok(Some(0)), "{site}");
        }
        assert_eq!(with(&[("origin", APP)]), Ok(Some(0)));
        assert_eq!(with(&[("origin", "http://localhost:3000")]), Ok(Some(1)));
        let others = [
            "http://app.example.com",
            "https://app.example.com/",
            "https://app.example.com/x",
            "https://app.example.com:443",
            "https://app.example.com:8443",
            "https://app.example.com.",
            "https://App.Example.com",
            "HTTPS://app.example.com",
            "https://user@app.example.com",
            "https://app.example.com@evil.com",
            "https://app.example.com.evil.com",
            "https://evil-app.example.com",
            "https://x.app.example.com",
            "https://app.example.co",
            "https://app.example.com https://evil.com",
            "https://app.example.com, https://evil.com",
            "app.example.com",
            "//app.example.com",
            "*",
            "http://localhost",
            "http://localhost:3001",
            "http://127.0.0.1:3000",
        ];
        for origin in others {
            assert!(with(&[("origin", origin)]).is_err(), "{origin}");
        }
        assert!(with(&[("origin", APP), ("origin", APP)]).is_err());
        assert!(with(&[("origin", APP), ("origin", "null")]).is_err());
        assert!(with(&[("origin", APP), ("sec-fetch-site", "")]).is_err());
        assert!(with(&[("origin", APP), CROSS, CROSS]).is_err());
    }

    #[test]
    fn without_an_origin_a_referer_that_a_browser_vouches_for_will_do() {
        let open = open();
        let with = |method: &str, headers: &[(&str, &str)]| {
            let mut request = request(headers);
            request.method = method.parse().unwrap();
            page_of(&request, Some(&open))
        };
        for referer in ["https://app.example.com/", "https://app.example.com/a?b=https://evil.com"] {
            for method in ["GET", "HEAD"] {
                assert_eq!(with(method, &[CROSS, ("referer", referer)]), Ok(Some(0)), "{method} {referer}");
            }
            assert!(with("POST", &[CROSS, ("referer", referer)]).is_err(), "a POST has an Origin");
            assert_eq!(with("GET", &[("referer", referer)]), Ok(None), "no page, by its Sec-Fetch-Site");
            assert!(with("GET", &[CROSS, ("referer", referer), ("origin", "null")]).is_err(), "{referer}");
            assert!(with("GET", &[CROSS, ("referer", referer), ("referer", referer)]).is_err(), "{referer}");
            assert!(page_of(&request(&[CROSS, ("referer", referer)]), None).is_err(), "{referer}");
        }
        let others = [
            "https://app.example.com",
            "https://app.example.com.evil.com/",
            "https://app.example.com@evil.com/",
            "https://app.example.com:443/",
            "http://app.example.com/",
            "https://evil.com/https://app.example.com/",
            "about:blank",
            "",
        ];
        for referer in others {
            assert!(with("GET", &[CROSS, ("referer", referer)]).is_err(), "{referer}");
        }
    }
}
