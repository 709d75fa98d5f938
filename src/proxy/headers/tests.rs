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
        via: None,
        allow_link_local: false,
    }
}

fn sent(provider: Provider, given: &[(&str, &str)]) -> Vec<String> {
    let mut headers = map(given);
    let received = Received { via: "1.1 sidekey", to_websocket: false, tls: false, reserved: &[] };
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
    in_trailers(&mut trailers, &[]);
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
fn neo4j_learns_the_address_that_the_caller_used_as_it_understands_it() {
    let told = |host: &'static str, called: &str| {
        let upstream =
            Upstream { host: host.into(), host_header: HeaderValue::from_static("upstream"), ..upstream() };
        let mut headers =
            map(&[("host", called), ("x-forwarded-host", "evil"), ("x-forwarded-proto", "evil")]);
        let received = Received { via: "1.1 sidekey", to_websocket: false, tls: false, reserved: &[] };
        to_upstream(&mut headers, Provider::Neo4j, &upstream, received);
        headers.remove(VIA);
        lines(&headers)
    };
    // Nothing chooses by Host where the upstream has no name of its own.
    for upstream in ["127.0.0.1", "10.1.2.3", "::1", "localhost", "graph.localhost"] {
        for called in ["127.0.0.1:7600", "localhost:7600", "graph.internal"] {
            let want = [format!("host: {called}"), "x-forwarded-proto: http".to_owned()];
            assert_eq!(told(upstream, called), want, "{upstream}");
        }
    }
    for upstream in ["db.example", "graph", "1a.databases.neo4j.io", "10.example"] {
        for called in ["graph.localhost:7600", "localhost", "a-b:1"] {
            let want = [
                "host: upstream".to_owned(),
                format!("x-forwarded-host: {called}"),
                "x-forwarded-proto: http".to_owned(),
            ];
            assert_eq!(told(upstream, called), want, "{upstream}");
        }
        // It would break or not listen, and a scheme alone would change its own URLs.
        for called in ["127.0.0.1:7600", "127.0.0.1", "[::1]:7600", "0a.example:80", "a_b:80"] {
            assert_eq!(told(upstream, called), ["host: upstream"], "{upstream} {called}");
        }
    }
    let mut headers = map(&[("host", "graph.internal")]);
    let received = Received { via: "1.1 sidekey", to_websocket: false, tls: true, reserved: &[] };
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

#[test]
fn what_a_credential_or_sidekey_says_in_a_header_of_its_own_is_nobody_elses() {
    let reserved = [HeaderName::from_static("x-api-key"), HeaderName::from_static("sk_account")];
    let given = [
        ("host", "localhost"),
        ("x-api-key", "mine"),
        ("x_api_key", "mine"),
        ("sk-account", "alice"),
        ("x-api-keys", "1"),
    ];
    let received = Received { via: "1.1 sidekey", to_websocket: false, tls: false, reserved: &reserved };
    let mut headers = map(&given);
    to_upstream(&mut headers, Provider::Generic, &upstream(), received);
    assert_eq!(lines(&headers), ["host: api.example", "via: 1.1 sidekey", "x-api-keys: 1"]);
    let mut trailers = map(&given[1..]);
    in_trailers(&mut trailers, &reserved);
    assert_eq!(lines(&trailers), ["x-api-keys: 1"]);
}

#[test]
fn a_body_that_trailers_are_announced_to_follow_is_chunked() {
    let framed = |version, is_length_known, lines: &[(&'static str, &'static str)]| {
        let mut request = http::Request::post("/").version(version);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        if version == Version::HTTP_2 {
            of_http2(&mut head);
        }
        frame_for_http1(&mut head.headers, is_length_known);
        let has = |name| head.headers.contains_key(name);
        (has(CONTENT_LENGTH), has(TRANSFER_ENCODING))
    };
    let length = ("content-length", "5");
    let announced = ("trailer", "x-sum");
    assert_eq!(framed(Version::HTTP_2, true, &[length, announced]), (false, true));
    assert_eq!(framed(Version::HTTP_2, true, &[announced]), (false, true));
    assert_eq!(framed(Version::HTTP_2, true, &[length]), (true, false));
    // Its length is its caller's word that nothing follows.
    assert_eq!(framed(Version::HTTP_11, true, &[length, announced]), (true, false));
    assert_eq!(framed(Version::HTTP_11, true, &[announced]), (false, true));
    assert_eq!(framed(Version::HTTP_11, true, &[]), (false, false));
    assert_eq!(framed(Version::HTTP_11, false, &[]), (false, true), "hyper would leave it out of a GET");
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

    /// The values of a name, in order.
    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a HeaderValue> {
        headers.get_all(name).iter().collect()
    }

    proptest! {
        #[test]
        fn what_goes_upstream_is_clean_and_stays_as_it_is_when_it_is_cleaned_again(
            given in any_headers(),
            tls in any::<bool>(),
        ) {
            let given: Vec<_> = given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let original = map(&given);
            let lines = original.get_all(CONNECTION).iter().map(|line| line.to_str().unwrap());
            let named: Vec<_> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
            // What sidekey sets itself, and what no Connection line takes away.
            let set = ["host", "content-length", "via", "te", "x-forwarded-host", "x-forwarded-proto"];
            for provider in [Provider::Aura, Provider::Neo4j, Provider::Neon, Provider::Generic] {
                let received = Received { via: "1.1 sidekey", to_websocket: false, tls, reserved: &[] };
                let mut once = original.clone();
                to_upstream(&mut once, provider, &upstream(), received);
                let hop_by_hop = ["connection", "keep-alive", "upgrade", "authorization", "x-forwarded-for"];
                for name in named.iter().chain(&hop_by_hop).filter(|name| !set.contains(name)) {
                    prop_assert!(!once.contains_key(*name), "{} stays", name);
                }
                for name in once.keys().map(HeaderName::as_str).filter(|name| !set.contains(name)) {
                    prop_assert_eq!(all(&once, name), all(&original, name));
                }
                let mut twice = once.clone();
                to_upstream(&mut twice, provider, &upstream(), received);
                // Each proxy on the way adds itself, and says where the request came to it.
                for name in twice.keys().map(HeaderName::as_str).filter(|name| *name != "via" && !name.starts_with("x-f")) {
                    prop_assert_eq!(all(&once, name), all(&twice, name));
                }
                let mut trailers = once.clone();
                in_trailers(&mut trailers, &[]);
                let cleaned = trailers.clone();
                in_trailers(&mut trailers, &[]);
                prop_assert_eq!(trailers, cleaned);
            }
        }

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
fn trailers_make_no_other_request_of_one_that_was_judged() {
    let mut trailers = HeaderMap::new();
    let names = [
        "x-http-method-override",
        "x_http_method_override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "access-mode",
        "access_mode",
        "x-checksum",
    ];
    for name in names {
        trailers.append(name, HeaderValue::from_static("DELETE"));
    }
    in_trailers(&mut trailers, &[]);
    let left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-checksum"]);
}
