//! What callers may take at once: each bound has its answer, and what was running goes on.
#![cfg(feature = "demo")]

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::running::{Running, eventually, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::{Reply, get, raw, raw_to_end, read_reply, try_send};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn bounded(upstream: SocketAddr, server: &str, route: &str) -> Running {
    sidekey(&open_route(upstream, route).replace("[route", &format!("{server}\n[route")))
}

/// An upstream that answers each request with the number of its connection.
async fn counting() -> Scripted {
    Scripted::start(|number, mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            say(&mut stream, format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
        }
    })
    .await
}

/// The same, but nothing is answered before the test says so.
async fn holding() -> (Scripted, watch::Sender<bool>) {
    let (go, wait) = watch::channel(false);
    let upstream = Scripted::start(move |number, mut stream| {
        let mut wait = wait.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let _ = wait.wait_for(|go| *go).await;
                say(&mut stream, format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
            }
        }
    });
    (upstream.await, go)
}

fn assert_overloaded(reply: &Reply) {
    assert_eq!((reply.status, reply.header("sidekey-error")), (503, Some("overloaded")), "{reply:?}");
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=connection_limit_reached"));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.json()["error"], "overloaded");
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away_and_the_others_go_on() {
    let upstream = counting().await;
    let running = bounded(upstream.addr, "max_connections = 2", "");
    let mut first = TcpStream::connect(running.addr).await.unwrap();
    let mut second = TcpStream::connect(running.addr).await.unwrap();
    for stream in [&mut first, &mut second] {
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(read_reply(stream).await.status, 200);
    }
    let mut third = TcpStream::connect(running.addr).await.unwrap();
    assert_overloaded(&read_reply(&mut third).await);
    assert_eq!(patiently("the end", third.read(&mut [0])).await.unwrap_or(0), 0, "and closed");
    first.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut first).await.status, 200);
    drop(first);
    // Whoever is turned away while it sends may see nothing but the end.
    let is_served = async || {
        try_send(running.addr, Method::GET, "/", &[], "").await.is_ok_and(|reply| reply.status == 200)
    };
    eventually("a place", is_served).await;
}

#[tokio::test]
async fn one_request_too_many_is_answered_at_once_and_the_others_go_on() {
    let (upstream, go) = holding().await;
    let running = bounded(upstream.addr, "max_requests = 2", "");
    let mut busy = Vec::new();
    for count in 1..=2 {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        busy.push(stream);
        eventually("it is there", async || upstream.connections() == count).await;
    }
    assert_overloaded(&get(running.addr, "/", &[]).await);
    go.send(true).unwrap();
    for stream in &mut busy {
        assert_eq!(read_reply(stream).await.status, 200);
    }
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn a_header_may_have_so_many_bytes_and_lines() {
    let upstream = counting().await;
    let running = bounded(upstream.addr, "max_header_size = \"2KiB\"\nmax_headers = 10", "");
    let with = |headers: &str| format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    for (headers, want) in [
        (format!("X: {}\r\n", "y".repeat(1900)), 200),
        (format!("X: {}\r\n", "y".repeat(2100)), 431),
        (format!("X: {}\r\n", "y".repeat(200_000)), 431),
        ("X: y\r\n".repeat(9), 200),
        ("X: y\r\n".repeat(10), 431),
    ] {
        assert_eq!(raw(running.addr, with(&headers)).await.status, want, "{} bytes", headers.len());
    }
}

#[tokio::test]
async fn a_target_may_be_so_long() {
    let upstream = counting().await;
    let running = bounded(upstream.addr, "max_target = \"100B\"", "");
    assert_eq!(get(running.addr, &format!("/{}", "x".repeat(99)), &[]).await.status, 200);
    for long in [format!("/{}", "x".repeat(100)), format!("/?{}", "x".repeat(99))] {
        let reply = get(running.addr, &long, &[]).await;
        assert_eq!(
            (reply.status, reply.header("sidekey-error")),
            (414, Some("target_too_long")),
            "{reply:?}"
        );
    }
    let endless = raw_to_end(running.addr, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(66_000))).await;
    let endless = String::from_utf8_lossy(&endless);
    assert!(endless.starts_with("HTTP/1.1 4"), "{endless}");
}

#[tokio::test]
async fn an_upstream_gets_no_more_connections_than_it_may_and_a_bounded_queue_waits_for_them() {
    let (upstream, go) = holding().await;
    let running = bounded(upstream.addr, "", "max_connections = 1\nmax_queue = 1\nconnect_timeout = \"30s\"");
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        busy.push(stream);
        // One has the connection, then one waits: only then is the third too many.
        eventually("it is there", async || upstream.connections() == 1).await;
    }
    // The second may be on its way still.
    let mut refused = None;
    eventually("a full queue", async || {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        match tokio::time::timeout(Duration::from_millis(200), read_reply(&mut stream)).await {
            Ok(reply) => refused = Some(reply),
            Err(_) => busy.push(stream),
        }
        refused.is_some()
    })
    .await;
    assert_overloaded(&refused.unwrap());
    go.send(true).unwrap();
    for stream in &mut busy {
        assert_eq!(read_reply(stream).await.text(), "0", "all on the one connection");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn whoever_waits_for_a_connection_does_not_wait_for_ever() {
    let (upstream, _go) = holding().await;
    let running = bounded(upstream.addr, "", "max_connections = 1\nconnect_timeout = \"300ms\"");
    let mut busy = TcpStream::connect(running.addr).await.unwrap();
    busy.write_all(GET.as_bytes()).await.unwrap();
    eventually("it is there", async || upstream.connections() == 1).await;
    assert_overloaded(&get(running.addr, "/", &[]).await);
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_its_place_back() {
    let (upstream, go) = holding().await;
    let running = bounded(upstream.addr, "max_requests = 1", "max_connections = 1");
    let mut busy = TcpStream::connect(running.addr).await.unwrap();
    busy.write_all(GET.as_bytes()).await.unwrap();
    eventually("it is there", async || upstream.connections() == 1).await;
    drop(busy);
    go.send(true).unwrap();
    eventually("a place", async || get(running.addr, "/", &[]).await.status == 200).await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_its_answer_is_cut_off_and_so_is_the_upstream() {
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let ended = ended.clone();
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
            let piece = vec![b'x'; 1 << 16];
            while stream.write_all(&piece).await.is_ok() {}
            let _ = ended.send(());
        }
    })
    .await;
    let running = bounded(upstream.addr, "idle_timeout = \"500ms\"", "");
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(GET.as_bytes()).await.unwrap();
    patiently("the end upstream", end.recv()).await.unwrap();
    let mut all = Vec::new();
    let _ = patiently("the end", caller.read_to_end(&mut all)).await;
    assert!(all.len() < 1_000_000_000, "it does not end cleanly");
}

#[tokio::test]
async fn a_caller_that_reads_none_of_many_answers_holds_no_place_for_ever() {
    let upstream = Scripted::start(|_, mut stream| async move {
        let body = "x".repeat(10_000);
        while !read_head(&mut stream).await.is_empty() {
            say(&mut stream, format!("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n{body}")).await;
        }
    })
    .await;
    let running = bounded(upstream.addr, "idle_timeout = \"500ms\"\nmax_requests = 1", "");
    let mut deaf = TcpStream::connect(running.addr).await.unwrap();
    // More than the system takes of answers that nobody reads.
    deaf.write_all(GET.repeat(2000).as_bytes()).await.unwrap();
    let is_refused = async || get(running.addr, "/", &[]).await.status == 503;
    eventually("the one place taken", is_refused).await;
    let is_served = async || get(running.addr, "/", &[]).await.status == 200;
    eventually("the one place free", is_served).await;
    drop(deaf);
}

#[tokio::test]
async fn a_websocket_keeps_its_connection_to_the_upstream_counted() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upstream = Scripted::start(move |_, mut stream| async move {
        if read_head(&mut stream).await.to_ascii_lowercase().contains("upgrade: websocket") {
            say(&mut stream, switching).await;
            let _ = stream.read(&mut [0]).await;
        } else {
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let running = bounded(upstream.addr, "", "max_connections = 1\nconnect_timeout = \"300ms\"");
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    let handshake = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n";
    caller.write_all(handshake.as_bytes()).await.unwrap();
    patiently("101", caller.read(&mut [0; 12])).await.unwrap();
    assert_overloaded(&get(running.addr, "/", &[]).await);
    drop(caller);
    eventually("a place", async || get(running.addr, "/", &[]).await.status == 200).await;
}

#[tokio::test]
async fn unused_connections_are_kept_for_as_long_as_the_upstream_says_less_a_moment() {
    let upstream = Scripted::start(|number, mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            let answer =
                format!("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 1\r\n\r\n{number}");
            say(&mut stream, answer).await;
        }
    })
    .await;
    let running = bounded(upstream.addr, "", "");
    assert_eq!(get(running.addr, "/", &[]).await.text(), "0");
    assert_eq!(get(running.addr, "/", &[]).await.text(), "0", "used again");
    // One second, and two ticks of the worker's clock.
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_eq!(get(running.addr, "/", &[]).await.text(), "1");
    let running = bounded(upstream.addr, "", "idle_timeout = \"100ms\"");
    let first = get(running.addr, "/", &[]).await.text().to_owned();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_ne!(get(running.addr, "/", &[]).await.text(), first);
}

#[tokio::test]
async fn the_case_of_header_names_is_kept_where_a_route_asks_for_it() {
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            let _ = heads.send(read_head(&mut stream).await);
            let answer = "HTTP/1.1 200 OK\r\nX-ODD-Name: 1\r\nx-odd-NAME: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            say(&mut stream, answer).await;
        }
    })
    .await;
    let request = "GET / HTTP/1.1\r\nHOST: localhost\r\nSOAPAction: x\r\nX-Two: a\r\nx-TWO: b\r\n\r\n";
    for (key, want) in [("preserve_header_case = true", true), ("", false)] {
        let running = bounded(upstream.addr, "", key);
        let answer = String::from_utf8(
            raw_to_end(running.addr, request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await,
        )
        .unwrap();
        let head = seen.recv().await.unwrap();
        for (text, name) in [
            (&head, "\r\nSOAPAction: x"),
            (&head, "\r\nX-Two: a"),
            (&head, "\r\nx-TWO: b"),
            (&answer, "\r\nX-ODD-Name: 1"),
            (&answer, "\r\nx-odd-NAME: 2"),
        ] {
            assert_eq!(text.contains(name), want, "{name:?} in {text:?}");
            assert!(text.to_ascii_lowercase().contains(&name.to_ascii_lowercase()), "{text:?}");
        }
    }
}
