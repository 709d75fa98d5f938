//! Which headers pass, in both directions, and which are ours to set. Pure.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request::Parts;
use http::{Method, Version};
use http_body::Frame;

use crate::config::{Provider, Upstream};

static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Makes a caller's header one that may be sent upstream, all but the credential: hop-by-hop fields go, what callers
/// may not say goes, ours are set.
pub fn to_upstream(headers: &mut HeaderMap, provider: Provider, upstream: &Upstream, received: Received) {
    let takes_trailers = headers.contains_key(TE) && has_token(headers, &TE, b"trailers");
    remove_hop_by_hop(headers);
    if takes_trailers {
        // Ours as well: trailers pass. How it is said depends on the connection.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if received.to_websocket {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    let doomed = |name: &HeaderName| is_callers_taboo(name) || (name == COOKIE && takes_cookies(provider));
    remove_where(headers, doomed);
    let host = headers.insert(HOST, upstream.host_header.clone());
    if provider == Provider::Neo4j
        && let Some(host) = host
    {
        // It builds absolute URLs in its answers from these; they must lead back here.
        headers.insert(X_FORWARDED_HOST.clone(), host);
        let scheme = if received.tls { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO.clone(), HeaderValue::from_static(scheme));
    }
    headers.append(VIA, HeaderValue::from_static(received.via));
}

/// How a request was received, which its header does not say or says to us alone.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// `Via`: the version of HTTP that the caller speaks, and who received it (RFC 9110 §7.6.3).
    pub via: &'static str,
    /// It asks for a WebSocket, and may.
    pub to_websocket: bool,
    /// The caller speaks TLS.
    pub tls: bool,
}

impl Received {
    /// Those of a request, before its header is cleaned.
    pub fn of(head: &Parts, tls: bool) -> Self {
        let via = match head.version {
            Version::HTTP_2 => "2.0 sidekey",
            Version::HTTP_10 => "1.0 sidekey",
            _ => "1.1 sidekey",
        };
        let to_websocket = head.headers.contains_key(UPGRADE) && is_websocket(head);
        Self { via, to_websocket, tls }
    }
}

/// Is it the handshake of a WebSocket, and nothing else (RFC 6455 §4.1)? Only such a request may turn its connection
/// into a tunnel: any other upgrade is left out, as RFC 9110 §7.8 allows, and the request goes on without.
fn is_websocket(head: &Parts) -> bool {
    let headers = &head.headers;
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let is_the_only =
        upgrades.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && upgrades.next().is_none();
    is_the_only
        && head.version == Version::HTTP_11
        && head.method == Method::GET
        && has_token(headers, &CONNECTION, b"upgrade")
        && headers.contains_key(SEC_WEBSOCKET_KEY)
        && headers.contains_key(SEC_WEBSOCKET_VERSION)
        // A body in front of a tunnel would be read as part of it by one side.
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Does a list of tokens hold this one?
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Does the caller wait to be asked for its body (RFC 9110 §10.1.1)?
pub fn asks_first(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Makes a request of HTTP/2 one that can be judged and forwarded as one of HTTP/1.1: its authority is its Host
/// (RFC 9113 §8.3.1), its cookies are one field (§8.2.3), and trailers may follow (§8.1).
pub fn of_http2(head: &mut Parts) {
    if head.headers.contains_key(TRAILER) {
        // In HTTP/1.1, nothing can follow a body of known length.
        head.headers.remove(CONTENT_LENGTH);
    }
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    let mut cookies = head.headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let mut whole = first.as_bytes().to_vec();
        for cookie in std::iter::once(second).chain(cookies) {
            whole.extend_from_slice(b"; ");
            whole.extend_from_slice(cookie.as_bytes());
        }
        if let Ok(whole) = HeaderValue::from_maybe_shared(Bytes::from(whole)) {
            head.headers.insert(COOKIE, whole);
        }
    }
}

/// Frames a body that trailers are announced to follow so that they can (RFC 9112 §7.1.2).
pub fn with_trailers(headers: &mut HeaderMap) {
    if headers.contains_key(TRAILER) && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Says of this connection what HTTP/1.1 wants said of each (RFC 9110 §7.6.1, §7.8, §10.1.4).
pub fn for_http1(headers: &mut HeaderMap) {
    let said = match (headers.contains_key(UPGRADE), headers.contains_key(TE)) {
        (false, false) => return,
        (true, false) => "upgrade",
        (false, true) => "te",
        (true, true) => "upgrade, te",
    };
    headers.insert(CONNECTION, HeaderValue::from_static(said));
}

/// Is the body framed in a way that can be framed anew? Any coding but `chunked` would be lost on the way, as it
/// stands in a field that does not pass (RFC 9112 §6.1).
pub fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|only| only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// Makes an upstream's header one that a caller may see.
pub fn to_caller(headers: &mut HeaderMap, provider: Provider) {
    remove_hop_by_hop(headers);
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
        let received = Received { via: "1.1 sidekey", to_websocket: false, tls: false };
        to_upstream(&mut headers, provider, &upstream(), received);
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
        assert_eq!(got, ["host: api.example", "te: trailers", "via: 1.1 sidekey", "x-three: 3"]);
    }

    #[test]
    fn only_chunked_alone_is_a_plain_framing() {
        let plain = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("transfer-encoding", *line)).collect();
            has_plain_framing(&map(&lines))
        };
        assert!(plain(&[]) && plain(&["chunked"]) && plain(&["Chunked "]));
        for lossy in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["identity"], &[""]]
        {
            assert!(!plain(lossy), "{lossy:?}");
        }
    }

    #[test]
    fn of_two_framings_the_length_goes() {
        let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked"), ("etag", "x")]);
        to_caller(&mut headers, Provider::Generic);
        assert_eq!(lines(&headers), ["etag: x"]);
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
        let mut headers = map(&[("host", "graph.internal")]);
        let received = Received { via: "1.1 sidekey", to_websocket: false, tls: true };
        to_upstream(&mut headers, Provider::Neo4j, &upstream(), received);
        assert_eq!(headers[&X_FORWARDED_PROTO], "https");
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

    #[test]
    fn a_body_that_trailers_are_announced_to_follow_is_chunked() {
        let framed = |version, lines: &[(&'static str, &'static str)]| {
            let mut request = http::Request::post("/").version(version);
            for (name, value) in lines {
                request = request.header(*name, *value);
            }
            let mut head = request.body(()).unwrap().into_parts().0;
            if version == Version::HTTP_2 {
                of_http2(&mut head);
            }
            with_trailers(&mut head.headers);
            let has = |name| head.headers.contains_key(name);
            (has(CONTENT_LENGTH), has(TRANSFER_ENCODING))
        };
        let length = ("content-length", "5");
        let announced = ("trailer", "x-sum");
        assert_eq!(framed(Version::HTTP_2, &[length, announced]), (false, true));
        assert_eq!(framed(Version::HTTP_2, &[announced]), (false, true));
        assert_eq!(framed(Version::HTTP_2, &[length]), (true, false));
        // Its length is its caller's word that nothing follows.
        assert_eq!(framed(Version::HTTP_11, &[length, announced]), (true, false));
        assert_eq!(framed(Version::HTTP_11, &[announced]), (false, true));
    }
}
