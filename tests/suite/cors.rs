//! Web pages of the origins that a route is open to: what a browser is told, over raw bytes, and what reaches the
//! upstream of it.
#![cfg(feature = "demo")]

use std::net::SocketAddr;

use crate::support::http2::Caller;
use crate::support::recorder::Recorder;
use crate::support::running::{Running, open_route, private_file, sidekey};
use crate::support::{Reply, raw, read_reply};
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const APP: &str = "https://app.example.com";
const CORS: &str = "cors = { origins = [\"https://app.example.com\", \"http://localhost:3000\"] }";
/// An upstream that speaks of its own pages.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\
                      Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: *\r\n\
                      Cross-Origin-Resource-Policy: same-origin\r\nVary: Accept\r\n\r\nok";

struct Opened {
    upstream: Recorder,
    running: Running,
}

impl Opened {
    async fn with(more: &str) -> Self {
        let upstream = Recorder::answering(ANSWER).await;
        let running = sidekey(&open_route(upstream.addr, more));
        Self { upstream, running }
    }

    /// Sends a request with these lines; its body is empty.
    async fn ask(&self, method: &str, path: &str, lines: &[&str]) -> Reply {
        raw(self.running.addr, head(self.running.addr, method, path, lines)).await
    }
}

fn head(addr: SocketAddr, method: &str, path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\n{lines}\r\n")
}

/// The values of all lines with that name, in order.
fn all<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    let lines = reply.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    lines.map(|(_, value)| value.as_str()).collect()
}

fn is_shown_to_nobody(reply: &Reply) -> bool {
    !reply.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"))
}

fn assert_shown(reply: &Reply, origin: &str, what: &str) {
    assert_eq!(all(reply, "access-control-allow-origin"), [origin], "{what}: {reply:?}");
    assert!(all(reply, "vary").contains(&"Origin"), "{what}: {reply:?}");
    assert_eq!(all(reply, "access-control-expose-headers").len(), 1, "{what}: {reply:?}");
    assert!(all(reply, "access-control-expose-headers")[0].contains("sidekey-error"), "{what}: {reply:?}");
}

#[tokio::test]
async fn a_page_of_a_named_origin_reads_its_answer_and_a_page_of_another_gets_none() {
    let opened = Opened::with(CORS).await;
    for origin in [APP, "http://localhost:3000"] {
        let line = format!("Origin: {origin}");
        for method in ["GET", "POST", "DELETE"] {
            let reply =
                opened.ask(method, "/x", &[&line, "Sec-Fetch-Site: cross-site", "Content-Length: 0"]).await;
            assert_eq!((reply.status, reply.text()), (200, "ok"), "{method} {origin}");
            assert_shown(&reply, origin, method);
            assert_eq!(all(&reply, "vary"), ["Accept", "Origin"], "the upstream's own stays");
            assert_eq!(all(&reply, "cross-origin-resource-policy"), ["cross-origin"]);
            assert!(all(&reply, "access-control-allow-credentials").is_empty(), "{reply:?}");
            assert!(opened.upstream.take().starts_with(&format!("{method} /x ")));
        }
    }
    for origin in
        ["https://evil.example", "null", "https://app.example.com:8443", "http://app.example.com", ""]
    {
        let line = format!("Origin: {origin}");
        let reply = opened.ask("GET", "/x", &[&line]).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (403, Some("cross_site")), "{origin}");
        assert!(is_shown_to_nobody(&reply), "{origin}: {reply:?}");
    }
    assert_eq!(opened.upstream.take(), "");
    let plain = opened.ask("GET", "/x", &[]).await;
    assert!(plain.status == 200 && is_shown_to_nobody(&plain), "what is no page is told nothing: {plain:?}");
    assert_eq!(all(&plain, "cross-origin-resource-policy"), ["same-origin"]);
}

#[tokio::test]
async fn the_upstream_hears_nothing_of_the_page() {
    let opened = Opened::with(CORS).await;
    let lines = [
        "Origin: https://app.example.com",
        "Referer: https://app.example.com/secret/page",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: cors",
        "Sec-Fetch-Dest: empty",
        "X-Kept: 1",
    ];
    assert_eq!(opened.ask("GET", "/x", &lines).await.status, 200);
    let sent = opened.upstream.take().to_ascii_lowercase();
    for name in ["origin:", "referer:", "sec-fetch-"] {
        assert!(!sent.contains(&format!("\r\n{name}")), "{name} {sent}");
    }
    assert!(sent.contains("\r\nx-kept: 1\r\n"), "{sent}");
    // From a program, it says what the program wants said.
    assert_eq!(opened.ask("GET", "/x", &["Referer: https://docs.example/x"]).await.status, 200);
    assert!(opened.upstream.take().contains("https://docs.example/x"));
}

#[tokio::test]
async fn a_preflight_is_answered_by_sidekey_alone() {
    let opened = Opened::with(CORS).await;
    let preflight = [
        "Origin: https://app.example.com",
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: content-type, authorization,Sidekey-Token, x-forwarded-for, sidekey-error,x_forwarded_for, x y, connection, x-own",
    ];
    let reply = opened.ask("OPTIONS", "/x", &preflight).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0), "{reply:?}");
    assert_eq!(all(&reply, "access-control-allow-origin"), [APP]);
    let methods = all(&reply, "access-control-allow-methods")[0];
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert!(methods.split(", ").any(|known| known == method), "{method}: {methods}");
    }
    let headers = all(&reply, "access-control-allow-headers");
    assert_eq!(
        headers,
        ["content-type, authorization, sidekey-token, x-own"],
        "what sidekey lets callers send"
    );
    assert_eq!(all(&reply, "access-control-max-age"), ["600"]);
    assert_eq!(
        all(&reply, "vary"),
        ["Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]
    );
    assert!(all(&reply, "access-control-allow-private-network").is_empty(), "nobody asked");
    assert!(all(&reply, "access-control-allow-credentials").is_empty());
    assert_eq!(reply.header("proxy-status"), Some("sidekey"));

    let private = [preflight[0], preflight[1], "Access-Control-Request-Private-Network: true"];
    let reply = opened.ask("OPTIONS", "/x", &private).await;
    assert_eq!(all(&reply, "access-control-allow-private-network"), ["true"]);
    assert!(all(&reply, "access-control-allow-headers").is_empty(), "none was asked for");
    let rare = [preflight[0], "Access-Control-Request-Method: PROPFIND"];
    let reply = opened.ask("OPTIONS", "/x", &rare).await;
    assert!(all(&reply, "access-control-allow-methods")[0].ends_with(", PROPFIND"), "{reply:?}");
    for never in ["TRACE", "CONNECT", "a b", ""] {
        let never = format!("Access-Control-Request-Method: {never}");
        let reply = opened.ask("OPTIONS", "/x", &[preflight[0], &never]).await;
        assert_eq!(all(&reply, "access-control-allow-methods"), [methods], "{never}");
    }
    for refused in ["Origin: https://evil.example", "Origin: null", "Origin: https://app.example.com/"] {
        let reply = opened.ask("OPTIONS", "/x", &[refused, preflight[1]]).await;
        assert!(reply.status == 403 && is_shown_to_nobody(&reply), "{refused}: {reply:?}");
    }
    assert_eq!(opened.upstream.take(), "", "none of them goes further");
    // An OPTIONS of the page's own is no preflight.
    let reply = opened.ask("OPTIONS", "/x", &[preflight[0]]).await;
    assert_eq!(reply.status, 200);
    assert_shown(&reply, APP, "OPTIONS");
    assert!(opened.upstream.take().starts_with("OPTIONS /x "));
}

#[tokio::test]
async fn what_else_is_written_is_told_to_browsers() {
    let more = "cors = { origins = \"https://app.example.com\", credentials = true, expose = [\"X-Total-Count\"], \
                max_age = \"1h\" }";
    let opened = Opened::with(more).await;
    let preflight = ["Origin: https://app.example.com", "Access-Control-Request-Method: GET"];
    let reply = opened.ask("OPTIONS", "/x", &preflight).await;
    assert_eq!(all(&reply, "access-control-max-age"), ["3600"]);
    assert_eq!(all(&reply, "access-control-allow-credentials"), ["true"]);
    let reply = opened.ask("GET", "/x", &preflight[..1]).await;
    assert_eq!(all(&reply, "access-control-allow-credentials"), ["true"]);
    let exposed = all(&reply, "access-control-expose-headers")[0];
    assert!(exposed.ends_with(", x-total-count"), "{exposed}");
}

#[tokio::test]
async fn a_page_reads_sidekeys_own_errors() {
    let folder = tempfile::tempdir().unwrap();
    let token = private_file(folder.path().join("token"), "the-token-of-the-page");
    let upstream = Recorder::answering(ANSWER).await;
    let text = format!(
        "{}{CORS}\n[route.gone]\npath = \"/gone\"\ncredential = false\nupstream = \"http://127.0.0.1:9\"\n{CORS}\n\
         [route.shut]\npath = \"/shut\"\ncredential = false\nupstream = \"http://{}\"\n\
         [caller.page]\ntoken = {{ file = \"{}\" }}\nroutes = [\"up\", \"gone\"]\n\
         [caller.other]\ntoken = {{ value = \"the-token-of-another\" }}\nroutes = [\"shut\"]\n",
        open_route(upstream.addr, ""),
        upstream.addr,
        token.display(),
    );
    let running = sidekey(&text);
    let opened = Opened { upstream, running };
    let origin = "Origin: https://app.example.com";
    let (mine, other) =
        ("Sidekey-Token: the-token-of-the-page", "Authorization: Bearer the-token-of-another");
    // A preflight shows no token.
    let asks = "Access-Control-Request-Method: POST";
    assert_eq!(opened.ask("OPTIONS", "/x", &[origin, asks]).await.status, 204);
    let cases: [(&str, &[&str], u16, &str); 5] = [
        ("/x", &[origin], 401, "caller_unknown"),
        ("/x", &[origin, other], 403, "not_allowed"),
        ("/gone/x", &[origin, mine], 502, "upstream_unreachable"),
        ("/a/../x", &[origin, mine], 400, "bad_request"),
        ("/x", &[origin, mine, "Transfer-Encoding: gzip, chunked"], 400, "bad_request"),
    ];
    for (path, lines, status, code) in cases {
        let reply = opened.ask("GET", path, lines).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (status, Some(code)), "{path} {reply:?}");
        assert_shown(&reply, APP, path);
    }
    assert_eq!(opened.upstream.take(), "");
    assert_eq!(opened.ask("GET", "/x", &[origin, mine]).await.status, 200);
    assert!(!opened.upstream.take().contains("the-token"), "it is for sidekey");
    // A route that is open to no page stays so, whoever asks.
    for (method, asks) in [("GET", mine), ("OPTIONS", asks)] {
        let reply = opened.ask(method, "/shut/x", &[origin, asks]).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (403, Some("cross_site")), "{method}");
        assert!(is_shown_to_nobody(&reply), "{reply:?}");
    }
    // Nor does it open a name that is not ours.
    let foreign = format!("GET /x HTTP/1.1\r\nHost: rebind.example\r\n{origin}\r\n{mine}\r\n\r\n");
    let reply = raw(opened.running.addr, foreign).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (403, Some("forbidden_host")));
    assert!(is_shown_to_nobody(&reply) && opened.upstream.take().is_empty());
}

#[tokio::test]
async fn images_scripts_and_links_of_a_page_are_known_by_their_referer_if_a_browser_vouches_for_it() {
    let opened = Opened::with(CORS).await;
    let (page, cross) = ("Referer: https://app.example.com/", "Sec-Fetch-Site: cross-site");
    let evil = "Referer: https://evil.example/https://app.example.com/";
    let cases: [(&str, &[&str], bool); 7] = [
        ("GET", &[page, cross, "Sec-Fetch-Dest: image"], true),
        ("GET", &["Referer: http://localhost:3000/a?b", "Sec-Fetch-Site: same-site"], true),
        ("HEAD", &[page, cross], true),
        ("GET", &[cross], false),
        ("GET", &[evil, cross], false),
        ("GET", &[page, cross, "Origin: null"], false),
        ("POST", &[page, cross, "Content-Length: 0"], false),
    ];
    for (method, lines, want) in cases {
        let reply = if method == "HEAD" {
            // An answer without the body that its length tells of.
            let end = "Connection: close";
            let head = head(opened.running.addr, method, "/x", &[lines, &[end]].concat());
            let bytes = crate::support::raw_to_end(opened.running.addr, head).await;
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            assert!(text.contains("access-control-allow-origin: https://app.example.com\r\n"), "{text}");
            opened.upstream.take();
            continue;
        } else {
            opened.ask(method, "/x", lines).await
        };
        assert_eq!(reply.status, if want { 200 } else { 403 }, "{method} {lines:?}");
        assert_eq!(!opened.upstream.take().is_empty(), want, "{method} {lines:?}");
        assert_eq!(is_shown_to_nobody(&reply), !want, "{method} {lines:?}");
    }
}

#[tokio::test]
async fn on_one_connection_each_request_is_judged_by_itself() {
    let opened = Opened::with(CORS).await;
    let mut stream = TcpStream::connect(opened.running.addr).await.unwrap();
    let asks = "Access-Control-Request-Method: PUT";
    let (app, dev, evil) =
        ("Origin: https://app.example.com", "Origin: http://localhost:3000", "Origin: https://evil.example");
    let cases: [(&str, &[&str], u16, Option<&str>); 6] = [
        ("OPTIONS", &[app, asks], 204, Some(APP)),
        ("PUT", &[app, "Content-Length: 0"], 200, Some(APP)),
        ("GET", &[evil], 403, None),
        ("GET", &[dev], 200, Some("http://localhost:3000")),
        ("GET", &[], 200, None),
        ("GET", &[app], 200, Some(APP)),
    ];
    for (method, lines, status, origin) in cases {
        stream.write_all(head(opened.running.addr, method, "/x", lines).as_bytes()).await.unwrap();
        let reply = read_reply(&mut stream).await;
        assert_eq!(reply.status, status, "{method} {lines:?}");
        assert_eq!(reply.header("access-control-allow-origin"), origin, "{method} {lines:?}");
    }
}

#[tokio::test]
async fn a_page_is_served_over_http_2_as_well() {
    let opened = Opened::with(CORS).await;
    let mut caller = Caller::connect(opened.running.addr).await;
    let asks = [("origin", APP), ("access-control-request-method", "PUT")];
    let answer = caller.send(Method::OPTIONS, "/x", &asks, b"").await;
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (204, Some(APP)));
    assert_eq!(opened.upstream.take(), "");
    let answer = caller.send(Method::PUT, "/x", &asks[..1], b"body").await;
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (200, Some(APP)));
    assert!(opened.upstream.take().contains("body"));
    let answer = caller.send(Method::PUT, "/x", &[("origin", "https://evil.example")], b"body").await;
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (403, None));
    assert_eq!(opened.upstream.take(), "");
}
