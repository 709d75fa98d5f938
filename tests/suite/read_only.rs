//! Read-only routes to Neo4j, where a query is a POST whatever it does: sidekey sets the access mode itself.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support::http2::Caller;
use crate::support::recorder::Recorder;
use crate::support::running::{Running, open_route, sidekey};
use crate::support::{Reply, post, raw, send};
use http::Method;
use sidekey::config::{Environment, LoadOptions, Source, load};
use sidekey::demo::standins::Neo4j;

fn assert_not_allowed(reply: &Reply, what: &str) {
    assert_eq!(
        (reply.status, reply.header("sidekey-error")),
        (403, Some("not_allowed")),
        "{what}: {reply:?}"
    );
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=http_request_denied"));
}

const WRITE: &str = r#"{"statement":"CREATE (n)","accessMode":"WRITE"}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

/// Two routes to one Neo4j with one credential: one that only reads, and one that may write.
async fn graph() -> (Neo4j, Running) {
    let neo4j = Neo4j::builder().basic("u", "p").start().await.unwrap();
    let url = neo4j.url();
    let route = |name: &str, host: &str, more: &str| {
        format!(
            "[route.{name}]\nprovider = \"neo4j\"\n{host}\nupstream = \"{url}\"\ncredential = \"c\"\n{more}\n"
        )
    };
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{}{}[credential.c]\ntype = \"basic\"\nusername = \"u\"\n\
         password = {{ value = \"p\" }}\n",
        route("reader", "path = \"/\"", "read_only = true"),
        route("writer", "host = \"writer.localhost\"", "")
    ));
    (neo4j, running)
}

fn code(reply: &Reply) -> String {
    reply.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_query_to_neo4j_runs_in_the_access_mode_read_whatever_its_body_says() {
    let (neo4j, running) = graph().await;
    let query = "/db/neo4j/query/v2";
    let read =
        post(running.addr, query, &[JSON], r#"{"statement":"RETURN 12345678901234567890123 AS n"}"#).await;
    assert_eq!(read.status, 202, "{}", read.text());
    for body in [
        WRITE,
        r#"{"statement":"CREATE (n)"}"#,
        r#"{"accessMode":"READ","statement":"CREATE (n)","accessMode":"WRITE"}"#,
        r#"{"access\u004dode":"WRITE","statement":"CREATE (n)"}"#,
        r#"{"statement":"CREATE (n)","\u0061ccessMode":"Write"}"#,
    ] {
        let wrote = post(running.addr, query, &[JSON], body).await;
        assert_eq!(code(&wrote), "Neo.ClientError.Statement.AccessMode", "{body}: {}", wrote.text());
    }
    assert_eq!(neo4j.record().api_requests(), 6);
    // What its header says does not count there.
    let also = post(running.addr, query, &[JSON, ("access-mode", "WRITE")], WRITE).await;
    assert_eq!(code(&also), "Neo.ClientError.Statement.AccessMode");
    // The same server lets the other route write.
    let writer = [JSON, ("host", "writer.localhost")];
    assert_eq!(post(running.addr, query, &writer, WRITE).await.status, 202);
    // In pieces, after being asked, and over HTTP/2.
    let chunked = format!(
        "POST {query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\n{{\"\r\n{:x}\r\n{}\r\n0\r\nx-trailer: 1\r\n\r\n",
        WRITE.len() - 2,
        &WRITE[2..]
    );
    assert_eq!(code(&raw(running.addr, chunked).await), "Neo.ClientError.Statement.AccessMode");
    let mut caller = Caller::connect(running.addr).await;
    let answer = caller.send(Method::POST, query, &[JSON], WRITE.as_bytes()).await;
    assert!(answer.text().contains("Neo.ClientError.Statement.AccessMode"), "{}", answer.text());
}

#[tokio::test]
async fn of_a_querys_body_nothing_but_the_access_mode_is_changed() {
    let upstream = Recorder::start().await;
    let running = sidekey(&open_route(upstream.addr, "read_only = true\nprovider = \"neo4j\""));
    let body = r#"{ "accessMode":"WRITE", "parameters" : {"n": 12345678901234567890123, "f":1.10e+3}, "a\u00e9":"\ud83d"}"#;
    let want =
        r#"{"parameters":{"n": 12345678901234567890123, "f":1.10e+3},"aé":"\ud83d","accessMode":"READ"}"#;
    let sent = [
        format!("Content-Length: {}\r\nContent-Digest: x\r\n\r\n{body}", body.len()),
        format!(
            "Transfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-t: 1\r\n\r\n",
            body.len()
        ),
        format!("Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    ];
    for rest in sent {
        let head =
            "POST /db/neo4j/query/v2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        assert_eq!(raw(running.addr, format!("{head}{rest}")).await.status, 200, "{rest}");
        let got: String = upstream.take();
        let (head, body) = got.split_once("\r\n\r\n").unwrap();
        // The recorder shows each byte as a character.
        assert_eq!(body, want.bytes().map(char::from).collect::<String>());
        assert!(head.contains(&format!("content-length: {}", want.len())), "{head}");
        for gone in ["transfer-encoding", "trailer", "expect", "content-digest"] {
            assert!(!head.contains(gone), "{head}");
        }
    }
    let empty = post(running.addr, "/db/neo4j/query/v2/tx", &[], "").await;
    assert_eq!(empty.status, 200);
    let got = upstream.take();
    assert!(
        got.ends_with("\r\n\r\n{\"accessMode\":\"READ\"}") && got.contains("content-type: application/json"),
        "{got}"
    );
}

#[tokio::test]
async fn what_cannot_be_made_to_read_is_refused_before_it_leaves() {
    let (neo4j, running) = graph().await;
    let query = "/db/neo4j/query/v2";
    let refused: [(&[(&str, &str)], &str); 5] = [
        (&[JSON], "[]"),
        (&[JSON], "{\"statement\":\"CREATE (n)\"} {}"),
        (&[JSON, ("content-encoding", "gzip")], WRITE),
        (&[("content-type", "application/json; charset=utf-16")], WRITE),
        (&[("content-type", "text/plain")], WRITE),
    ];
    for (headers, body) in refused {
        assert_not_allowed(&post(running.addr, query, headers, body).await, body);
    }
    let large = format!("{{\"statement\":\"RETURN 1\",\"parameters\":{{\"p\":\"{}\"}}}}", "x".repeat(70_000));
    let reply = post(running.addr, query, &[JSON], large).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (413, Some("too_large")), "{}", reply.text());
    for (method, path) in [
        (Method::PUT, query),
        (Method::POST, "/db/neo4j/query/v2/"),
        (Method::POST, "/db/neo4j/query/v2;x"),
        (Method::POST, "/db/data/cypher"),
        (Method::POST, "/"),
        (Method::DELETE, "/db/neo4j/tx/commit"),
    ] {
        assert_not_allowed(&send(running.addr, method, path, &[JSON], WRITE).await, path);
    }
    assert_eq!(neo4j.record().api_requests(), 0);
}

#[tokio::test]
async fn a_read_only_route_goes_on_only_with_transactions_that_were_begun_on_it() {
    let (neo4j, running) = graph().await;
    let at = |reply: &Reply| {
        let id = reply.json()["transaction"]["id"].as_str().unwrap().to_owned();
        format!("/db/neo4j/query/v2/tx/{id}")
    };
    let begin = "/db/neo4j/query/v2/tx";
    let writer = [JSON, ("host", "writer.localhost")];
    let others = at(&post(running.addr, begin, &writer, "{}").await);
    for (method, path) in [
        (Method::POST, others.clone()),
        (Method::POST, format!("{others}/commit")),
        (Method::DELETE, others.clone()),
    ] {
        let reply = send(running.addr, method, &path, &[JSON], WRITE).await;
        assert_not_allowed(&reply, &path);
        assert!(reply.text().contains("not begun on this route"), "{}", reply.text());
    }
    assert_eq!(neo4j.open_transactions(), 1, "the other route's is as it was");
    // An empty body is one to begin with; the mode is that of the beginning.
    let own = at(&post(running.addr, begin, &[], "").await);
    let ran = post(running.addr, &own, &[JSON], r#"{"statement":"RETURN 1","accessMode":"WRITE"}"#).await;
    assert_eq!(ran.status, 202, "{}", ran.text());
    let respelled = own.replace("/tx/", "/%74x/");
    assert_eq!(post(running.addr, &respelled, &[JSON], r#"{"statement":"RETURN 1"}"#).await.status, 202);
    let committed = post(running.addr, &format!("{own}/commit"), &[], "").await;
    assert_eq!(committed.status, 202, "{}", committed.text());
    let again = at(&post(running.addr, begin, &[JSON], r#"{"accessMode":"WRITE"}"#).await);
    let wrote = post(running.addr, &format!("{again}/commit"), &[JSON], WRITE).await;
    assert_eq!(code(&wrote), "Neo.ClientError.Statement.AccessMode", "{}", wrote.text());
    let rolled_back = at(&post(running.addr, begin, &[JSON], "{}").await);
    assert!(send(running.addr, Method::DELETE, &rolled_back, &[], "").await.status < 300);
    assert_eq!(neo4j.open_transactions(), 1);
}

#[tokio::test]
async fn the_older_api_of_neo4j_is_told_the_access_mode_in_the_header() {
    let (neo4j, running) = graph().await;
    let write = r#"{"statements":[{"statement":"CREATE (n)"}]}"#;
    for headers in [vec![JSON], vec![JSON, ("access-mode", "WRITE"), ("Access-Mode", "WRITE")]] {
        let wrote = post(running.addr, "/db/neo4j/tx/commit", &headers, write).await;
        assert_eq!(code(&wrote), "Neo.ClientError.Statement.AccessMode", "{}", wrote.text());
    }
    let seen = neo4j.record().requests();
    let modes = seen[1].headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("access-mode"));
    assert_eq!(modes.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["READ"]);
    let begun = post(running.addr, "/db/neo4j/tx", &[JSON], r#"{"statements":[]}"#).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let commit = begun.json()["commit"].as_str().unwrap().to_owned();
    let commit = commit.strip_prefix(&format!("http://{}", running.addr)).unwrap();
    let wrote = post(running.addr, commit, &[JSON], write).await;
    assert_eq!(code(&wrote), "Neo.ClientError.Statement.AccessMode", "{}", wrote.text());
    let others = post(running.addr, "/db/neo4j/tx", &[JSON, ("host", "writer.localhost")], "{}").await;
    let location = others.header("location").unwrap().to_owned();
    let path = &location[location.find("/db/").unwrap()..];
    assert_not_allowed(&post(running.addr, &format!("{path}/commit"), &[JSON], write).await, path);
}

#[test]
fn read_only_on_neo4j_says_what_it_cannot_promise() {
    let warnings = |provider: &str| {
        let text = format!(
            "[route.a]\nprovider = \"{provider}\"\nupstream = \"https://a.example\"\ncredential = false\nread_only = true\n"
        );
        let source = Source::Text { name: "t.toml".into(), text };
        let loaded = load(&source, &Environment::default(), LoadOptions::default()).unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let said = warnings("neo4j");
    assert!(
        said.len() == 1 && said[0].contains("cannot promise") && said[0].contains("no right to write"),
        "{said:?}"
    );
    for provider in ["aura", "neon", "generic"] {
        assert!(warnings(provider).is_empty(), "{provider}");
    }
}
