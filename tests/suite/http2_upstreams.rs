//! HTTP/2 towards upstreams: agreed on or asked for, how many connections, and answers that break off.
#![cfg(feature = "demo")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, NO_ERROR, await_frame, fields, frame, greet, reset,
};
use crate::support::http2::{Caller, Upstream, Visit, read, read_body};
use crate::support::running::{Running, eventually, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, say};
use crate::support::tls::{Authority, TlsServer};
use crate::support::{Reply, get, try_send};
use bytes::Bytes;
use http::{Method, Response};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

fn assert_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.header("sidekey-error")), (status, Some(code)), "{reply:?}");
}

/// By prior knowledge, without a credential.
fn in_front_of(upstream: std::net::SocketAddr, more: &str) -> Running {
    sidekey(&open_route(upstream, &format!("http = \"2\"\n{more}")))
}

/// Over TLS.
fn over_tls(port: u16, authority: &Authority, more: &str) -> Running {
    let tls = format!("tls = {{ ca = \"{}\" }}\n{more}", authority.ca.display());
    let text = open_route(([127, 0, 0, 1], 9).into(), &tls);
    sidekey(&text.replace("http://127.0.0.1:9", &format!("https://localhost:{port}")))
}

#[tokio::test]
async fn the_tls_handshake_says_which_http_is_spoken_unless_the_route_does() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let two = Upstream::start_tls(&identity, |visit: Visit| async move {
        let authority = visit.request.uri().authority().unwrap().to_string();
        let scheme = visit.request.uri().scheme_str().unwrap().to_owned();
        assert_eq!(visit.header("host"), None);
        visit.say(200, &format!("{scheme} {authority}"));
    })
    .await;
    let one = TlsServer::start(&identity, None, OK).await;
    for http in ["", "http = \"auto\"", "http = \"2\""] {
        let running = over_tls(two.addr.port(), &authority, http);
        for _ in 0..2 {
            let reply = get(running.addr, "/", &[]).await;
            assert_eq!(reply.text(), format!("https localhost:{}", two.addr.port()), "{http}");
        }
    }
    assert_eq!(two.connections(), 3);
    for http in ["", "http = \"1.1\""] {
        let running = over_tls(one.addr.port(), &authority, http);
        assert_eq!(get(running.addr, "/", &[]).await.text(), "ok", "{http}");
    }
    let visits = one.visits().len();
    let running = over_tls(one.addr.port(), &authority, "http = \"2\"");
    assert_error(&get(running.addr, "/", &[]).await, 502, "upstream_protocol");
    assert_eq!(one.visits().len(), visits, "nothing was sent");
}

#[tokio::test]
async fn an_upstream_in_clear_text_that_speaks_http_1_1_alone_is_502() {
    let upstream = Scripted::start(|_, mut stream| async move {
        crate::support::scripted::read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let running = in_front_of(upstream.addr, "");
    assert_error(&get(running.addr, "/", &[]).await, 502, "upstream_protocol");
}

#[tokio::test]
async fn a_connection_carries_64_exchanges_and_more_open_another() {
    let gate = Arc::new(Semaphore::new(0));
    let pass = Arc::clone(&gate);
    let upstream = Upstream::start(move |visit| {
        let gate = Arc::clone(&pass);
        async move {
            if visit.request.uri().path() == "/wait" {
                gate.acquire().await.unwrap().forget();
            }
            visit.say(200, "ok");
        }
    })
    .await;
    let running = in_front_of(upstream.addr, "idle_timeout = \"300ms\"");
    let mut callers = [Caller::connect(running.addr).await, Caller::connect(running.addr).await];
    let mut waiting = Vec::new();
    for (count, connections) in [(64, 1), (1, 2), (63, 2), (1, 3)] {
        let before = upstream.requests();
        for _ in 0..count {
            let caller = &mut callers[usize::from(waiting.len() >= 80)];
            waiting.push(caller.begin(Method::GET, "/wait", &[], true).await.0);
        }
        eventually("all to arrive", async || upstream.requests() == before + count).await;
        assert_eq!(upstream.connections(), connections);
    }
    gate.add_permits(waiting.len());
    for answer in waiting {
        assert_eq!(patiently("an answer", answer).await.unwrap().status(), 200);
    }
    eventually("unused connections to close", async || upstream.open() == 0).await;
    assert_eq!(callers[0].get("/").await.status(), 200);
}

#[tokio::test]
async fn an_upstream_says_how_many_exchanges_it_takes_and_a_route_how_many_connections() {
    for (route, connections) in [("", 4), ("max_connections = 2", 2)] {
        let running_at_once = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let (now, pass) = (Arc::clone(&running_at_once), Arc::clone(&gate));
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(5);
        let upstream = Upstream::start_as(builder, None, move |visit| {
            let (now, gate) = (Arc::clone(&now), Arc::clone(&pass));
            async move {
                if visit.request.uri().path() == "/wait" {
                    now.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
                visit.say(200, "ok");
            }
        })
        .await;
        let running = in_front_of(upstream.addr, route);
        let mut caller = Caller::connect(running.addr).await;
        // Now its settings are known.
        assert_eq!(caller.get("/").await.status(), 200);
        let mut waiting = Vec::new();
        for _ in 0..20 {
            waiting.push(caller.begin(Method::GET, "/wait", &[], true).await.0);
        }
        eventually("as many as may", async || running_at_once.load(Ordering::SeqCst) >= 10).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let at_once = running_at_once.load(Ordering::SeqCst);
        gate.add_permits(100);
        for answer in waiting {
            assert_eq!(patiently("an answer", answer).await.unwrap().status(), 200, "{route}");
        }
        assert!(upstream.connections() <= connections, "{route}: {}", upstream.connections());
        assert!(at_once <= 5 * upstream.connections(), "{route}: {at_once}");
    }
}

#[tokio::test]
async fn many_cold_requests_share_a_connection() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let upstream = Upstream::start_tls(&identity, |visit| async move { visit.say(200, "ok") }).await;
    for (more, is_known) in [("", false), ("", true), ("max_connections = 1", false)] {
        let running =
            over_tls(upstream.addr.port(), &authority, &format!("idle_timeout = \"300ms\"\n{more}"));
        let mut caller = Caller::connect(running.addr).await;
        if is_known {
            assert_eq!(caller.get("/").await.status(), 200);
            eventually("the connection to close", async || upstream.open() == 0).await;
        }
        let before = upstream.connections();
        let mut waiting = Vec::new();
        for _ in 0..50 {
            waiting.push(caller.begin(Method::GET, "/", &[], true).await.0);
        }
        for answer in waiting {
            assert_eq!(patiently("an answer", answer).await.unwrap().status(), 200);
        }
        assert_eq!(upstream.connections() - before, 1, "{more} {is_known}");
    }
}

#[tokio::test]
async fn many_cold_requests_do_not_wait_for_each_other_where_http_1_1_is_spoken() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let authority = Authority::new();
    let upstream = TlsServer::start(&authority.issue(&["localhost"]), None, OK).await;
    for more in ["", "max_connections = 3"] {
        let running = over_tls(upstream.addr.port(), &authority, more);
        let mut caller = Caller::connect(running.addr).await;
        let mut waiting = Vec::new();
        for _ in 0..30 {
            waiting.push(caller.begin(Method::GET, "/", &[], true).await.0);
        }
        for answer in waiting {
            assert_eq!(patiently("an answer", read(answer)).await.unwrap().text(), "ok", "{more}");
        }
    }
    assert_eq!(upstream.visits().len(), 60);
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end_well() {
    type End = fn(&mut h2::SendStream<Bytes>);
    let ends: [(&str, End); 4] = [
        ("no error", |sending| sending.send_reset(h2::Reason::NO_ERROR)),
        ("cancel", |sending| sending.send_reset(h2::Reason::CANCEL)),
        ("refused", |sending| sending.send_reset(h2::Reason::REFUSED_STREAM)),
        ("internal error", |sending| sending.send_reset(h2::Reason::INTERNAL_ERROR)),
    ];
    for (name, end) in ends {
        for length in [None, Some("1000000")] {
            let (go_on, told) = mpsc::unbounded_channel::<()>();
            let told = Arc::new(tokio::sync::Mutex::new(told));
            let upstream = Upstream::start(move |mut visit| {
                let told = Arc::clone(&told);
                async move {
                    let mut head = Response::builder();
                    if let Some(length) = length {
                        head = head.header("content-length", length);
                    }
                    let mut sending = visit.answer.send_response(head.body(()).unwrap(), false).unwrap();
                    sending.send_data(Bytes::from_static(b"half"), false).unwrap();
                    told.lock().await.recv().await;
                    end(&mut sending);
                }
            })
            .await;
            let running = in_front_of(upstream.addr, "");
            let mut caller = Caller::connect(running.addr).await;
            let (answer, _) = caller.begin(Method::GET, "/", &[], true).await;
            let mut body = patiently("the head", answer).await.unwrap().into_body();
            assert_eq!(patiently("half", body.data()).await.unwrap().unwrap(), "half");
            go_on.send(()).unwrap();
            let (rest, broke_off) = patiently("the end", read_body(&mut body)).await;
            let reason = broke_off.expect_err("it is not whole").reason();
            assert!(rest.is_empty() && reason == Some(h2::Reason::INTERNAL_ERROR), "{name}: {reason:?}");

            let mut stream = TcpStream::connect(running.addr).await.unwrap();
            say(&mut stream, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            let mut bytes = Vec::new();
            while !bytes.windows(4).any(|four| four == b"half") {
                assert!(patiently("half", stream.read_buf(&mut bytes)).await.unwrap() > 0);
            }
            go_on.send(()).unwrap();
            let _ = patiently("the end", stream.read_to_end(&mut bytes)).await;
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("half"), "{name}: {text}");
            assert!(!text.ends_with("0\r\n\r\n"), "{name} {length:?}: it ends well: {text}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_shorter_or_longer_than_it_says_does_not_end_well() {
    for (length, body) in [("5", "four"), ("3", "four")] {
        let upstream = Upstream::start(move |mut visit| async move {
            let head = Response::builder().header("content-length", length).body(()).unwrap();
            let mut sending = visit.answer.send_response(head, false).unwrap();
            sending.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
        })
        .await;
        let running = in_front_of(upstream.addr, "");
        let mut caller = Caller::connect(running.addr).await;
        let answer = caller.try_send(Method::GET, "/", &[], b"").await;
        assert!(
            answer.as_ref().map_or(true, |answer| answer.error.is_some() || answer.status() == 502),
            "{answer:?}"
        );
        let reply = try_send(running.addr, Method::GET, "/", &[], "").await;
        assert!(reply.as_ref().map_or(true, |reply| reply.status == 502), "{length}: {reply:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_whole_before_the_request_is_passes_and_ends_the_request() {
    let upstream = Scripted::start(|_, mut stream| async move {
        greet(&mut stream).await;
        let id = await_frame(&mut stream, HEADERS).await.unwrap().stream;
        let body = frame(DATA, END_STREAM, id, b"too large");
        let answer =
            [frame(HEADERS, END_HEADERS, id, &fields(&[(b":status", b"413")])), body, reset(id, NO_ERROR)];
        say(&mut stream, answer.concat()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let running = in_front_of(upstream.addr, "");
    let mut caller = Caller::connect(running.addr).await;
    let (answer, mut sending) = caller.begin(Method::POST, "/", &[], false).await;
    sending.send_data(Bytes::from_static(b"a part"), false).unwrap();
    let answer = patiently("an answer", read(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.text()), (413, "too large"));
}
