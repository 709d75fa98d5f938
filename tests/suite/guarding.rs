//! What the guard refuses, over raw sockets: nothing of it reaches an upstream, and each refusal says what it is.
#![cfg(feature = "demo")]

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use crate::support::running::{
    Running, aura, aura_route, eventually, open_route, private_file, sidekey, try_sidekey,
};
use crate::support::{Reply, get, raw, raw_to_end, raw_unix};
use serde_json::Value;
use sidekey::app::StartError;
use sidekey::demo::standins::{Aura, Neo4j};
use sidekey::server::BindError;

/// Sends `head`, in which `HOST` stands for sidekey's own address.
async fn ask(running: &Running, head: &str) -> Reply {
    raw(running.addr, head.replace("HOST", &running.addr.to_string())).await
}

/// Checks that this is a whole refusal in Aura's shape, and nothing more.
fn assert_refused(reply: &Reply, status: u16, code: &str, what: &str) {
    assert_eq!((reply.status, reply.header("sidekey-error")), (status, Some(code)), "{what}: {reply:?}");
    let proxy_status = reply.header("proxy-status").expect("Proxy-Status");
    assert!(proxy_status.starts_with("sidekey; error="), "{proxy_status}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let body = reply.json();
    assert_eq!(body["errors"][0]["reason"], code, "{what}");
    assert!(body["errors"][0]["message"].as_str().is_some_and(|text| text.len() > 10), "{what}");
    let opens = |name: &str| name.to_ascii_lowercase().starts_with("access-control");
    assert!(!reply.headers.iter().any(|(name, _)| opens(name)), "{what}: {reply:?}");
}

async fn guarded() -> (Aura, Running) {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    running.settled().await;
    (aura, running)
}

#[tokio::test]
async fn a_request_must_name_one_host_that_is_ours() {
    let (aura, running) = guarded().await;
    let malformed = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost/x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost:99999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localh\u{f6}st\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET http://HOST/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET http://user:password@HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ];
    for head in malformed {
        assert_refused(&ask(&running, head).await, 400, "bad_request", head);
    }
    let foreign = [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "127.1",
        "api.neo4j.io",
    ];
    for host in foreign {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_refused(&ask(&running, &head).await, 403, "forbidden_host", host);
    }
    let absolute = "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_refused(&ask(&running, absolute).await, 403, "forbidden_host", absolute);
    assert_eq!(aura.record().api_requests(), 0);

    for host in ["localhost", "LocalHost.:80", "127.0.0.1", "127.9.9.9:1", "[::1]:7600"] {
        let head = format!("GET /v1/small HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(ask(&running, &head).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn a_request_from_a_web_page_is_refused_whatever_the_page() {
    let (aura, running) = guarded().await;
    let telltales = [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: ",
        "Origin: http://HOST",
        "origin: a\r\nOrigin: b",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: none, cross-site",
        "Sec-Fetch-Site: ",
        "Sec-Fetch-Site: NONE",
        // Named in Connection, they would not be forwarded; they count all the same.
        "Connection: Origin\r\nOrigin: https://evil.example",
    ];
    for line in telltales {
        for method in ["GET", "POST", "DELETE"] {
            let head = format!(
                "{method} /v1/instances HTTP/1.1\r\nHost: HOST\r\n{line}\r\nContent-Length: 0\r\n\r\n"
            );
            assert_refused(&ask(&running, &head).await, 403, "cross_site", line);
        }
    }
    assert_eq!(aura.record().api_requests(), 0);
    for site in ["none", "same-origin"] {
        let head = format!("GET /v1/small HTTP/1.1\r\nHost: HOST\r\nSec-Fetch-Site: {site}\r\n\r\n");
        assert_eq!(ask(&running, &head).await.status, 200, "{site}");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_opening_anything() {
    let neo4j = Neo4j::builder().bearer("t").start().await.unwrap();
    let text = open_route(neo4j.addr(), "provider = \"neo4j\"");
    let running = sidekey(&text);
    let preflight = "OPTIONS /db/neo4j/query/v2 HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.example\r\n\
                     Access-Control-Request-Method: POST\r\nAccess-Control-Request-Private-Network: true\r\n\r\n";
    let reply = ask(&running, preflight).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (403, Some("cross_site")));
    assert_eq!(reply.json()["errors"][0]["code"], "Neo.ClientError.Security.SidekeyCrossSite");
    assert!(!reply.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control")));
    assert_eq!(neo4j.record().api_requests(), 0);
    // What is no preflight passes; the stand-in's own Access-Control headers do not.
    let options = ask(&running, "OPTIONS /db HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
    assert_eq!((options.status, neo4j.record().api_requests()), (200, 1));
    assert!(!options.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control")));
}

#[tokio::test]
async fn connect_and_trace_are_not_forwarded() {
    let (aura, running) = guarded().await;
    for head in [
        "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "TRACE /v1/small HTTP/1.1\r\nHost: HOST\r\nMax-Forwards: 0\r\n\r\n",
    ] {
        let reply = ask(&running, head).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (405, Some("method_refused")), "{head}");
        assert!(reply.header("allow").is_some_and(|allow| allow.contains("GET") && !allow.contains("TRACE")));
    }
    let elsewhere =
        ask(&running, "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n").await;
    assert_eq!(elsewhere.status, 403);
    assert_eq!(aura.record().api_requests(), 0);
}

#[tokio::test]
async fn paths_that_could_leave_their_prefix_are_refused() {
    let aura = aura().await;
    let text = aura_route(&aura, "").replace("path = \"/\"", "path = \"/aura\"");
    let running = sidekey(&text);
    for path in [
        "/aura/..",
        "/aura/../x",
        "/aura/v1/./small",
        "/aura/%2e%2E/x",
        "/aura/.%2e/x",
        "/aura/..%2fx",
        "/aura/v1/..\\x",
        "/aura/%5c../x",
        // Servlet containers, Neo4j's among them, cut a segment's parameters before they resolve dots.
        "/aura/..;/x",
        "/aura/v1/..;a=b/x",
        "/aura/.;/x",
        "/aura/%2e%2e%3b/x",
        // Decoded twice.
        "/aura/%252e%252e/x",
        "/aura/..%252fx",
        // Read differently by one server and another.
        "/aura/v1%2fsmall",
        "/aura/v1/small%00.json",
        "/aura/v1/%c0%ae%c0%ae/x",
        "/aura/v1/100%",
        "/aura/v1/%zz",
    ] {
        let head = format!("GET {path}?q=.. HTTP/1.1\r\nHost: HOST\r\n\r\n");
        assert_refused(&ask(&running, &head).await, 400, "bad_request", path);
    }
    assert_eq!(aura.record().api_requests(), 0);
    // However the prefix is spelled, it is the route's.
    for path in [
        "/aura/v1/a..b;c/small",
        "/aura/.../small",
        "/aura/v1/;../small",
        "/aura/v1/small?a=/../%2f%",
        "/%61ur%61/v1/small",
    ] {
        assert_eq!(get(running.addr, path, &[]).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_refused_path_gets_the_error_shape_of_its_route_where_that_can_be_told() {
    let aura = aura().await;
    let text = aura_route(&aura, "").replace("path = \"/\"", "path = \"/aura\"");
    let running = sidekey(&text);
    for path in ["/aura/../x", "/elsewhere/../aura", "/%61ura/%2e"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n");
        let reply = ask(&running, &head).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (400, Some("bad_request")), "{path}");
        assert_eq!(reply.json()["errors"].is_array(), path.starts_with("/aura"), "{path}: {reply:?}");
        assert!(reply.text().contains("send it resolved"), "{reply:?}");
    }
    assert_eq!(aura.record().api_requests(), 0);
}

#[tokio::test]
async fn bytes_that_are_no_request_get_an_error_and_reach_nobody() {
    let (aura, running) = guarded().await;
    for bytes in [
        "nonsense\r\n\r\n",
        "GET /v1/small HTTP/1.1\r\nHost : HOST\r\n\r\n",
        "GET /v1/small HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\n folded\r\n\r\n",
        "POST /v1/echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "POST /v1/echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: +1\r\n\r\nx",
        "POST /v1/echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "GET /v1/a b HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET /v1/small HTTP/1.1\r\nHost: HOST\r\nX-A: a\0b\r\n\r\n",
    ] {
        let bytes = bytes.replace("HOST", &running.addr.to_string());
        let answer = raw_to_end(running.addr, &bytes).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 400 "), "{bytes:?}: {text}");
    }
    assert_eq!(aura.record().api_requests(), 0);
}

#[tokio::test]
async fn each_provider_gets_refusals_in_its_own_shape() {
    type Shape = fn(&Value) -> bool;
    let shapes: [(&str, Shape); 4] = [
        ("aura", |body| body["errors"][0]["reason"] == "cross_site"),
        ("neo4j", |body| body["errors"][0]["code"] == "Neo.ClientError.Security.SidekeyCrossSite"),
        ("neon", |body| body["code"] == "cross_site" && body["request_id"].is_string()),
        ("generic", |body| body["error"] == "cross_site"),
    ];
    for (provider, is_right) in shapes {
        let running = sidekey(&open_route(([127, 0, 0, 1], 9).into(), &format!("provider = \"{provider}\"")));
        let reply = get(running.addr, "/", &[("origin", "null")]).await;
        assert!(reply.status == 403 && is_right(&reply.json()), "{provider}: {reply:?}");
    }
}

fn on_socket(path: &Path, more: &str) -> String {
    open_route(([127, 0, 0, 1], 9).into(), "")
        .replace("\"127.0.0.1:0\"", &format!("{{ bind = \"unix:{}\"{more} }}", path.display()))
}

#[tokio::test]
async fn a_unix_socket_is_private_and_takes_any_host_but_no_web_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let aura = aura().await;
    let socket = format!("listen = \"unix:{}\"", path.display());
    let running = sidekey(&aura_route(&aura, "").replace("listen = \"127.0.0.1:0\"", &socket));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let reply = raw_unix(&path, "GET /v1/instances HTTP/1.1\r\nHost: anything.example\r\n\r\n").await;
    assert_eq!(reply.status, 200);
    let none = raw_unix(&path, "GET /v1/instances HTTP/1.1\r\n\r\n").await;
    assert_refused(&none, 400, "bad_request", "no Host");
    let page = raw_unix(&path, "GET / HTTP/1.1\r\nHost: x\r\nOrigin: null\r\n\r\n").await;
    assert_refused(&page, 403, "cross_site", "a web page");
    running.stop().await;
    assert!(!path.exists(), "its file is removed");
    let running = sidekey(&on_socket(&path, ", mode = \"0660\""));
    assert_eq!(mode(&path), 0o660);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
    drop(running);
    eventually("the file to be removed", async || !path.exists()).await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.symlink_metadata().unwrap().file_type().is_socket(), "a killed process leaves it behind");
    let running = sidekey(&on_socket(&path, ""));
    let head = "GET / HTTP/1.1\r\nHost: x\r\nOrigin: null\r\n\r\n";
    assert_eq!(raw_unix(&path, head).await.status, 403);

    let second = try_sidekey(&on_socket(&path, ""));
    assert!(matches!(second, Err(StartError::Bind(BindError::InUse(_)))), "{:?}", second.err());
    assert_eq!(raw_unix(&path, head).await.status, 403, "the first one still serves");
    running.stop().await;

    private_file(path.clone(), "precious");
    let third = try_sidekey(&on_socket(&path, ""));
    assert!(matches!(third, Err(StartError::Bind(BindError::NotASocket(_)))), "{:?}", third.err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let target = folder.path().join("elsewhere");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(try_sidekey(&on_socket(&path, "")).is_err(), "a symlink is not followed");
    assert!(!target.exists());
}

#[tokio::test]
async fn of_several_listeners_all_are_bound_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let both = format!("[\"unix:{}\", \"{}\"]", path.display(), taken.local_addr().unwrap());
    let text = open_route(([127, 0, 0, 1], 9).into(), "").replace("\"127.0.0.1:0\"", &both);
    let failed = try_sidekey(&text);
    assert!(matches!(failed, Err(StartError::Bind(BindError::InUse(_)))), "{:?}", failed.err());
    assert!(!path.exists());
}
