//! Clients that insist on fetching a token get one from sidekey itself; nothing of it reaches an upstream.
#![cfg(feature = "demo")]

mod with_callers;

use crate::support::http2::Caller;
use crate::support::recorder::Recorder;
use crate::support::running::{Running, aura, aura_route, eventually, open_route, patiently, sidekey};
use crate::support::{Reply, basic, bearer, get, post, raw, raw_to_end, read_reply, send};
use http::Method;
use serde_json::Value;
use sidekey::demo::standins::Aura;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const GRANT: &str = "grant_type=client_credentials";

/// A sidekey in front of Aura that has fetched its own token and will not need another.
async fn open() -> (Aura, Running) {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    running.settled().await;
    (aura, running)
}

/// Asks for a local token as most clients of Aura do.
async fn ask(running: &Running, path: &str, id: &str, secret: &str) -> Reply {
    post(running.addr, path, &[FORM, ("authorization", &basic(id, secret))], GRANT).await
}

/// The token of an answer that is all that RFC 6749 §5.1 asks for.
fn token_of(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.header("sidekey-error")), (200, None), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!((reply.header("cache-control"), reply.header("pragma")), (Some("no-store"), Some("no-cache")));
    let body = reply.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&Value::from("bearer"), &Value::from(3600)));
    body["access_token"].as_str().expect("a token").to_owned()
}

/// Checks that this is a whole refusal as RFC 6749 §5.2 has it, and one of sidekey's.
fn assert_refused(reply: &Reply, status: u16, error: &str, code: &str) {
    assert_eq!((reply.status, reply.header("sidekey-error")), (status, Some(code)), "{reply:?}");
    assert!(
        reply.header("proxy-status").is_some_and(|value| value.starts_with("sidekey; error=")),
        "{reply:?}"
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!((reply.header("cache-control"), reply.header("pragma")), (Some("no-store"), Some("no-cache")));
    assert_eq!(reply.header("www-authenticate").is_some(), status == 401, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["error"], error, "{reply:?}");
    assert!(body["error_description"].as_str().is_some_and(|text| text.len() > 10), "{reply:?}");
}

#[tokio::test]
async fn without_callers_any_client_gets_a_token_and_the_requests_that_carry_it_are_answered() {
    let (aura, running) = open().await;
    let token = token_of(&ask(&running, "/oauth/token", "whoever", "whatever").await);
    assert_eq!(token_of(&ask(&running, "/oauth/token", "", "").await), token, "it is nobody's");
    let in_body = format!("{GRANT}&client_id=a&client_secret=b");
    token_of(&post(running.addr, "/oauth/token", &[FORM], in_body).await);
    // However its path is spelled, and whatever its query.
    token_of(&ask(&running, "/%6Fauth/tok%65n?x=1", "a", "b").await);

    let reply = get(running.addr, "/v1/instances", &[("authorization", &bearer(&token))]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = aura.record().requests();
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 1), "{seen:?}");
    let carried = seen.last().unwrap().header_all("authorization");
    assert!(carried.len() == 1 && !carried[0].contains(&token), "sidekey's own");
    // Others than the very path go on.
    for path in ["/oauth/token/", "/oauth/tokens", "/oauth", "//oauth/token", "/v1/oauth/token"] {
        let reply = ask(&running, path, "a", "b").await;
        assert_eq!(reply.header("sidekey-error"), None, "{path}: {reply:?}");
        assert_eq!(aura.record().take().last().unwrap().target, path);
    }
}

#[tokio::test]
async fn the_path_is_the_routes_own_and_only_aura_has_one_by_default() {
    let upstream = Recorder::start().await;
    let route = |name: &str, provider: &str, more: &str| {
        format!(
            "[route.{name}]\nprovider = \"{provider}\"\npath = \"/{name}\"\ncredential = false\n\
             upstream = \"http://{}/base\"\n{more}\n",
            upstream.addr
        )
    };
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{}{}{}{}",
        route("aura", "aura", ""),
        route("plain", "generic", ""),
        route("other", "neon", "local_token_endpoint = \"/oauth2/token\""),
        route("off", "aura", "local_token_endpoint = false"),
    ));
    for path in ["/aura/oauth/token", "/%61ura/oauth/token", "/other/oauth2/token"] {
        token_of(&ask(&running, path, "a", "b").await);
    }
    assert_eq!(upstream.take(), "");
    for path in ["/plain/oauth/token", "/other/oauth/token", "/off/oauth/token", "/aura/base/oauth/token"] {
        assert_eq!(ask(&running, path, "a", "b").await.text(), "ok", "{path}");
    }
}

#[tokio::test]
async fn what_is_no_token_request_is_refused_in_the_words_of_oauth() {
    let (aura, running) = open().await;
    let basic = basic("a", "b");
    let shown = ("authorization", basic.as_str());
    let path = "/oauth/token";
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let reply = send(running.addr, method, path, &[shown], "").await;
        assert_refused(&reply, 405, "invalid_request", "method_refused");
        assert_eq!(reply.header("allow"), Some("POST"));
    }
    let head = raw_to_end(running.addr, "HEAD /oauth/token HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    assert!(head.starts_with(b"HTTP/1.0 405 "), "{}", String::from_utf8_lossy(&head));
    let json = ("content-type", "application/json");
    let reply = post(running.addr, path, &[json, shown], "{\"grant_type\":\"client_credentials\"}").await;
    assert_refused(&reply, 400, "invalid_request", "bad_request");
    let cases = [
        (vec![shown], "", "invalid_request"),
        (vec![shown, shown], GRANT, "invalid_request"),
        (vec![shown], "grant_type=client_credentials&client_id=a&client_secret=b", "invalid_request"),
        (vec![shown], "grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        (vec![shown], "grant_type=refresh_token&refresh_token=x", "unsupported_grant_type"),
        (vec![shown], "grant_type=authorization_code&code=x", "unsupported_grant_type"),
    ];
    for (mut headers, body, error) in cases {
        headers.push(FORM);
        assert_refused(&post(running.addr, path, &headers, body).await, 400, error, "bad_request");
    }
    let reply = post(running.addr, path, &[FORM], GRANT).await;
    assert_refused(&reply, 401, "invalid_client", "caller_unknown");
    assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"sidekey\""));
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 0));
}

#[tokio::test]
async fn the_guard_comes_first() {
    let (_aura, running) = open().await;
    let request = |line: &str| {
        format!(
            "POST /oauth/token HTTP/1.1\r\n{line}\r\nAuthorization: Basic YTpi\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{GRANT}",
            GRANT.len()
        )
    };
    for (line, status, code) in [
        ("Host: localhost\r\nOrigin: https://evil.example", 403, "cross_site"),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site", 403, "cross_site"),
        ("Host: evil.example", 403, "forbidden_host"),
        ("X: no host", 400, "bad_request"),
    ] {
        let reply = raw(running.addr, request(line)).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (status, Some(code)), "{line}");
    }
    assert_eq!(raw(running.addr, request("Host: localhost")).await.status, 200);
}

#[tokio::test]
async fn a_token_request_comes_in_pieces_in_chunks_or_by_http_2() {
    let (aura, running) = open().await;
    let head = "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YTpi\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n";
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    for _ in 0..2 {
        stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
        for byte in GRANT.chars() {
            stream.write_all(format!("1\r\n{byte}\r\n").as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.write_all(b"0\r\nX-Trailer: x\r\n\r\n").await.unwrap();
        token_of(&read_reply(&mut stream).await);
    }
    // The connection goes on: also to ask for what the token is for.
    stream.write_all(b"GET /v1/instances HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status, 200);

    let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", GRANT.len());
    stream.write_all(expecting.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    patiently("100", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(GRANT.as_bytes()).await.unwrap();
    token_of(&read_reply(&mut stream).await);

    let mut caller = Caller::connect(running.addr).await;
    let headers = [FORM, ("authorization", "Basic YTpi")];
    let (answer, mut body) = caller.begin(Method::POST, "/oauth/token", &headers, false).await;
    let (first, second) = GRANT.split_at(9);
    body.send_data(first.to_owned().into(), false).unwrap();
    body.send_data(second.to_owned().into(), true).unwrap();
    let answer = patiently("an answer", crate::support::http2::read(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    assert!(answer.text().contains("\"token_type\":\"bearer\""));
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 1));
}

#[tokio::test]
async fn a_body_that_is_too_long_for_a_token_request_is_not_read_to_its_end() {
    let (_aura, running) = open().await;
    let shown = ("authorization", "Basic YTpi");
    let padded = |size: usize| format!("{GRANT}&x={}", "x".repeat(size - GRANT.len() - 3));
    token_of(&post(running.addr, "/oauth/token", &[FORM, shown], padded(16 << 10)).await);
    let reply = post(running.addr, "/oauth/token", &[FORM, shown], padded((16 << 10) + 1)).await;
    assert_refused(&reply, 413, "invalid_request", "too_large");
    // A length that is only announced is enough.
    let head = "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YTpi\r\n";
    let reply = raw(running.addr, format!("{head}Content-Length: 1000000000\r\n\r\n{GRANT}")).await;
    assert_refused(&reply, 413, "invalid_request", "too_large");
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    stream.write_all(format!("{:x}\r\n{}\r\n", 20_000, "x".repeat(20_000)).as_bytes()).await.unwrap();
    assert_refused(&read_reply(&mut stream).await, 413, "invalid_request", "too_large");
    let mut caller = Caller::connect(running.addr).await;
    let (answer, mut body) = caller.begin(Method::POST, "/oauth/token", &[FORM, shown], false).await;
    body.send_data(padded(20_000).into(), false).unwrap();
    let answer = patiently("an answer", crate::support::http2::read(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.header("sidekey-error")), (413, Some("too_large")), "{answer:?}");
    let next = caller.get("/v1/instances").await;
    assert_eq!(next.status(), 200, "the connection goes on");
}

#[tokio::test]
async fn a_body_that_stops_or_breaks_off_is_an_error_and_holds_nothing_up() {
    let aura = aura().await;
    let text = aura_route(&aura, "").replace("[route", "idle_timeout = \"300ms\"\nmax_requests = 1\n[route");
    let running = sidekey(&text);
    let head = "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YTpi\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n";
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(format!("{head}Content-Length: 29\r\n\r\ngrant_").as_bytes()).await.unwrap();
    let reply = read_reply(&mut stream).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (400, Some("bad_request")), "{reply:?}");
    assert!(reply.text().contains("stopped coming"), "{reply:?}");
    let reply = raw(running.addr, format!("{head}Transfer-Encoding: chunked\r\n\r\nnot hex\r\n")).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (400, Some("bad_request")), "{reply:?}");
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(format!("{head}Content-Length: 29\r\n\r\ngrant_").as_bytes()).await.unwrap();
    drop(stream);
    // There is one place for a request, and it is free again.
    eventually("a free place", async || ask(&running, "/oauth/token", "a", "b").await.status == 200).await;
}

#[tokio::test]
async fn a_route_whose_callers_must_name_an_account_gives_a_token_without() {
    let upstream = Recorder::start().await;
    let text = open_route(upstream.addr, "local_token_endpoint = \"/oauth/token\"").replace(
        "credential = false",
        "credential = { type = \"client_credentials\", token_url = \"http://127.0.0.1:9/t\", \
         account_header = \"X-Account\", clients = [{ name = \"a\", client_id = \"i\", \
         client_secret = { value = \"s\" } }, { name = \"b\", client_id = \"j\", \
         client_secret = { value = \"s\" } }] }",
    );
    let running = sidekey(&text);
    token_of(&ask(&running, "/oauth/token", "a", "b").await);
    assert_eq!(upstream.take(), "");
}
