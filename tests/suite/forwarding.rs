//! Which requests reach which upstream, with which target and header, and what comes back of the answer's header.
#![cfg(feature = "demo")]

use std::net::SocketAddr;

use crate::support::running::{Running, aura, open_route, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::{basic, get, post, raw, raw_to_end, send};
use http::Method;
use sidekey::demo::standins::{Aura, Neo4j, Neon, Seen};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// The three providers behind one sidekey; `graph` has a listener of its own, the second.
struct Three {
    aura: Aura,
    neo4j: Neo4j,
    neon: Neon,
    running: Running,
    shared: SocketAddr,
    graph: SocketAddr,
}

async fn three() -> Three {
    let aura = aura().await;
    let neo4j = Neo4j::builder().basic("neo4j", "pässword").start().await.expect("start");
    let neon = Neon::builder().key("napi_key").start().await.expect("start");
    let text = format!(
        r#"
[server]
listen = "127.0.0.1:0"
[route.aura]
provider = "aura"
path = "/aura"
upstream = "{}"
credential = {{ type = "aura", token_url = "{}/oauth/token", client_id = "id", client_secret = {{ value = "s:cret" }} }}
[route.graph]
provider = "neo4j"
listen = "127.0.0.1:0"
upstream = "{}"
credential = {{ type = "basic", username = "neo4j", password = {{ value = "pässword" }} }}
[route.neon]
provider = "neon"
path = "/neon"
host = "neon.localhost"
upstream = "{}"
credential = {{ type = "bearer", token = {{ value = "napi_key" }} }}
"#,
        aura.url(),
        aura.url(),
        neo4j.url(),
        neon.url()
    );
    let running = sidekey(&text);
    let (shared, graph) = (running.addrs()[0], running.addrs()[1]);
    Three { aura, neo4j, neon, running, shared, graph }
}

/// The only API request that came since the last look.
fn only(record: &sidekey::demo::standins::Record) -> Seen {
    let mut seen: Vec<_> = record.take().into_iter().filter(|seen| !seen.token_request).collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.remove(0)
}

#[tokio::test]
async fn each_provider_gets_its_own_credential() {
    let three = three().await;
    let instances = get(three.shared, "/aura/v1/instances", &[]).await;
    assert_eq!((instances.status, instances.json()["data"].as_array().unwrap().len()), (200, 2));
    assert_eq!(only(three.aura.record()).target, "/v1/instances");

    let query = post(
        three.graph,
        "/db/neo4j/query/v2",
        &[("content-type", "application/json"), ("accept", "application/json")],
        r#"{"statement":"RETURN 1 AS n"}"#,
    )
    .await;
    assert_eq!(query.status, 202, "{query:?}");
    let seen = only(three.neo4j.record());
    assert_eq!(seen.header_all("authorization"), [basic("neo4j", "pässword")]);

    let projects = get(three.shared, "/neon/projects", &[]).await;
    assert_eq!(projects.status, 200);
    let seen = only(three.neon.record());
    assert_eq!(
        (seen.target.as_str(), seen.header("authorization")),
        ("/api/v2/projects", Some("Bearer napi_key"))
    );
}

#[tokio::test]
async fn the_most_specific_route_wins_and_others_are_not_found() {
    let three = three().await;
    let by_host = get(three.shared, "/projects", &[("host", "Neon.localhost:1")]).await;
    assert_eq!(by_host.status, 200);
    assert_eq!(only(three.neon.record()).target, "/api/v2/projects");
    for path in ["/", "/auras/v1/instances", "/Aura/v1/instances", "/v1/instances"] {
        let reply = get(three.shared, path, &[]).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (404, Some("no_route")), "{path}");
    }
    // Its own listener is its own whatever the host and the path say.
    let reply = get(three.graph, "/aura/v1/instances", &[("host", "neon.localhost")]).await;
    assert_eq!(reply.status, 404);
    assert_eq!(only(three.neo4j.record()).target, "/aura/v1/instances");
    assert_eq!(three.aura.record().api_requests(), 0);
}

#[tokio::test]
async fn path_and_query_pass_byte_for_byte_behind_the_upstreams_own_path() {
    let three = three().await;
    let targets = [
        ("/neon/x/echo", "/api/v2/x/echo"),
        ("/neon//a//echo?", "/api/v2//a//echo?"),
        (
            "/neon/a%2cb;v=1/%41+%20/echo?q=%2F&&r=a=b?c/../d",
            "/api/v2/a%2cb;v=1/%41+%20/echo?q=%2F&&r=a=b?c/../d",
        ),
        ("/neon/~a!$&'()*,=:@|{}\"^/echo", "/api/v2/~a!$&'()*,=:@|{}\"^/echo"),
        ("/neon/grüße/echo?ü", "/api/v2/grüße/echo?ü"),
        ("/neon/.../.a/b..c/echo", "/api/v2/.../.a/b..c/echo"),
        ("/%6eeo%6E//%7euser/caf%e9/echo?%6E%", "/api/v2//%7euser/caf%e9/echo?%6E%"),
        ("/neon/echo#fragment", "/api/v2/echo"),
    ];
    for (given, want) in targets {
        let head = format!("GET {given} HTTP/1.1\r\nHost: {}\r\n\r\n", three.shared);
        let reply = raw(three.shared, head).await;
        assert_eq!(reply.status, 200, "{given}: {reply:?}");
        assert_eq!(only(three.neon.record()).target, want, "{given}");
    }
    for (given, want) in [("/neon", "/api/v2"), ("/neon?a=b", "/api/v2?a=b"), ("/neon/", "/api/v2/")] {
        get(three.shared, given, &[]).await;
        assert_eq!(only(three.neon.record()).target, want, "{given}");
    }
    let absolute = format!("GET http://{0}/aura/v1/echo?a HTTP/1.1\r\nHost: {0}\r\n\r\n", three.shared);
    assert_eq!(raw(three.shared, absolute).await.status, 200);
    assert_eq!(only(three.aura.record()).target, "/v1/echo?a");
    let pathless = format!("GET http://{0}?a=b HTTP/1.1\r\nHost: {0}\r\n\r\n", three.graph);
    assert_eq!(raw(three.graph, pathless).await.status, 200);
    assert_eq!(only(three.neo4j.record()).target, "/?a=b");
}

#[tokio::test]
async fn a_route_may_let_an_encoded_slash_pass_as_part_of_a_name() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await).unwrap();
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let text = format!(
        "{}[route.names]\npath = \"/names\"\nencoded_slash = \"pass\"\ncredential = false\nupstream = \"http://{}\"\n",
        open_route(upstream.addr, ""),
        upstream.addr
    );
    let running = sidekey(&text);
    for (given, want) in [
        ("/names/a%2fb/c%2F?%2f", Some("/a%2fb/c%2F?%2f")),
        ("/n%61mes/%2f", Some("/%2f")),
        ("/names/..%2fx", None),
        ("/names/x%2F%2e", None),
        ("/names/%5c", None),
        // It is no separator: another route's.
        ("/names%2fx", None),
        ("/other/a%2fb", None),
    ] {
        let reply =
            raw(running.addr, format!("GET {given} HTTP/1.1\r\nHost: {}\r\n\r\n", running.addr)).await;
        let Some(want) = want else {
            assert_eq!((reply.status, reply.header("sidekey-error")), (400, Some("bad_request")), "{given}");
            continue;
        };
        assert_eq!(reply.status, 200, "{given}");
        let head = seen.recv().await.unwrap();
        assert!(head.starts_with(&format!("GET {want} HTTP/1.1\r\n")), "{head}");
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn options_for_the_whole_server_pass() {
    let upstream = Scripted::start(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        let line = head.lines().next().unwrap_or_default();
        say(&mut stream, format!("HTTP/1.1 200 OK\r\nX-Seen: {line}\r\nContent-Length: 0\r\n\r\n")).await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let head = format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\n\r\n", running.addr);
    let reply = raw(running.addr, head).await;
    assert_eq!((reply.status, reply.header("x-seen")), (200, Some("OPTIONS * HTTP/1.1")), "{reply:?}");
}

#[tokio::test]
async fn connection_lines_are_all_obeyed_and_cannot_take_the_credential_away() {
    let three = three().await;
    let head = format!(
        "GET /neon/echo HTTP/1.1\r\nHost: {}\r\nConnection: Authorization, X-One\r\nX-One: 1\r\nX-Two: 2\r\n\
         connection: x-two,Neon-Odd , host, content-length\r\nNeon-Odd: 3\r\nX-Three: 3\r\nKeep-Alive: timeout=1\r\n\
         TE: trailers\r\nUpgrade: h2c\r\nProxy-Connection: keep-alive\r\n\r\n",
        three.shared
    );
    assert_eq!(raw(three.shared, head).await.status, 200);
    let seen = only(three.neon.record());
    assert_eq!(seen.header_all("authorization"), ["Bearer napi_key"]);
    let mut names: Vec<_> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    // `te` and its `connection` are sidekey's own: trailers pass.
    assert_eq!(names, ["authorization", "connection", "host", "te", "via", "x-three"]);
}

#[tokio::test]
async fn what_callers_say_of_themselves_never_reaches_an_upstream() {
    let three = three().await;
    let canaries = [
        ("authorization", "Bearer canary"),
        ("authorization", "Basic canary"),
        ("proxy-authorization", "Basic canary"),
        ("cookie", "keycloak=canary"),
        ("forwarded", "for=canary"),
        ("x-forwarded-for", "canary"),
        ("x-forwarded-host", "canary"),
        ("x-forwarded-proto", "canary"),
        ("x-forwarded-prefix", "canary"),
        ("sidekey-token", "canary"),
        ("sidekey-account", "canary"),
        ("x-kept", "1"),
    ];
    for (addr, path, record) in [
        (three.shared, "/aura/v1/echo", three.aura.record()),
        (three.shared, "/neon/echo", three.neon.record()),
        (three.graph, "/echo", three.neo4j.record()),
    ] {
        assert_eq!(get(addr, path, &canaries).await.status, 200, "{path}");
        let seen = only(record);
        let leaked: Vec<_> = seen.headers.iter().filter(|(_, value)| value.contains("canary")).collect();
        // Neo4j knows no cookies, and what is behind one in front of it may.
        let cookies = usize::from(addr == three.graph);
        assert_eq!(leaked.len(), cookies, "{leaked:?}");
        assert_eq!(seen.header_all("authorization").len(), 1);
        assert_eq!((seen.header("x-kept"), seen.header("via")), (Some("1"), Some("1.1 sidekey")));
        // Neo4j is told by Host which address its URLs must have.
        let is_neo4j = addr == three.graph;
        assert_eq!(seen.header("host").map(str::to_owned) == Some(addr.to_string()), is_neo4j);
        assert_eq!(seen.header("x-forwarded-host"), None);
        assert_eq!(seen.header("x-forwarded-proto"), is_neo4j.then_some("http"));
    }
    // A session cookie would authenticate by itself: with a wrong key, it must not.
    let cookie = three.neon.session_cookie();
    assert_eq!(get(three.neon.addr(), "/api/v2/projects", &[("cookie", &cookie)]).await.status, 200);
    three.neon.record().take();
    let through = get(three.shared, "/neon/projects", &[("cookie", &cookie)]).await;
    assert_eq!((only(three.neon.record()).header("cookie"), through.header("set-cookie")), (None, None));
}

#[tokio::test]
async fn neo4js_absolute_urls_lead_back_to_sidekey() {
    let three = three().await;
    let found = get(three.graph, "/", &[]).await.json();
    assert_eq!(found["transaction"], format!("http://{}/db/{{databaseName}}/tx", three.graph));
    let headers = [("content-type", "application/json")];
    let begun = post(three.graph, "/db/neo4j/tx", &headers, r#"{"statements":[]}"#).await;
    let commit = begun.json()["commit"].as_str().unwrap().to_owned();
    let path = commit.strip_prefix(&format!("http://{}", three.graph)).expect("sidekey's own address");
    assert!(begun.header("location").unwrap().starts_with(&format!("http://{}/", three.graph)));
    let committed = post(three.graph, path, &headers, r#"{"statements":[]}"#).await;
    assert_eq!((committed.status, three.neo4j.open_transactions()), (200, 0));
}

#[tokio::test]
async fn cluster_affinity_passes_both_ways() {
    let neo4j = Neo4j::builder().bearer("t").require_affinity().start().await.unwrap();
    let more = format!(
        "[route.graph]\nprovider = \"neo4j\"\nupstream = \"{}\"\n\
         credential = {{ type = \"bearer\", token = {{ value = \"t\" }} }}\n[server]\nlisten = \"127.0.0.1:0\"",
        neo4j.url()
    );
    let running = sidekey(&more);
    let json = ("content-type", "application/json");
    let begun = post(running.addr, "/db/neo4j/query/v2/tx", &[json], r#"{"statement":"RETURN 1"}"#).await;
    let affinity = begun.header("neo4j-cluster-affinity").expect("an affinity").to_owned();
    let id = begun.json()["transaction"]["id"].as_str().unwrap().to_owned();
    let commit = format!("/db/neo4j/query/v2/tx/{id}/commit");
    assert_eq!(post(running.addr, &commit, &[json], "{}").await.status, 404);
    let headers = [json, ("neo4j-cluster-affinity", affinity.as_str())];
    assert_eq!(post(running.addr, &commit, &headers, "{}").await.status / 100, 2);
}

#[tokio::test]
async fn answers_without_a_body_stay_what_they_are() {
    let three = three().await;
    for status in [204_u16, 304, 418, 500] {
        let reply = get(three.shared, &format!("/aura/v1/status/{status}"), &[]).await;
        assert_eq!((reply.status, reply.body.len()), (status, 0));
        assert_eq!(reply.header("sidekey-error"), None);
    }
    let addr = three.shared;
    let head = format!("HEAD /aura/v1/bytes/70000 HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let head = String::from_utf8(raw_to_end(addr, head).await).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-length: 70000\r\n"), "{head}");
    let refused = format!("HEAD /nowhere HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let refused = String::from_utf8(raw_to_end(addr, refused).await).unwrap();
    assert!(refused.starts_with("HTTP/1.1 404 ") && refused.ends_with("\r\n\r\n"), "{refused}");
}

#[tokio::test]
async fn a_head_answer_keeps_its_length_and_like_a_304_its_connection() {
    for (method, status) in [("HEAD", "200 OK"), ("GET", "304 Not Modified")] {
        let upstream = Scripted::start(move |_, mut stream| async move {
            while !read_head(&mut stream).await.is_empty() {
                say(&mut stream, format!("HTTP/1.1 {status}\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n"))
                    .await;
            }
        })
        .await;
        let running = sidekey(&open_route(upstream.addr, ""));
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        for _ in 0..2 {
            say(&mut stream, format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let answer = read_head(&mut stream).await.to_ascii_lowercase();
            assert!(answer.starts_with(&format!("http/1.1 {}", &status[..3])), "{answer}");
            assert!(answer.contains("etag: \"x\"\r\n"), "{answer}");
            // hyper leaves it out of a 304, which may lack it (RFC 9110 §8.6); another one would be wrong.
            let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(length, (method == "HEAD").then_some("1234"), "{answer}");
        }
        assert_eq!(upstream.connections(), 1);
    }
}

#[tokio::test]
async fn redirects_are_passed_back_and_never_followed() {
    let upstream = Scripted::saying(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:9/x\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let reply = get(running.addr, "/", &[]).await;
    assert_eq!((reply.status, reply.header("location")), (307, Some("http://127.0.0.1:9/x")));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn repeated_headers_keep_their_order_both_ways() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nX-B: 1\r\nSet-Cookie: b=1\r\nX-B: 2\r\nSet-Cookie: a=2\r\nX-B: 3\r\n\
                          Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
                          Sidekey-Error: forged\r\nContent-Length: 0\r\n\r\n";
            say(&mut stream, answer).await;
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let reply =
        get(running.addr, "/", &[("x-a", "3"), ("x-a", "1"), ("x-a", "2"), ("via", "1.0 fred")]).await;
    let head = seen.recv().await.unwrap();
    let sent: Vec<_> =
        head.lines().filter(|line| line.starts_with("x-a") || line.starts_with("via")).collect();
    assert_eq!(
        sent.iter().filter(|line| line.starts_with("x-a")).collect::<Vec<_>>(),
        [&"x-a: 3", &"x-a: 1", &"x-a: 2"]
    );
    assert_eq!(sent.iter().filter(|line| line.starts_with("via")).count(), 2, "{head}");
    let all = |name: &str| {
        reply.headers.iter().filter(|(known, _)| known == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
    };
    assert_eq!((all("x-b"), all("set-cookie")), (vec!["1", "2", "3"], vec!["b=1", "a=2"]));
    assert!(!reply.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{reply:?}");
    assert_eq!(reply.header("sidekey-error"), None);
}

#[tokio::test]
async fn any_method_passes_with_its_body() {
    let three = three().await;
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        let method: Method = method.parse().unwrap();
        let echo = send(three.shared, method.clone(), "/aura/v1/echo", &[], "body").await.json();
        assert_eq!((echo["method"].as_str(), echo["body_bytes"].as_u64()), (Some(method.as_str()), Some(4)));
    }
    three.running.stop().await;
}
