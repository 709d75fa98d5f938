//! Callers of HTTP/2: by prior knowledge and over TLS, and what happens when they go away.
#![cfg(feature = "demo")]

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::frames::{
    END_HEADERS, END_STREAM, GET, HEADERS, PREFACE, RST_STREAM, fields, frame, next_frame,
};
use crate::support::http2::{Caller, Upstream, read, read_body};
use crate::support::recorder::Recorder;
use crate::support::running::{open_route, patiently, private_file, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::tls::{Authority, Identity};
use crate::support::{basic, raw_to_end, read_reply};
use bytes::Bytes;
use http::{Method, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Something to tell a test that it has come to this.
fn signal() -> (mpsc::UnboundedSender<&'static str>, mpsc::UnboundedReceiver<&'static str>) {
    mpsc::unbounded_channel()
}

async fn told(signals: &mut mpsc::UnboundedReceiver<&'static str>, what: &str) {
    assert_eq!(patiently(what, signals.recv()).await, Some(what));
}

#[tokio::test]
async fn a_request_by_prior_knowledge_is_one_of_http_1_1_upstream() {
    let upstream = Recorder::start().await;
    let text = open_route(upstream.addr, "").replace("credential = false\n", "")
        + "[route.up.credential]\ntype = \"basic\"\nusername = \"u\"\npassword = { value = \"p\" }\n";
    let running = sidekey(&text);
    let mut caller = Caller::connect(running.addr).await;
    let headers =
        [("cookie", "a=1"), ("x-a", "1"), ("authorization", "Bearer mine"), ("cookie", "b=2"), ("x-a", "2")];
    let answer = caller.send(Method::GET, "/a%3ab//c?d=%20", &headers, b"").await;
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    let want = format!(
        "GET /a%3ab//c?d=%20 HTTP/1.1\r\ncookie: a=1; b=2\r\nx-a: 1\r\nx-a: 2\r\nhost: {}\r\nvia: 2.0 sidekey\r\n\
         authorization: {}\r\n\r\n",
        upstream.addr,
        basic("u", "p")
    );
    let mut got: Vec<_> = upstream.take().split("\r\n").map(str::to_owned).collect();
    let mut want: Vec<_> = want.split("\r\n").map(str::to_owned).collect();
    assert_eq!(got[0], want[0]);
    got.sort();
    want.sort();
    assert_eq!(got, want);
}

/// A listener with TLS, for callers with a certificate of the authority's.
fn tls_listener(authority: &Authority, own: &Identity, upstream: SocketAddr) -> String {
    let (cert, key) = (authority.folder().join("own.crt"), authority.folder().join("own.key"));
    std::fs::write(&cert, own.cert_pem()).expect("write");
    private_file(key.clone(), &own.key_pem());
    let listen = format!(
        "listen = {{ bind = \"127.0.0.1:0\", tls = {{ cert = \"{}\", key = \"{}\", ca = \"{}\" }} }}",
        cert.display(),
        key.display(),
        authority.ca.display()
    );
    open_route(upstream, "").replace("listen = \"127.0.0.1:0\"", &listen)
}

#[tokio::test]
async fn callers_with_a_certificate_are_served_over_tls_in_either_http() {
    let upstream = Recorder::start().await;
    let authority = Authority::new();
    let own = authority.issue(&["localhost"]);
    let running = sidekey(&tls_listener(&authority, &own, upstream.addr));
    let shown = authority.issue(&["caller.example"]);
    let mut caller = Caller::connect_tls(running.addr, &authority, Some(&shown)).await;
    for _ in 0..3 {
        assert_eq!(caller.get("/two").await.text(), "ok");
    }
    let sent = upstream.take();
    assert_eq!(sent.matches("GET /two HTTP/1.1\r\n").count(), 3, "{sent}");
    assert_eq!(sent.matches("via: 2.0 sidekey\r\n").count(), 3, "{sent}");

    for (shows, served) in [(Some(&shown), true), (None, false)] {
        for alpn in [&[][..], &[b"http/1.1".to_vec()]] {
            let mut config = crate::support::callers::caller(&authority, shows);
            config.alpn_protocols = alpn.to_vec();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = TcpStream::connect(running.addr).await.unwrap();
            // In TLS 1.3 the listener's refusal comes with the first read.
            let Ok(mut stream) = connector.connect("localhost".try_into().unwrap(), stream).await else {
                assert!(!served);
                continue;
            };
            let _ = stream.write_all(b"GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            if served {
                assert_eq!(read_reply(&mut stream).await.text(), "ok");
            } else {
                let mut rest = Vec::new();
                assert!(patiently("the end", stream.read_to_end(&mut rest)).await.is_err());
            }
        }
    }
    let sent = upstream.take();
    assert_eq!(sent.matches("GET /one HTTP/1.1\r\n").count(), 2, "{sent}");
    assert_eq!(sent.matches("via: 1.1 sidekey\r\n").count(), 2, "{sent}");
}

#[tokio::test]
async fn a_preface_may_come_byte_by_byte_but_not_turn_into_something_else() {
    let upstream = Recorder::start().await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&GET));
    for byte in [PREFACE, &request].concat() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answered = async { while next_frame(&mut stream).await.expect("an answer").kind != HEADERS {} };
    patiently("an answer", answered).await;
    assert_eq!(upstream.take().lines().next(), Some("GET / HTTP/1.1"));
    for garbage in
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    {
        let said = raw_to_end(running.addr, garbage).await;
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&said));
    }
    assert_eq!(upstream.take(), "");
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    let upstream = Recorder::start().await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = Caller::connect(running.addr).await;
    let answer = caller.send(Method::TRACE, "/", &[], b"").await;
    assert_eq!((answer.status(), answer.header("sidekey-error")), (405, Some("method_refused")));
    let connect = http::Request::builder().method(Method::CONNECT).uri("localhost:443").body(()).unwrap();
    let (answer, _sending) =
        caller.sender.clone().ready().await.unwrap().send_request(connect, false).unwrap();
    let answer = patiently("an answer", read(answer)).await.unwrap();
    assert!(matches!(answer.status(), 400 | 405), "{answer:?}");
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let extended =
        [&[(b":method".as_slice(), b"CONNECT".as_slice()), (b":protocol", b"websocket")], &GET[1..]].concat();
    stream.write_all(&[PREFACE, &frame(HEADERS, END_HEADERS, 1, &fields(&extended))].concat()).await.unwrap();
    let ended = async {
        while let Some(frame) = next_frame(&mut stream).await {
            if frame.stream == 1 {
                return frame.kind;
            }
        }
        RST_STREAM
    };
    assert_eq!(patiently("the end", ended).await, RST_STREAM);
    assert_eq!(caller.get("/").await.text(), "ok", "the connection goes on");
}

#[tokio::test]
async fn a_request_that_its_caller_resets_is_cancelled_upstream_and_never_ends_well_there() {
    let (signals, mut seen) = signal();
    let bytes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = Arc::clone(&bytes);
    let upstream = Scripted::start(move |_, mut stream| {
        let (signals, all) = (signals.clone(), Arc::clone(&all));
        async move {
            let head = read_head(&mut stream).await;
            signals.send("a request").unwrap();
            if head.starts_with("GET /half") {
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await;
            }
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            *all.lock().unwrap() = rest;
            signals.send("a closed connection").unwrap();
        }
    })
    .await;
    // A body that is kept for a replay and one that is not.
    for more in
        ["", "[route.up.credential]\ntype = \"basic\"\nusername = \"u\"\npassword = { value = \"p\" }\n"]
    {
        let text = open_route(upstream.addr, "") + more;
        let text = if more.is_empty() { text } else { text.replace("credential = false\n", "") };
        let running = sidekey(&text);
        let mut caller = Caller::connect(running.addr).await;
        for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
            let (answer, mut sending) = caller.begin(Method::GET, "/", &[], true).await;
            told(&mut seen, "a request").await;
            sending.send_reset(reason);
            drop(answer);
            told(&mut seen, "a closed connection").await;

            let (answer, mut sending) = caller.begin(Method::GET, "/half", &[], true).await;
            let mut body = patiently("the head", answer).await.unwrap().into_body();
            assert_eq!(patiently("half", body.data()).await.unwrap().unwrap(), "first");
            told(&mut seen, "a request").await;
            sending.send_reset(reason);
            drop(body);
            told(&mut seen, "a closed connection").await;

            for length in [None, Some(("content-length", "100"))] {
                let headers: Vec<_> = length.into_iter().collect();
                let (answer, mut sending) = caller.begin(Method::POST, "/", &headers, false).await;
                sending.send_data(Bytes::from_static(b"DELETE everything older than 30"), false).unwrap();
                told(&mut seen, "a request").await;
                sending.send_reset(reason);
                drop(answer);
                told(&mut seen, "a closed connection").await;
                let rest = String::from_utf8(std::mem::take(&mut *bytes.lock().unwrap())).unwrap();
                assert!(!rest.ends_with("0\r\n\r\n"), "{reason:?} {length:?}: it ends well: {rest:?}");
            }
        }
        assert!(!caller.is_closed());
    }
}

#[tokio::test]
async fn a_request_whose_caller_goes_away_is_reset_on_an_upstream_of_http_2() {
    let (signals, mut seen) = signal();
    let upstream = Upstream::start(move |mut visit| {
        let signals = signals.clone();
        async move {
            signals.send("a request").unwrap();
            let mut sending = None;
            if visit.request.uri().path() == "/half" {
                let mut begun = visit.answer.send_response(Response::new(()), false).unwrap();
                begun.send_data(Bytes::from_static(b"half"), false).unwrap();
                sending = Some(begun);
            }
            let has_body = visit.request.method() == Method::POST;
            if has_body {
                let (_, ended) = read_body(visit.request.body_mut()).await;
                assert!(ended.is_err(), "it ends well");
            }
            let reason = match &mut sending {
                Some(sending) => std::future::poll_fn(|cx| sending.poll_reset(cx)).await,
                None => std::future::poll_fn(|cx| visit.answer.poll_reset(cx)).await,
            };
            signals.send(if reason.is_ok() { "a reset" } else { "an error" }).unwrap();
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, "http = \"2\""));
    for path in ["/", "/half"] {
        for body in ["", "Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
            let method = if body.is_empty() { "GET" } else { "POST" };
            let mut stream = TcpStream::connect(running.addr).await.unwrap();
            let part = if body.is_empty() { "" } else { "5\r\nabcde\r\n" };
            say(&mut stream, format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{body}\r\n{part}"))
                .await;
            told(&mut seen, "a request").await;
            if path == "/half" {
                let mut bytes = Vec::new();
                while !bytes.windows(4).any(|four| four == b"half") {
                    assert!(patiently("half", stream.read_buf(&mut bytes)).await.unwrap() > 0);
                }
            }
            drop(stream);
            told(&mut seen, "a reset").await;
        }
    }
    let mut caller = Caller::connect(running.addr).await;
    for path in ["/", "/half"] {
        for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
            for ends in [true, false] {
                let method = if ends { Method::GET } else { Method::POST };
                let (answer, mut sending) = caller.begin(method, path, &[], ends).await;
                if !ends {
                    sending.send_data(Bytes::from_static(b"a part"), false).unwrap();
                }
                told(&mut seen, "a request").await;
                let body =
                    if path == "/half" { Some(patiently("the head", answer).await.unwrap()) } else { None };
                sending.send_reset(reason);
                drop(body);
                told(&mut seen, "a reset").await;
            }
        }
    }
    assert_eq!(upstream.connections(), 1, "the others on it go on");
}
