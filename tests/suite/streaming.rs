//! Bodies and connections: framing, reuse, back-pressure, and what happens when one side goes away.
#![cfg(feature = "demo")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::running::{aura, aura_route, eventually, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::{get, post, raw, raw_to_end, read_reply, try_send};
use http::Method;
use sidekey::demo::standins::Checksum;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

#[tokio::test]
async fn bodies_of_known_and_of_unknown_length_arrive_whole() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    let want = Checksum::of(&body).hex();
    let echo = post(running.addr, "/v1/echo", &[], body.clone()).await.json();
    assert_eq!(
        (echo["body_bytes"].as_u64(), echo["checksum"].as_str()),
        (Some(3_000_000), Some(want.as_str()))
    );

    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let mut chunked =
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(70_001) {
        chunked.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    writing.write_all(&chunked).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(&want) {
        assert!(patiently("an answer", reading.read_buf(&mut answer)).await.unwrap() > 0);
    }
    let seen = aura.record().requests().pop().unwrap();
    assert_eq!((seen.header("transfer-encoding"), seen.header("content-length")), (Some("chunked"), None));

    let bytes = get(running.addr, "/v1/bytes/3000000", &[]).await;
    assert_eq!((bytes.body.len(), bytes.header("content-length")), (3_000_000, Some("3000000")));
}

#[tokio::test]
async fn upstream_connections_are_used_again_one_request_after_the_other() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    for _ in 0..20 {
        assert_eq!(get(running.addr, "/v1/instances", &[]).await.status, 200);
        assert_eq!(post(running.addr, "/v1/echo", &[], "x").await.status, 200);
        assert_eq!(get(running.addr, "/v1/status/204", &[]).await.status, 204);
    }
    // One for the token endpoint, one for the API.
    assert_eq!(aura.record().connections(), 2);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    let one = |path: &str, last: bool| {
        let close = if last { "Connection: close\r\n" } else { "" };
        format!("GET /v1/{path} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n")
    };
    let text = [one("status/418", false), one("slow/50", false), one("small", true)].concat();
    let all = String::from_utf8(raw_to_end(running.addr, text).await).unwrap();
    let order: Vec<_> = ["418", "late", "small, fixed"].iter().map(|what| all.find(what)).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{all}");
}

#[tokio::test]
async fn callers_of_http_1_0_are_served_and_their_connection_closes() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    let text = "GET /v1/bytes/200000 HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let all = raw_to_end(running.addr, text).await;
    let at = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(all.starts_with(b"HTTP/1.0 200 "), "{}", String::from_utf8_lossy(&all[..at]));
    assert_eq!(all.len() - at, 200_000);
    let seen = aura.record().requests().pop().unwrap();
    assert_eq!((seen.header("via"), seen.header("connection")), (Some("1.0 sidekey"), None));
}

#[tokio::test]
async fn an_upstream_of_http_1_0_does_not_make_sidekey_speak_it() {
    let upstream = Scripted::saying("HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nto the end").await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    for _ in 0..2 {
        say(&mut stream, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut first = [0; 9];
        stream.peek(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 ");
        assert_eq!(read_reply(&mut stream).await.text(), "to the end");
    }
}

#[tokio::test]
async fn of_two_framings_chunked_counts_in_both_directions() {
    let (bytes, mut seen) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let bytes = bytes.clone();
        async move {
            let head = read_head(&mut stream).await.to_ascii_lowercase();
            let mut body = vec![0; b"5\r\nhello\r\n0\r\n\r\n".len()];
            stream.read_exact(&mut body).await.unwrap();
            bytes.send((head, body)).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                          6\r\nanswer\r\n0\r\n\r\n";
            say(&mut stream, answer).await;
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\n\r\n";
    let reply = raw(running.addr, request).await;
    assert_eq!((reply.status, reply.text(), reply.header("content-length")), (200, "answer", None));
    let (head, body) = seen.recv().await.unwrap();
    assert!(!head.contains("content-length") && head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(body, b"5\r\nhello\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_transfer_coding_that_would_be_lost_on_the_way_is_refused() {
    let upstream = Scripted::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let reply = raw(running.addr, request).await;
    assert_eq!(
        (reply.status, reply.header("sidekey-error"), upstream.connections()),
        (400, Some("bad_request"), 0)
    );
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_unasked_is_refused() {
    let upstream =
        Scripted::saying("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let reply = raw_to_end(
        running.addr,
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade, close\r\nUpgrade: x\r\n\r\n",
    )
    .await;
    let text = String::from_utf8_lossy(&reply).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 502 ") && text.contains("sidekey-error: upstream_protocol"), "{text}");
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_the_upstream_from_sending() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let upstream = Scripted::start(move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
            let chunk = [7; 65_536];
            while let Ok(wrote) = stream.write(&chunk).await {
                count.fetch_add(wrote as u64, Ordering::SeqCst);
            }
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    say(&mut stream, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    // Two looks that see the same: the buffers on the way are full.
    let mut before = 0;
    eventually("the upstream to be held", async || {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now && now > 0
    })
    .await;
    // Two socket buffers each way, grown to what the system allows, and ours.
    assert!(before < 24 << 20, "{before} bytes were taken for a caller that reads none");
    let mut more = vec![0; 32 << 20];
    patiently("the rest", stream.read_exact(&mut more)).await.unwrap();
    eventually("the upstream to go on", async || sent.load(Ordering::SeqCst) > before).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_caller_from_sending() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    say(&mut stream, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n").await;
    let chunk = [7; 65_536];
    let mut sent = 0;
    // What still can be written within the time of a look is what the buffers on the way take.
    while let Ok(wrote) =
        tokio::time::timeout(std::time::Duration::from_millis(400), stream.write(&chunk)).await
    {
        sent += wrote.unwrap();
        assert!(sent < 24 << 20, "{sent} bytes were taken for an upstream that reads none");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_upstream_does_not_end_cleanly_at_the_caller() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    let cut = try_send(running.addr, Method::GET, "/v1/cut/8000000", &[], "").await;
    assert!(cut.is_err(), "{:?}", cut.map(|reply| (reply.status, reply.headers, reply.body.len())));

    let broken = [
        // Chunked, without the last chunk, and with a chunk that is none.
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    ];
    for answer in broken {
        let upstream = Scripted::saying(answer).await;
        let running = sidekey(&open_route(upstream.addr, ""));
        let reply = try_send(running.addr, Method::GET, "/", &[], "").await;
        assert!(reply.is_err(), "{answer:?}: {reply:?}");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_exchange_upstream() {
    let (events, mut seen) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let events = events.clone();
        async move {
            let head = read_head(&mut stream).await;
            events.send("begun").unwrap();
            if head.starts_with("GET /streaming") {
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nbegin").await;
            }
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            events.send("closed").unwrap();
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    for request in [
        "GET /waiting HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /streaming HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /sending HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
    ] {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        say(&mut stream, request).await;
        assert_eq!(patiently("the upstream", seen.recv()).await, Some("begun"), "{request}");
        if request.contains("streaming") {
            read_head(&mut stream).await;
        }
        drop(stream);
        assert_eq!(patiently("the end upstream", seen.recv()).await, Some("closed"), "{request}");
    }
}

#[tokio::test]
async fn an_early_answer_to_an_upload_reaches_the_caller() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        say(
            &mut stream,
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch",
        )
        .await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    say(&mut stream, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nsome").await;
    let reply = read_reply(&mut stream).await;
    assert_eq!((reply.status, reply.text()), (413, "much"));
}

#[tokio::test]
async fn an_answer_from_an_upstream_that_closes_amid_the_body_reaches_the_caller() {
    let upstream = Scripted::saying("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch").await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n";
    let request = [head.as_bytes(), &[b'x'; 200_000]].concat();
    for round in 0..50 {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        say(&mut stream, &request).await;
        assert_eq!(read_reply(&mut stream).await.status, 413, "round {round}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_sends_a_large_body_first() {
    let running = sidekey(&open_route(([127, 0, 0, 1], 9).into(), ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 300000\r\n\r\n";
    say(&mut stream, [head.as_bytes(), &[b'x'; 300_000]].concat()).await;
    assert_eq!(read_reply(&mut stream).await.status, 403);
}

#[tokio::test]
async fn trailers_reach_a_caller_that_asks_for_them() {
    let upstream = Scripted::saying(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
    let all = String::from_utf8(raw_to_end(running.addr, request).await).unwrap().to_ascii_lowercase();
    assert!(all.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{all}");
}
