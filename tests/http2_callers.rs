//! Callers of HTTP/2: by prior knowledge and over TLS, their limits, their flow control, and what happens when they go
//! away.
#![cfg(feature = "demo")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use support::http2::{
    CONTINUATION, Caller, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, Recorder, Upstream, fields,
    frame, read, read_body,
};
use support::running::{eventually, open_route, patiently, private_file, sidekey};
use support::scripted::{Scripted, read_head, say};
use support::tls::{Authority, Identity};
use support::{basic, get, raw_to_end, read_reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

const GET: [(&[u8], &[u8]); 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", b"/")];

/// An open route with these keys of the server.
fn limited(upstream: SocketAddr, server: &str) -> String {
    open_route(upstream, "").replace("[route", &format!("{server}\n[route"))
}

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
    let answer = caller.send(Method::GET, "/a%2fb//c?d=%20", &headers, b"").await;
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    let want = format!(
        "GET /a%2fb//c?d=%20 HTTP/1.1\r\ncookie: a=1; b=2\r\nx-a: 1\r\nx-a: 2\r\nhost: {}\r\nvia: 2.0 sidekey\r\n\
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
    std::fs::write(&cert, own.cert_pem()).unwrap();
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
            let mut config = support::callers::caller(&authority, shows);
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
    let answered =
        async { while support::http2::next_frame(&mut stream).await.expect("an answer").kind != HEADERS {} };
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
        while let Some(frame) = support::http2::next_frame(&mut stream).await {
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
async fn what_a_caller_may_send_is_bounded_and_each_bound_says_so() {
    let upstream = Recorder::start().await;
    let server = "max_header_size = \"16KiB\"\nmax_headers = 20\nmax_target = \"1KiB\"\nmax_streams = 7";
    let running = sidekey(&limited(upstream.addr, server));
    let mut caller = Caller::connect(running.addr).await;
    assert_eq!(caller.get("/").await.status(), 200);
    assert_eq!(caller.sender.current_max_send_streams(), 7);
    let _ = upstream.take();
    let names: Vec<String> = (0..30).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let answer = caller.send(Method::GET, "/", &many, b"").await;
    assert_eq!((answer.status(), answer.header("sidekey-error")), (431, Some("headers_too_large")));
    assert_eq!(caller.send(Method::GET, "/", &many[..19], b"").await.status(), 200);
    let _ = upstream.take();
    let long = format!("/{}", "x".repeat(2000));
    let answer = caller.get(&long).await;
    assert_eq!((answer.status(), answer.header("sidekey-error")), (414, Some("target_too_long")));
    // The h2 crate answers this by itself, and a caller that heeds the setting does not send it.
    let large = "x".repeat(20_000);
    let answer = caller.try_send(Method::GET, "/", &[("x-large", &large)], b"").await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 431), "{answer:?}");
    assert_eq!(upstream.take(), "");
    let mut caller = Caller::connect(running.addr).await;
    assert_eq!(caller.get("/").await.status(), 200);
}

#[tokio::test]
async fn more_requests_at_once_than_may_be_are_503() {
    let gate = Arc::new(Semaphore::new(0));
    let pass = Arc::clone(&gate);
    let upstream = Scripted::start(move |_, mut stream| {
        let gate = Arc::clone(&pass);
        async move {
            while read_head(&mut stream).await.contains("\r\n\r\n") {
                gate.acquire().await.unwrap().forget();
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let running = sidekey(&limited(upstream.addr, "max_requests = 3"));
    let mut caller = Caller::connect(running.addr).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(caller.begin(Method::GET, "/", &[], true).await.0);
    }
    eventually("all to arrive", async || upstream.connections() == 3).await;
    let answer = caller.get("/").await;
    assert_eq!((answer.status(), answer.header("sidekey-error")), (503, Some("overloaded")));
    gate.add_permits(10);
    for answer in waiting {
        assert_eq!(patiently("an answer", read(answer)).await.unwrap().text(), "ok");
    }
    assert_eq!(caller.get("/").await.text(), "ok");
}

#[tokio::test]
async fn a_caller_that_takes_back_what_it_asks_is_cut_off_and_others_are_served() {
    let upstream = Scripted::start(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /well") {
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        for id in (1..20_000u32).step_by(2) {
            let reset = frame(RST_STREAM, 0, id, &8u32.to_be_bytes());
            let both = [frame(HEADERS, END_HEADERS | END_STREAM, id, &fields(&GET)), reset].concat();
            if writing.write_all(&both).await.is_err() {
                break;
            }
            sent += 1;
            // So that each is begun before it is taken back, not refused in the queue.
            tokio::task::yield_now().await;
        }
        sent
    });
    let mut rest = Vec::new();
    let served = async {
        for _ in 0..10 {
            assert_eq!(get(running.addr, "/well", &[]).await.text(), "ok");
        }
    };
    let (_, ()) = tokio::join!(patiently("the end", reading.read_to_end(&mut rest)), served);
    let sent = patiently("the flood", flood).await.unwrap();
    assert!(upstream.connections() < 1000, "{} of {sent}", upstream.connections());
}

#[tokio::test]
async fn a_header_without_end_closes_the_connection() {
    let upstream = Recorder::start().await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(&[PREFACE, &frame(HEADERS, 0, 1, &fields(&GET))].concat()).await.unwrap();
    let piece = frame(CONTINUATION, 0, 1, &fields(&[(b"x-a", &[b'x'; 8000])]));
    let (mut reading, mut writing) = stream.into_split();
    let flood = async {
        let mut sent = 0;
        while writing.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    };
    let mut rest = Vec::new();
    let (sent, _) = patiently("the end", async { tokio::join!(flood, reading.read_to_end(&mut rest)) }).await;
    assert!(sent < 64 << 20, "{sent}");
    assert_eq!(upstream.take(), "");
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_after_a_while() {
    let upstream = Recorder::start().await;
    let running = sidekey(&limited(upstream.addr, "idle_timeout = \"300ms\""));
    let mut caller = Caller::connect(running.addr).await;
    assert_eq!(caller.get("/").await.status(), 200);
    let _ = caller.closed().await;
    let mut silent = TcpStream::connect(running.addr).await.unwrap();
    silent.write_all(PREFACE).await.unwrap();
    let mut rest = Vec::new();
    let _ = patiently("the end", silent.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn stopping_lets_streams_finish_and_takes_no_new_ones() {
    let gate = Arc::new(Semaphore::new(0));
    let pass = Arc::clone(&gate);
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let upstream = Scripted::start(move |_, mut stream| {
        let (gate, begun) = (Arc::clone(&pass), Arc::clone(&count));
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await;
            begun.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            say(&mut stream, "later").await;
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = Caller::connect(running.addr).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(caller.begin(Method::GET, "/", &[], true).await.0);
    }
    let (addr, idle) = (running.addr, Caller::connect(running.addr).await);
    let unsaid = TcpStream::connect(addr).await.unwrap();
    eventually("the streams to begin", async || begun.load(Ordering::SeqCst) == 3).await;
    let stopping = tokio::spawn(running.stop());
    let _ = idle.closed().await;
    let mut unsaid = unsaid;
    let closing = std::time::Instant::now();
    let _ = patiently("a connection that said nothing to close", unsaid.read_to_end(&mut Vec::new())).await;
    assert!(closing.elapsed() < Duration::from_secs(5), "it is not waited for");
    eventually("no new streams", async || caller.sender.clone().ready().await.is_err()).await;
    assert!(!stopping.is_finished() && !caller.is_closed());
    gate.add_permits(3);
    for answer in waiting {
        assert_eq!(patiently("an answer", read(answer)).await.unwrap().text(), "firstlater");
    }
    let _ = caller.closed().await;
    patiently("the stop", stopping).await.unwrap();
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
    let _ = AtomicBool::new(false);
}
