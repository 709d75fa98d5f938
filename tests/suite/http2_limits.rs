//! What callers of HTTP/2 may do at most, and how their connections end.
#![cfg(feature = "demo")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, PREFACE, RST_STREAM, fields, frame,
};
use crate::support::get;
use crate::support::http2::{Caller, read};
use crate::support::recorder::Recorder;
use crate::support::running::{eventually, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// An open route with these keys of the server.
fn limited(upstream: SocketAddr, server: &str) -> String {
    open_route(upstream, "").replace("[route", &format!("{server}\n[route"))
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
