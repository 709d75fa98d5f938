//! Which references are rewritten, in which fields, and to what.

use http::HeaderMap;
use url::Url;

use super::*;
use crate::config::{Matches, Route};

mod properties;

fn upstream(url: &str) -> Upstream {
    let url = Url::parse(url).unwrap();
    let host = url.host_str().unwrap();
    let host_header = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Upstream {
        tls: url.scheme() == "https",
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default().unwrap(),
        base_path: url.path().trim_end_matches('/').to_owned(),
        host_header: host_header.parse().unwrap(),
        via: None,
        allow_link_local: false,
    }
}

fn view<'a>(host: &'static str, prefix: &'a str) -> View<'a> {
    View { tls: false, host: HeaderValue::from_static(host), prefix, by_path: None }
}

/// A field's value as the caller gets it, and whether it was touched.
fn told(name: HeaderName, value: &[u8], view: &View<'_>, provider: Provider, upstream: &Upstream) -> Vec<u8> {
    let mut headers = HeaderMap::new();
    headers.insert(name.clone(), HeaderValue::from_bytes(value).unwrap());
    to_caller(&mut headers, view, provider, upstream);
    headers[name].as_bytes().to_vec()
}

fn location(value: &str, view: &View<'_>, provider: Provider, upstream: &Upstream) -> String {
    String::from_utf8(told(LOCATION, value.as_bytes(), view, provider, upstream)).unwrap()
}

/// (upstream, prefix, what it writes, what the caller gets; empty: the same)
const LOCATIONS: &[(&str, &str, &str, &str)] = &[
    // Absolute, on a route by path.
    (
        "https://api.example",
        "/aura",
        "https://api.example/v1/x?q=http://api.example/#f",
        "http://sk:1/aura/v1/x?q=http://api.example/#f",
    ),
    ("https://api.example", "/aura", "HTTPS://API.Example:443/v1", "http://sk:1/aura/v1"),
    ("https://api.example", "/aura", "https://api.example.:/v1", "http://sk:1/aura/v1"),
    ("https://api.example", "/aura", "https://api.example", "http://sk:1/aura"),
    ("https://api.example", "/aura", "https://api.example/", "http://sk:1/aura/"),
    ("https://api.example", "/aura", "https://api.example?x", "http://sk:1/aura?x"),
    ("https://api.example", "/aura", "https://api.example#f", "http://sk:1/aura#f"),
    ("http://127.0.0.1:8080", "/up", "http://127.0.0.1:8080/a", "http://sk:1/up/a"),
    ("http://[2001:db8::1]:8080", "/up", "http://[2001:DB8:0::1]:8080/a", "http://sk:1/up/a"),
    // On a route by host or listener.
    ("https://api.example", "", "https://api.example/v1", "http://sk:1/v1"),
    ("https://api.example", "", "https://api.example", "http://sk:1"),
    ("https://api.example", "", "//api.example/v1", "http://sk:1/v1"),
    ("https://api.example", "", "//api.example:80/v1", ""),
    ("https://api.example", "", "/v1", ""),
    // An upstream with a path.
    (
        "https://neon.example/api/v2",
        "/neon",
        "https://neon.example/api/v2/projects/a%2Fb?c",
        "http://sk:1/neon/projects/a%2Fb?c",
    ),
    ("https://neon.example/api/v2", "/neon", "https://neon.example/api/v2", "http://sk:1/neon"),
    ("https://neon.example/api/v2", "/neon", "https://neon.example/api/v2?x", "http://sk:1/neon?x"),
    ("https://neon.example/api/v2", "/neon", "https://neon.example/api/v2/", "http://sk:1/neon/"),
    ("https://neon.example/api/v2", "/neon", "/api/v2/projects", "/neon/projects"),
    ("https://neon.example/api/v2", "", "/api/v2/projects?x#y", "/projects?x#y"),
    ("https://neon.example/api/v2", "", "https://neon.example/api/v2/projects", "http://sk:1/projects"),
    ("https://neon.example/api/v2", "", "//neon.example/api/v2/projects", "http://sk:1/projects"),
    // Outside that path, and at it where no request-target says it: no address here leads there.
    ("https://neon.example/api/v2", "/neon", "https://neon.example/api/v22/x", ""),
    ("https://neon.example/api/v2", "/neon", "https://neon.example/API/V2/x", ""),
    ("https://neon.example/api/v2", "/neon", "https://neon.example/", ""),
    ("https://neon.example/api/v2", "/neon", "/login?to=/api/v2/x", ""),
    ("https://neon.example/api/v2", "", "https://neon.example/api/v2", ""),
    ("https://neon.example/api/v2", "", "/api/v2?x", ""),
    // What would begin a host stays a path.
    ("https://neon.example/api/v2", "", "/api/v2//evil.example/x", "http://sk:1//evil.example/x"),
    ("https://neon.example/api/v2", "/neon", "/api/v2//evil.example/x", "/neon//evil.example/x"),
    ("https://neon.example/api/v2", "", "/api/v2/\\evil.example/x", ""),
    ("https://neon.example/api/v2", "", "/api/v2/\t/evil.example/x", ""),
    // Absolute paths.
    ("https://api.example", "/aura", "/v1/x?q#f", "/aura/v1/x?q#f"),
    ("https://api.example", "/aura", "/", "/aura/"),
    ("https://api.example", "/aura", "/?x", "/aura/?x"),
    // The upstream knows no prefix: this one is its own.
    ("https://api.example", "/aura", "/aura/v1", "/aura/aura/v1"),
    // Elsewhere.
    ("https://api.example", "/aura", "https://api.example:8443/v1", ""),
    ("https://api.example", "/aura", "http://api.example/v1", ""),
    ("https://api.example", "/aura", "http://api.example:443/v1", ""),
    ("https://api.example", "/aura", "https://api.example.org/v1", ""),
    ("https://api.example", "/aura", "https://other.example/?u=https://api.example/v1", ""),
    ("https://api.example", "/aura", "https://user@api.example/v1", ""),
    ("https://api.example", "/aura", "https://api.example:443@evil.example/v1", ""),
    ("https://api.example", "/aura", "https://api.example:+443/v1", ""),
    ("https://api.example", "/aura", "https://api.example:99999/v1", ""),
    ("https://api.example", "/aura", "https://[api.example]/v1", ""),
    ("https://api.example", "/aura", "https://api.example\\@evil.example/v1", ""),
    ("https://api.example", "/aura", "//other.example/v1", ""),
    ("https://api.example", "/aura", "http://sk:1/v1", ""),
    ("http://[::1]:8080", "/up", "http://[::2]:8080/a", ""),
    ("http://localhost:8080", "/up", "http://127.0.0.1:8080/a", ""),
    // Relative, or no reference that is known.
    ("https://api.example", "/aura", "x/y", ""),
    ("https://api.example", "/aura", "../x", ""),
    ("https://api.example", "/aura", "?page=2", ""),
    ("https://api.example", "/aura", "#f", ""),
    ("https://api.example", "/aura", "", ""),
    ("https://api.example", "/aura", "https:/v1", ""),
    ("https://api.example", "/aura", "https:v1", ""),
    ("https://api.example", "/aura", "ftp://api.example/v1", ""),
    ("https://api.example", "/aura", "mailto:a@api.example", ""),
    // Read two ways, or by some with bytes left out.
    ("https://api.example", "/aura", "https://api.example/v1/../../x", ""),
    ("https://api.example", "/aura", "/%2e%2e/x", ""),
    ("https://api.example", "/aura", "https://api.example/v1 x", ""),
    ("https://api.example", "/aura", "https://api.exam\tple/v1", ""),
];

#[test]
fn references_to_the_upstream_lead_back_and_others_pass_untouched() {
    for (url, prefix, given, want) in LOCATIONS {
        let want = if want.is_empty() { given } else { want };
        for provider in [Provider::Aura, Provider::Generic, Provider::Neo4j] {
            if *given == "http://sk:1/v1" && provider == Provider::Neo4j {
                continue;
            }
            let got = location(given, &view("sk:1", prefix), provider, &upstream(url));
            assert_eq!(&got, want, "{given} from {url} behind {prefix:?}");
        }
    }
}

#[test]
fn the_caller_gets_its_own_scheme_and_its_host_as_it_wrote_it() {
    let upstream = upstream("http://127.0.0.1:9");
    for (host, tls, want) in [
        ("[::1]:7600", false, "http://[::1]:7600/up/x"),
        ("LocalHost", false, "http://LocalHost/up/x"),
        ("sidekey.internal:443", true, "https://sidekey.internal:443/up/x"),
    ] {
        let view = View { tls, ..view(host, "/up") };
        assert_eq!(location("http://127.0.0.1:9/x", &view, Provider::Generic, &upstream), want);
    }
}

#[test]
fn neo4j_knows_the_callers_host_and_lacks_the_prefix() {
    let cases = [
        ("http://sk:1/db/neo4j/tx/1", "http://sk:1/neo4j/db/neo4j/tx/1"),
        ("HTTP://SK:1/db/neo4j/tx/1?x#y", "HTTP://SK:1/neo4j/db/neo4j/tx/1?x#y"),
        ("http://sk:1", "http://sk:1/neo4j"),
        ("http://sk:1/neo4jx/db", "http://sk:1/neo4j/neo4jx/db"),
        // There already.
        ("http://sk:1/neo4j/db/neo4j/tx/1", "http://sk:1/neo4j/db/neo4j/tx/1"),
        ("http://sk:1/neo4j", "http://sk:1/neo4j"),
        // Not the caller's.
        ("https://sk:1/db", "https://sk:1/db"),
        ("http://sk:2/db", "http://sk:2/db"),
        ("http://me@sk:1/db", "http://me@sk:1/db"),
        ("bolt://sk:1", "bolt://sk:1"),
        // The server's own.
        ("http://graph.example:7474/db", "http://sk:1/neo4j/db"),
    ];
    let graph = upstream("http://graph.example:7474");
    for (given, want) in cases {
        assert_eq!(location(given, &view("sk:1", "/neo4j"), Provider::Neo4j, &graph), want, "{given}");
        assert_eq!(location(want, &view("sk:1", "/neo4j"), Provider::Neo4j, &graph), want, "again");
    }
    // Without a prefix nothing is lacking, and nobody else was told the caller's host.
    let given = "http://sk:1/db/neo4j/tx/1";
    assert_eq!(location(given, &view("sk:1", ""), Provider::Neo4j, &graph), given);
    assert_eq!(location(given, &view("sk:1", "/neo4j"), Provider::Generic, &graph), given);
    // A default port may come and go on the way.
    assert_eq!(location("http://sk/db", &view("sk:80", "/g"), Provider::Neo4j, &graph), "http://sk/g/db");
    // Behind a path, it may have that too.
    let behind = upstream("http://graph.example/base");
    let got = location("http://sk:1/base/db", &view("sk:1", "/neo4j"), Provider::Neo4j, &behind);
    assert_eq!(got, "http://sk:1/neo4j/db");
}

#[test]
fn each_link_of_each_line_is_rewritten_and_its_parameters_are_not() {
    let api = upstream("https://api.example");
    let cases = [
        (
            "<https://api.example/v1?page=2>; rel=\"next\", </v1?page=9>; rel=last",
            "<http://sk:1/aura/v1?page=2>; rel=\"next\", </aura/v1?page=9>; rel=last",
        ),
        (
            "</a,b;c>; title=\"x, </no>; \\\"y\"; anchor=\"https://api.example/a\" ,, <//api.example/d>",
            "</aura/a,b;c>; title=\"x, </no>; \\\"y\"; anchor=\"https://api.example/a\" ,, <http://sk:1/aura/d>",
        ),
        ("<https://other.example/>; rel=up,</x>", "<https://other.example/>; rel=up,</aura/x>"),
        ("\t</x>,", "</aura/x>,"),
        ("<x>; rel=a, <?p=2>; rel=next", ""),
        // Malformed, at whichever end.
        ("</x>; rel=a, y", ""),
        ("</x", ""),
        ("</x>, </y", ""),
        ("</x>; title=\"open", ""),
        ("</x>; title=\"open\\\"", ""),
        ("/x", ""),
        ("", ""),
    ];
    for (given, want) in cases {
        let given = given.trim_start();
        let want = if want.is_empty() { given } else { want };
        let got = told(LINK, given.as_bytes(), &view("sk:1", "/aura"), Provider::Generic, &api);
        assert_eq!(String::from_utf8(got).unwrap(), want, "{given}");
    }
    let mut headers = HeaderMap::new();
    for value in ["</a>", "<https://elsewhere/>", "</b>"] {
        headers.append(LINK, HeaderValue::from_static(value));
    }
    headers.append("x-link", HeaderValue::from_static("</c>"));
    to_caller(&mut headers, &view("sk:1", "/aura"), Provider::Generic, &api);
    let links: Vec<_> = headers.get_all(LINK).iter().collect();
    assert_eq!(links, ["</aura/a>", "<https://elsewhere/>", "</aura/b>"]);
    assert_eq!(headers["x-link"], "</c>");
}

#[test]
fn the_url_of_a_refresh_is_found_as_browsers_find_it() {
    let api = upstream("https://api.example");
    let cases = [
        ("5; url=https://api.example/x", "5; url=http://sk:1/aura/x"),
        ("0;URL='/x?a=b;c'", "0;URL='/aura/x?a=b;c'"),
        ("0 ; Url = \"https://api.example/x\" tail", "0 ; Url = \"http://sk:1/aura/x\" tail"),
        ("1.5,url=/x", "1.5,url=/aura/x"),
        ("0;url='/x", "0;url='/aura/x"),
        ("0;url=https://other.example/", ""),
        ("0;url=x", ""),
        ("0;url=", ""),
        ("0;url", ""),
        ("0;u", ""),
        ("5", ""),
        ("5;", ""),
        ("url=/x", ""),
        (";url=/x", ""),
        ("5 url=/x", ""),
        ("x; url=/x", ""),
        ("", ""),
    ];
    for (given, want) in cases {
        let want = if want.is_empty() { given } else { want };
        let got = told(REFRESH, given.as_bytes(), &view("sk:1", "/aura"), Provider::Generic, &api);
        assert_eq!(String::from_utf8(got).unwrap(), want, "{given}");
    }
}

#[test]
fn bytes_beyond_ascii_pass_as_they_are() {
    let api = upstream("https://api.example");
    let told = |given: &[u8]| told(CONTENT_LOCATION, given, &view("sk:1", "/aura"), Provider::Generic, &api);
    assert_eq!(told(b"/gr\xfc\xdfe?\xff"), b"/aura/gr\xfc\xdfe?\xff");
    assert_eq!(told("https://api.example/ü".as_bytes()), "http://sk:1/aura/ü".as_bytes());
    assert_eq!(told(b"https://api.ex\xffmple/x"), b"https://api.ex\xffmple/x");
}

#[test]
fn only_the_four_fields_are_looked_at() {
    let api = upstream("https://api.example");
    for name in ["x-location", "server", "set-cookie", "www-authenticate"] {
        let got = told(
            name.parse().unwrap(),
            b"https://api.example/x",
            &view("sk:1", "/aura"),
            Provider::Generic,
            &api,
        );
        assert_eq!(got, b"https://api.example/x");
    }
}

fn route(paths: &[&str]) -> Route {
    let provider = Provider::Generic;
    Route {
        name: "r".into(),
        provider,
        matches: Matches {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Matches::default()
        },
        upstream: upstream("https://api.example"),
        credential: None,
        account: None,
        tls: crate::config::TlsSettings::default(),
        connect_timeout: std::time::Duration::from_secs(1),
        response_timeout: None,
        replay_body: 0,
        refused_statuses: Vec::new(),
        http: crate::config::HttpVersion::Auto,
        max_connections: None,
        max_queue: 0,
        idle_timeout: std::time::Duration::from_secs(1),
        preserve_header_case: false,
        pace: Vec::new(),
        pace_wait: std::time::Duration::ZERO,
        local_token_endpoint: None,
        passes_encoded_slash: false,
        rights: Default::default(),
        read_only: false,
    }
}

#[test]
fn an_address_that_another_routes_prefix_would_take_is_left_alone() {
    let table = RouteTable::new(&[route(&["/a", ""]), route(&["/a/b", "/c"])], 1);
    let api = upstream("https://api.example");
    let given = |prefix, value: &str| {
        let view = View { by_path: Some(&table), ..view("sk:1", prefix) };
        location(value, &view, Provider::Generic, &api)
    };
    assert_eq!(given("/a", "https://api.example/x"), "http://sk:1/a/x");
    assert_eq!(given("/a", "https://api.example/bb"), "http://sk:1/a/bb");
    assert_eq!(given("/a", "https://api.example"), "http://sk:1/a");
    assert_eq!(given("/a", "https://api.example/b"), "https://api.example/b");
    assert_eq!(given("/a", "/b/x"), "/b/x");
    assert_eq!(given("", "https://api.example/x"), "http://sk:1/x");
    assert_eq!(given("", "https://api.example/c/x"), "https://api.example/c/x");
    // The same route, and still another resource.
    assert_eq!(given("", "https://api.example/a/x"), "https://api.example/a/x");
}

#[test]
fn what_needs_no_rewriting_costs_no_allocation() {
    let api = upstream("https://api.example");
    let view = view("sk:1", "/aura");
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("location", "https://other.example/x"),
        ("content-location", "../x"),
        ("link", "<https://other.example/>; rel=\"a, b\", <x>"),
        ("refresh", "5; url=https://other.example/"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let measured = allocation_counter::measure(|| to_caller(&mut headers, &view, Provider::Neo4j, &api));
    assert_eq!(measured.count_total, 0);
}
