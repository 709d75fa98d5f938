//! Which headers pass, in both directions, and which are ours to set. Pure.

use bytes::Bytes;
use http::Version;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http_body::Frame;

use super::{framing, hops};
use crate::config::{Provider, Upstream};

static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Makes a caller's header one that may be sent upstream, all but the credential: hop-by-hop fields go, what callers
/// may not say goes, ours are set. `version`: the caller's.
pub fn to_upstream(headers: &mut HeaderMap, version: Version, provider: Provider, upstream: &Upstream) {
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    remove_hop_by_hop(headers);
    let doomed = |name: &HeaderName| {
        is_callers_taboo(name) || is_disguised(name) || (name == COOKIE && takes_cookies(provider))
    };
    remove_where(headers, doomed);
    if is_chunked {
        // hyper sends no body of unknown length with a GET or HEAD that does not say so.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let host = headers.insert(HOST, upstream.host_header.clone());
    if provider == Provider::Neo4j
        && let Some(host) = host
    {
        // It builds absolute URLs in its answers from these; they must lead back here.
        headers.insert(X_FORWARDED_HOST.clone(), host);
        headers.insert(X_FORWARDED_PROTO.clone(), HeaderValue::from_static("http"));
    }
    headers.append(VIA, HeaderValue::from_static(hops::via(version)));
}

/// Makes an upstream's header one that a caller may see. It has one length.
pub fn to_caller(headers: &mut HeaderMap, provider: Provider) {
    remove_hop_by_hop(headers);
    framing::merge_lengths(headers);
    let doomed = |name: &HeaderName| {
        name.as_str().starts_with("access-control-")
            || name.as_str().starts_with("sidekey-")
            // A session that would authenticate by itself is a credential, and callers hold none.
            || (name == SET_COOKIE && takes_cookies(provider))
    };
    remove_where(headers, doomed);
}

/// Trailers, in either direction: what may not stand in a header of ours may not come in behind it, nor what decides
/// about framing, routing or authentication (RFC 9110 §6.5.1).
pub fn in_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| {
        is_hop_by_hop(name)
            || is_callers_taboo(name)
            || is_disguised(name)
            || matches!(*name, HOST | CONTENT_LENGTH | COOKIE | SET_COOKIE)
            || name.as_str().starts_with("access-control-")
    });
}

/// The same for a piece of a body, which may be trailers.
pub fn in_frame(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            in_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// Removes every field named in every Connection line, then those that are hop-by-hop by themselves
/// (RFC 9110 §7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body was framed by the other; a length that stayed would cut it (RFC 9112 §6.3).
        headers.remove(CONTENT_LENGTH);
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // Not hop-by-hop whatever a caller says: without it the message has no host or another body.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
    remove_where(headers, is_hop_by_hop);
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// What a caller may not say: who it is to the upstream, and where it comes from.
fn is_callers_taboo(name: &HeaderName) -> bool {
    *name == AUTHORIZATION
        || *name == FORWARDED
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str().starts_with("sidekey-")
}

/// Is it a field that callers may not send, with `_` for `-`? Servers in the manner of CGI read both as the same.
fn is_disguised(name: &HeaderName) -> bool {
    name.as_str().contains('_')
        && HeaderName::from_bytes(name.as_str().replace('_', "-").as_bytes()).is_ok_and(|plain| {
            is_hop_by_hop(&plain) || is_callers_taboo(&plain) || matches!(plain, HOST | CONTENT_LENGTH)
        })
}

/// Does the provider take a cookie for a credential?
fn takes_cookies(provider: Provider) -> bool {
    match provider {
        Provider::Aura | Provider::Neon => true,
        Provider::Neo4j | Provider::Generic => false,
    }
}

/// Most messages have nothing to remove, so the names are looked at once and nothing is allocated.
fn remove_where(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| doomed(name)).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn upstream() -> Upstream {
        Upstream {
            tls: true,
            host: "api.example".into(),
            port: 443,
            base_path: String::new(),
            host_header: HeaderValue::from_static("api.example"),
        }
    }

    fn sent(provider: Provider, given: &[(&str, &str)]) -> Vec<String> {
        let mut headers = map(given);
        to_upstream(&mut headers, Version::HTTP_11, provider, &upstream());
        lines(&headers)
    }

    #[test]
    fn every_connection_line_is_obeyed() {
        let got = sent(
            Provider::Generic,
            &[
                ("host", "localhost"),
                ("connection", "close, X-One"),
                ("connection", "x-two , keep-alive"),
                ("keep-alive", "timeout=5"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("x-three", "3"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("proxy-connection", "keep-alive"),
                ("transfer-encoding", "chunked"),
            ],
        );
        // The body is framed anew.
        let want = ["host: api.example", "transfer-encoding: chunked", "via: 1.1 sidekey", "x-three: 3"];
        assert_eq!(got, want);
    }

    #[test]
    fn of_two_framings_the_length_goes() {
        let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked"), ("etag", "x")]);
        to_caller(&mut headers, Provider::Generic);
        assert_eq!(lines(&headers), ["etag: x"]);
    }

    #[test]
    fn an_underscore_hides_nothing() {
        let given = [
            ("host", "localhost"),
            ("content_length", "0"),
            ("transfer_encoding", "chunked"),
            ("x_forwarded-for", "10.0.0.1"),
            ("sidekey_token", "t"),
            ("x_mine", "1"),
        ];
        assert_eq!(sent(Provider::Generic, &given), ["host: api.example", "via: 1.1 sidekey", "x_mine: 1"]);
    }

    #[test]
    fn trailers_cannot_say_what_headers_may_not() {
        let mut trailers = map(&[
            ("x-checksum", "1"),
            ("grpc-status", "0"),
            ("authorization", "Bearer mine"),
            ("x-forwarded-for", "1.2.3.4"),
            ("sidekey-token", "t"),
            ("cookie", "a=b"),
            ("set-cookie", "a=b"),
            ("host", "evil"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("access-control-allow-origin", "*"),
        ]);
        in_trailers(&mut trailers);
        assert_eq!(lines(&trailers), ["grpc-status: 0", "x-checksum: 1"]);
    }

    #[test]
    fn connection_cannot_take_the_length_or_the_host_away() {
        let got = sent(
            Provider::Generic,
            &[("host", "a"), ("connection", "host, content-length"), ("content-length", "3")],
        );
        assert_eq!(got, ["content-length: 3", "host: api.example", "via: 1.1 sidekey"]);
    }

    #[test]
    fn callers_cannot_say_who_they_are_or_where_they_come_from() {
        let got = sent(
            Provider::Generic,
            &[
                ("host", "localhost"),
                ("authorization", "Bearer mine"),
                ("authorization", "Basic mine"),
                ("proxy-authorization", "Basic x"),
                ("forwarded", "for=1.2.3.4"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-anything", "x"),
                ("sidekey-token", "t"),
                ("sidekey-other", "t"),
                ("cookie", "a=b"),
                ("via", "1.0 fred"),
            ],
        );
        assert_eq!(got, ["cookie: a=b", "host: api.example", "via: 1.0 fred", "via: 1.1 sidekey"]);
    }

    #[test]
    fn cookies_do_not_pass_where_they_are_credentials() {
        for provider in [Provider::Aura, Provider::Neon] {
            let got = sent(provider, &[("host", "localhost"), ("cookie", "keycloak=1")]);
            assert_eq!(got, ["host: api.example", "via: 1.1 sidekey"]);
            let mut answer = map(&[("set-cookie", "keycloak=1"), ("content-type", "text/plain")]);
            to_caller(&mut answer, provider);
            assert_eq!(lines(&answer), ["content-type: text/plain"]);
        }
    }

    #[test]
    fn neo4j_learns_the_address_that_the_caller_used() {
        let got = sent(Provider::Neo4j, &[("host", "127.0.0.1:7474"), ("x-forwarded-host", "evil")]);
        let want = [
            "host: api.example",
            "via: 1.1 sidekey",
            "x-forwarded-host: 127.0.0.1:7474",
            "x-forwarded-proto: http",
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn answers_lose_what_opens_them_to_web_pages() {
        let mut headers = map(&[
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "x"),
            ("sidekey-error", "no_route"),
            ("connection", "x-private"),
            ("x-private", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("neo4j-cluster-affinity", "node-1"),
        ]);
        to_caller(&mut headers, Provider::Neo4j);
        assert_eq!(lines(&headers), ["neo4j-cluster-affinity: node-1", "set-cookie: a=1", "set-cookie: b=2"]);
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        fn any_headers() -> impl Strategy<Value = Vec<(String, String)>> {
            let name = proptest::sample::select(vec![
                "connection",
                "x-a",
                "x-b",
                "accept",
                "cookie",
                "via",
                "te",
                "keep-alive",
                "authorization",
                "x-forwarded-for",
                "content-type",
                "upgrade",
                "host",
            ]);
            let value = "[a-z-]{1,9}(, ?[a-z-]{1,9}){0,3}|x-a|x-b|close|authorization, x-a";
            proptest::collection::vec((name.prop_map(str::to_owned), value), 0..12)
        }

        proptest! {
            #[test]
            fn sanitizing_twice_is_sanitizing_once_and_keeps_each_names_order(given in any_headers()) {
                let given: Vec<_> = given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let original = map(&given);
                let mut once = original.clone();
                to_caller(&mut once, Provider::Neon);
                let mut twice = once.clone();
                to_caller(&mut twice, Provider::Neon);
                prop_assert_eq!(&once, &twice);
                for line in original.get_all(CONNECTION) {
                    for name in line.to_str().unwrap().split(',').map(str::trim).filter(|name| *name != "host") {
                        prop_assert!(!once.contains_key(name), "{} stays", name);
                    }
                }
                for name in once.keys() {
                    let before: Vec<_> = original.get_all(name).iter().collect();
                    let after: Vec<_> = once.get_all(name).iter().collect();
                    prop_assert_eq!(before, after);
                }
            }
        }
    }
}
